"""The loader: label conventions, augmentation, and files that are not what they should be."""

from __future__ import annotations

import io
import pickle
import shutil
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.data import nyud
from edgemtl.data.nyud import TASKS, NyudMT, _Change, _move
from edgemtl.data.nyud_files import read_depth
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import ConfigError, DataError

JOB = RoomSet(seed=6, count=8, height=32, width=64, val_share=0.5)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nyud") / "rooms"
    generate(JOB, out)
    return out


@pytest.fixture
def copy(rooms: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rooms, tmp_path / "copy"))


def test_items_are_the_files(rooms: Path) -> None:
    data = NyudMT(rooms, "val", TASKS)
    assert len(data) == 4
    assert data.class_count == 13
    assert data.size == (32, 64)
    item, name = data[1], data.ids[1]
    assert {k: (tuple(v.shape), v.dtype) for k, v in item.items()} == {
        "image": ((3, 32, 64), torch.float32),
        "semseg": ((32, 64), torch.int64),
        "depth": ((1, 32, 64), torch.float32),
        "normals": ((3, 32, 64), torch.float32),
        "edge": ((1, 32, 64), torch.float32),
    }
    rgb = cv2.imread(str(rooms / f"images/{name}.jpg"))[..., ::-1].astype(np.float32)
    back = item["image"].numpy().transpose(1, 2, 0) * np.float32(IMAGE_STD) + np.float32(IMAGE_MEAN)
    np.testing.assert_allclose(back * 255, rgb, atol=1e-3)
    semseg = cv2.imread(str(rooms / f"segmentation/{name}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(item["semseg"].numpy(), semseg.astype(int) - 1)
    np.testing.assert_allclose(item["depth"][0], np.load(rooms / f"depth/{name}.npy"), rtol=1e-3)
    stored = np.load(rooms / f"normals/{name}.npy").transpose(2, 0, 1)
    np.testing.assert_allclose(item["normals"], stored, atol=2e-3)
    np.testing.assert_array_equal(item["edge"][0], np.load(rooms / f"edge/{name}.npy"))


def test_only_the_asked_tasks_are_read(copy: Path) -> None:
    shutil.rmtree(copy / "edge")
    assert set(NyudMT(copy, "train", ["depth", "semseg"])[0]) == {"image", "depth", "semseg"}
    with pytest.raises(DataError, match=r"edge.00000\d\.npy is missing; the task 'edge' needs it"):
        NyudMT(copy, "train", ["edge"])[0]


def test_no_label_is_255(copy: Path) -> None:
    name = NyudMT(copy, "train", TASKS).ids[0]
    semseg = cv2.imread(str(copy / f"segmentation/{name}.png"), cv2.IMREAD_UNCHANGED)
    semseg[0, 0] = 0
    cv2.imwrite(str(copy / f"segmentation/{name}.png"), semseg)
    depth = np.load(copy / f"depth/{name}.npy")
    depth[0, :3] = [0, np.nan, np.inf]
    np.save(copy / f"depth/{name}.npy", depth)
    normals = np.load(copy / f"normals/{name}.npy")
    normals[0, :2] = [[0, 0, 0], [np.nan, 0, 1]]
    np.save(copy / f"normals/{name}.npy", normals)
    item = NyudMT(copy, "train", TASKS)[0]
    assert item["semseg"][0, 0] == 255
    assert item["depth"][0, 0, :3].tolist() == [255, 255, 255]
    assert item["normals"][:, 0, :2].eq(255).all()
    assert not item["normals"][:, 1:].eq(255).any()
    assert item["depth"][0, 1:].max() < 20


def test_real_nyud_has_forty_classes_and_any_float_type(copy: Path) -> None:
    (copy / "rooms.json").unlink()
    for path in (copy / "segmentation").iterdir():
        cv2.imwrite(str(path), np.full((32, 64), 40, np.uint8))
    for path in (copy / "normals").iterdir():
        np.save(path, np.load(path).astype(np.float64))
    for path in (copy / "edge").iterdir():
        np.save(path, np.load(path).astype(np.float32))
    data = NyudMT(copy, "train", TASKS)
    assert data.class_count == 40
    assert data[0]["semseg"].unique().tolist() == [39]
    assert data[0]["edge"].max() == 1


def test_cache_batch_and_item_agree(rooms: Path) -> None:
    for train in (False, True):
        plain = NyudMT(rooms, "train", TASKS, train=train, seed=3)
        cached = NyudMT(rooms, "train", TASKS, train=train, seed=3, cache=True)
        one, two = plain.batch([2, 0]), cached.batch([2, 0])
        for key, value in one.items():
            assert torch.equal(value, two[key])
            assert torch.equal(value[1], plain[0][key])


def test_augmentation_depends_on_seed_epoch_and_index_only(rooms: Path) -> None:
    data = NyudMT(rooms, "train", TASKS, train=True, seed=3, cache=True)
    data.set_epoch(5)
    first = data.batch([0, 1, 2, 3])
    data.set_epoch(6)
    other = data.batch([0, 1, 2, 3])
    assert not torch.equal(first["image"], other["image"])
    again = NyudMT(rooms, "train", TASKS, train=True, seed=3)
    again.set_epoch(5)
    assert torch.equal(again.batch([3])["image"][0], first["image"][3])
    again.seed = 4
    assert not torch.equal(again.batch([3])["image"][0], first["image"][3])


def stored_item(rooms: Path) -> dict[str, np.ndarray]:
    return NyudMT(rooms, "train", TASKS)._read(0)


def change(flip: bool = False, zoom: float = 1.0, left: float = 0.0, top: float = 0.0) -> _Change:
    return _Change(flip, zoom, left, top, np.eye(3, 4, dtype=np.float32))


def test_mirror(rooms: Path) -> None:
    item = stored_item(rooms)
    out = _move(item, change(flip=True))
    for name, value in item.items():
        expected = value[:, ::-1].copy()
        if name == "normals":
            expected[..., 0] *= -1
        np.testing.assert_array_equal(out[name], expected)
    assert np.abs(item["normals"][..., 0]).max() > 0.3


@pytest.mark.parametrize(("left", "top", "x", "y"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 21, 11)])
def test_zoom(rooms: Path, left: float, top: float, x: int, y: int) -> None:
    item = stored_item(rooms)
    out = _move(item, change(zoom=1.5, left=left, top=top))
    rows, columns = (y + (np.arange(32) * 2 + 1) * 21 // 64), (x + (np.arange(64) * 2 + 1) * 43 // 128)
    np.testing.assert_array_equal(out["semseg"], item["semseg"][rows[:, None], columns])
    np.testing.assert_allclose(out["depth"], item["depth"][rows[:, None], columns] / 1.5, rtol=2e-3)
    np.testing.assert_array_equal(out["normals"], item["normals"][rows[:, None], columns])
    assert out["image"].shape == (32, 64, 3)
    part = item["image"][y : y + 21, x : x + 43]
    assert abs(part.mean() - out["image"].mean()) < 4


def test_augmentation_draws_every_kind() -> None:
    draws = [nyud._draw(0, 0, i) for i in range(300)]
    assert {d.zoom for d in draws} == {1.0, 1.2, 1.5}
    assert 100 < sum(d.flip for d in draws) < 200
    grey = np.array([d.colour @ [0.45, 0.45, 0.45, 1] for d in draws])
    assert 0.25 < grey.min() < grey.max() < 0.8
    assert grey.std() > 0.03


def test_resizing(rooms: Path) -> None:
    small = NyudMT(rooms, "train", TASKS, size=(16, 32))[0]
    assert small["image"].shape == (3, 16, 32)
    assert small["normals"].shape == (3, 16, 32)
    full = NyudMT(rooms, "train", TASKS)[0]
    assert set(small["semseg"].unique().tolist()) <= set(full["semseg"].unique().tolist())
    np.testing.assert_allclose(np.linalg.norm(small["normals"], axis=0), 1, atol=2e-3)
    covered = full["edge"][0].reshape(16, 2, 32, 2).amax((1, 3))
    assert torch.equal(small["edge"][0], covered)  # lines survive


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


GOOD = np.ones((32, 64), np.float32)
HOSTILE = [
    ("depth", b"", "no readable NumPy array"),
    ("depth", b"\x93NUMPY", "no readable NumPy array"),
    ("depth", npy(GOOD)[:-100], "no readable NumPy array"),
    ("depth", npy(GOOD).replace(b"(32, 64), ", b"(1<<60, 9)"), "no readable NumPy array"),
    ("depth", npy(GOOD).replace(b"(32, 64), }     ", b"(99999999, 9), }"), "no readable NumPy array"),
    ("depth", npy(GOOD).replace(b"(32, 64), }", b"(32, 64), ("), "no readable NumPy array"),
    ("depth", pickle.dumps([1, 2]), "no readable NumPy array"),
    ("depth", npy(GOOD.astype("S4")), "one array of numbers"),
    ("depth", npy(GOOD.astype(complex)), "one array of numbers"),
    ("depth", npy(GOOD[:16]), "16x64 but its image is 32x64"),
    ("depth", npy(GOOD[0]), r"has the shape \(64,\)"),
    ("depth", npy(GOOD * 1000), "in metres"),
    ("normals", npy(GOOD), "normals are"),
    ("normals", npy(np.full((32, 64, 3), 9.0)), "length 15.5885"),
    ("normals", npy(np.full((32, 64, 4), 0.5)), "normals are"),
    ("edge", npy(GOOD * 2), "values other than 0 and 1"),
    ("edge", npy(GOOD * np.nan), "values other than 0 and 1"),
    ("segmentation", b"no picture", "single-channel PNG"),
    ("segmentation", cv2.imencode(".png", np.full((32, 64), 14, np.uint8))[1].tobytes(), "label 14"),
    ("segmentation", cv2.imencode(".png", np.zeros((32, 64, 3), np.uint8))[1].tobytes(), "single-channel PNG"),
    ("segmentation", cv2.imencode(".png", np.zeros((32, 64), np.uint16))[1].tobytes(), "single-channel PNG"),
    ("images", b"GIF89a", "no readable image"),
]


@pytest.mark.parametrize(("folder", "data", "match"), HOSTILE)
def test_hostile_files_give_one_error(copy: Path, folder: str, data: bytes, match: str) -> None:
    loader = NyudMT(copy, "train", TASKS)
    path = next((copy / folder).glob(f"{loader.ids[0]}.*"))
    path.write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        loader[0]
    assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 140), value=st.integers(0, 255), keep=st.integers(0, 9000))
def test_damaged_arrays_never_crash(at: int, value: int, keep: int) -> None:
    data = bytearray(npy(GOOD))
    data[at] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        path.write_bytes(data[:keep])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert damaged(path) is None or "\n" not in str(damaged(path))


def damaged(path: Path) -> DataError | None:
    """The error that a depth file gives, if it gives one."""
    try:
        read_depth(path)
    except DataError as error:
        return error
    return None


def test_a_pickle_inside_an_array_is_not_run(copy: Path) -> None:
    loader = NyudMT(copy, "train", ["depth"])
    np.save(copy / f"depth/{loader.ids[0]}.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError):
        loader[0]


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/b", ".hidden", "a\\b"])
def test_ids_stay_inside_the_set(copy: Path, text: str) -> None:
    (copy / "gt_sets/train.txt").write_text(text)
    with pytest.raises(DataError, match="no image ID"):
        NyudMT(copy, "train", TASKS)


def test_bad_requests(copy: Path) -> None:
    with pytest.raises(ConfigError, match="semseg, depth, normals, edge"):
        NyudMT(copy, "train", ["saliency"])
    with pytest.raises(ConfigError):
        NyudMT(copy, "train", [])
    with pytest.raises(ConfigError):
        NyudMT(copy, "train", TASKS, size=(0, 5))
    with pytest.raises(DataError, match=r"test\.txt cannot be read"):
        NyudMT(copy, "test", TASKS)
    (copy / "gt_sets/val.txt").write_text("\n")
    with pytest.raises(DataError, match="names no images"):
        NyudMT(copy, "val", TASKS)
    data = NyudMT(copy, "train", TASKS)
    with pytest.raises(ConfigError, match="epoch is -1"):
        data.set_epoch(-1)
    with pytest.raises(IndexError):
        data[len(data)]
    (copy / "rooms.json").write_text('{"classes": 3}')
    with pytest.raises(DataError, match=r"rooms\.json"):
        NyudMT(copy, "train", TASKS)


def test_mixed_sizes_need_a_size(copy: Path) -> None:
    data = NyudMT(copy, "train", ["depth"])
    cv2.imwrite(str(copy / f"images/{data.ids[1]}.jpg"), np.zeros((16, 16, 3), np.uint8))
    np.save(copy / f"depth/{data.ids[1]}.npy", np.ones((16, 16), np.float32))
    with pytest.raises(DataError, match="give a size"):
        data[1]
    assert NyudMT(copy, "train", ["depth"], size=(32, 64))[1]["depth"].shape == (1, 32, 64)
