"""The loader: label conventions, augmentation, and files that are not what they should be."""

from __future__ import annotations

import io
import json
import math
import pickle
import shutil
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.data.check import check
from edgemtl.data.dataset import NyudMT
from edgemtl.data.files import read_npy
from edgemtl.data.form import read_list
from edgemtl.data.nyud import Nyud
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import ConfigError, DataError
from edgemtl.model import preset
from edgemtl.tasks.depth import KIND as DEPTH
from edgemtl.train.data import open_data
from edgemtl.train.protocols import describe

TASKS = ("semseg", "depth", "normals", "edge")
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
    assert data.classes("semseg") == 13
    assert data.size == (32, 64)
    item, name = data[1], data.ids[1]
    assert {k: (tuple(v.shape), v.dtype) for k, v in item.items()} == {
        "image": ((3, 32, 64), torch.float32),
        "semseg": ((32, 64), torch.int64),
        "depth": ((1, 32, 64), torch.float32),
        "normals": ((3, 32, 64), torch.float32),
        "edge": ((1, 32, 64), torch.float32),
        **{f"present/{task}": ((), torch.bool) for task in TASKS},
        "fov": ((), torch.float32),
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
    found = {name for name in NyudMT(copy, "train", ["depth", "semseg"])[0] if "/" not in name} - {"fov"}
    assert found == {"image", "depth", "semseg"}
    with pytest.raises(DataError, match=r"edge.00000\d\.npy is missing, and so is every other file of the task 'edge'"):
        NyudMT(copy, "train", ["edge"])


def test_an_image_without_a_label_is_counted_and_holds_255(copy: Path) -> None:
    whole = NyudMT(copy, "train", TASKS)
    assert whole.missing == {}
    for task, (folder, end) in {
        "depth": ("depth", "npy"),
        "edge": ("edge", "npy"),
        "semseg": ("segmentation", "png"),
    }.items():
        (copy / folder / f"{whole.ids[1]}.{end}").unlink()
        data = NyudMT(copy, "train", TASKS, train=True, cache=True)
        assert data.missing[task] == 1
        item = data.batch([0, 1])
        assert item[task][1].eq(255).all()
        assert not item[task][0].eq(255).all()
        assert item[f"present/{task}"].tolist() == [True, False]
        assert item["present/normals"].tolist() == [True, True]
    assert [line.split(" of ")[0] for line in data.reports()] == ["1", "1", "1"]
    assert "have no depth label" in " ".join(data.reports())


def test_every_image_must_be_there(copy: Path) -> None:
    (copy / "images" / f"{NyudMT(copy, 'train', ['depth']).ids[2]}.jpg").unlink()
    with pytest.raises(DataError, match=r"jpg is missing, and 1 of 4 images of the split 'train' are"):
        NyudMT(copy, "train", ["depth"])


def test_no_label_is_255(copy: Path) -> None:
    name = NyudMT(copy, "train", TASKS).ids[0]
    semseg = cv2.imread(str(copy / f"segmentation/{name}.png"), cv2.IMREAD_UNCHANGED)
    semseg[0, 0] = 0
    cv2.imwrite(str(copy / f"segmentation/{name}.png"), semseg)
    depth = np.load(copy / f"depth/{name}.npy")
    depth[0, :3] = 0
    np.save(copy / f"depth/{name}.npy", depth)
    normals = np.load(copy / f"normals/{name}.npy")
    normals[0, :2] = 0
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
    assert data.classes("semseg") == 40
    assert data[0]["semseg"].unique().tolist() == [39]
    assert data[0]["edge"].max() == 1


def test_cache_batch_and_item_agree(rooms: Path) -> None:
    for train in (False, True):
        plain = NyudMT(rooms, "train", TASKS, train=train, seed=3)
        cached = NyudMT(rooms, "train", TASKS, train=train, seed=3, cache=True)
        one, two = plain.batch([2, 0]), cached.batch([2, 0])
        for key, value in one.items():
            torch.testing.assert_close(value, two[key], atol=0, rtol=0, equal_nan=True)
            torch.testing.assert_close(value[1], plain[0][key], atol=0, rtol=0, equal_nan=True)


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


def test_preprocessing_is_the_models(rooms: Path) -> None:
    mean, std, fill = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2), (128, 102, 77)
    plain, other = NyudMT(rooms, "val", TASKS), NyudMT(rooms, "val", TASKS, mean=mean, std=std, fill=fill)
    pixels = plain[0]["image"] * torch.tensor(IMAGE_STD).view(3, 1, 1) + torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    want = (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(other[0]["image"], want, atol=1e-5, rtol=1e-5)
    config = preset("micro", image_mean=mean, image_std=std, fov=70.0)
    opened = open_data(rooms, "val", config)
    assert torch.equal(opened[0]["image"], other[0]["image"])
    assert (opened.fill, opened.fov) == (config.image_fill, 70.0)


def test_one_preload_serves_both_views(rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = NyudMT(rooms, "train", TASKS, train=True, seed=3, cache=True)
    want = NyudMT(rooms, "train", TASKS).batch([1, 3])
    monkeypatch.setattr(data.layout, "read_image", None)  # nothing is read again
    data.preload()
    plain = data.plain()
    plain.set_epoch(4)
    assert (data.train, data.epoch, plain.train) == (True, 0, False)
    for name, value in plain.batch([1, 3]).items():
        torch.testing.assert_close(value, want[name], equal_nan=True, atol=0, rtol=0)


def views(root: Path, **fov: object) -> None:
    (root / "views").mkdir(exist_ok=True)
    for name, value in fov.items():
        (root / "views" / f"{name[1:]}.json").write_text(json.dumps({"fov": value, "seed": 3}))


def test_depth_is_the_canonical_cameras(copy: Path) -> None:
    """At twice the focal length a thing is twice as large: to the canonical camera it is half as far away."""
    plain = NyudMT(copy, "train", TASKS)
    wide, tele = 90.0, 2 * math.degrees(math.atan(0.5))  # focal lengths of 1/2 and 1 picture width
    views(copy, **{f"_{plain.ids[0]}": wide, f"_{plain.ids[1]}": tele})
    data = NyudMT(copy, "train", TASKS, fov=wide)
    before, after = plain.batch([0, 1, 2]), data.batch([0, 1, 2])
    assert after["fov"][:2].tolist() == pytest.approx([wide, tele])
    assert after["fov"][2].isnan()  # rooms.json is there and no view: the model's own
    for k, ratio in enumerate((1, 0.5, 1)):
        known = before["depth"][k] != 255
        torch.testing.assert_close(after["depth"][k][known], before["depth"][k][known] * ratio)
        assert (after["depth"][k][~known] == 255).all()
    assert torch.equal(NyudMT(copy, "train", TASKS).batch([0, 1])["depth"], before["depth"][:2])  # fov None
    augmented = [NyudMT(copy, "train", TASKS, train=True, fov=f, cache=c) for f in (None, wide) for c in (False, True)]
    one, _, three, four = (d.batch([1])["depth"] for d in augmented)
    torch.testing.assert_close(three[three != 255], one[one != 255] / 2)
    assert torch.equal(three, four)


def test_real_photographs_have_nyuds_camera(copy: Path) -> None:
    (copy / "rooms.json").unlink()
    data = NyudMT(copy, "train", ["depth"], fov=40.0)
    assert data[0]["fov"] == pytest.approx(56.7, abs=0.05)
    ratio = (280 / 518.86) / math.tan(math.radians(20))
    want = NyudMT(copy, "train", ["depth"])[0]["depth"] * ratio
    torch.testing.assert_close(data[0]["depth"], want)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read"),
        ("[" * 60000, "cannot be read"),
        (" " * 70000, "more than 65536 bytes"),
        ("\x00{", "cannot be read"),
        ("[60]", "field of view None"),
        ('{"fov": "60"}', "field of view 60"),
        ('{"fov": true}', "field of view True"),
        ('{"fov": NaN}', "field of view nan"),
        ('{"fov": 1e999}', "field of view inf"),
        ('{"fov": ' + "9" * 400 + "}", "field of view 999"),
        ('{"fov": 180}', "between 1 and 179 degrees"),
        ('{"fov": -60}', "between 1 and 179 degrees"),
    ],
)
def test_hostile_views_give_one_error(copy: Path, text: str, match: str) -> None:
    data = NyudMT(copy, "train", ["depth"])
    (copy / "views").mkdir()
    path = copy / "views" / f"{data.ids[0]}.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        data[0]
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
    report = check(copy, Nyud(), ("train",))
    assert (report.bad, len(report.problems)) == (1, 1)


def test_every_tenth_image_can_be_held_out(copy: Path) -> None:
    ids = [f"x{i}" for i in range(23)]
    for name in ids:
        shutil.copy(next((copy / "images").iterdir()), copy / f"images/{name}.jpg")
    np.save(copy / "depth/x9.npy", np.full((32, 64), 3.0))
    (copy / "gt_sets/train.txt").write_text("\n".join(ids))
    with pytest.raises(DataError, match="every other file of the task"):
        NyudMT(copy, "train:fit", ["depth"])  # only a held out image has one
    hold = NyudMT(copy, "train:hold", ["depth"])
    assert hold.ids == ["x9", "x19"]
    assert (hold[0]["depth"] == 3).all()
    np.save(copy / "depth/x10.npy", np.full((32, 64), 4.0))
    fit = NyudMT(copy, "train:fit", ["depth"])
    assert sorted([*fit.ids, *hold.ids], key=ids.index) == ids
    assert fit.ids.index("x10") == 9
    assert (fit[9]["depth"] == 4).all()
    assert [check(copy, Nyud(), (s,)).counts[s]["image"].good for s in ("train:hold", "train:fit")] == [2, 21]
    with pytest.raises(DataError, match="no split 'train:test'; give train, train:fit or train:hold"):
        NyudMT(copy, "train:test", ["depth"])
    with pytest.raises(DataError, match="has 4 val images; val:hold takes every tenth, so give 10 or more"):
        NyudMT(copy, "val:hold", ["depth"])
    with pytest.raises(DataError, match=r"test\.txt cannot be read"):
        NyudMT(copy, "test:hold", ["depth"])


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
PNG = cv2.imencode(".png", np.zeros((32, 64), np.uint8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.zeros((32, 64, 3), np.uint8))[1].tobytes()
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
    ("depth", npy(GOOD * 1000), "a depth of 1000"),
    ("depth", npy(GOOD * -1), "a depth of -1"),
    ("depth", npy(GOOD * np.nan), "holds 2048 values that are not finite"),
    ("depth", npy(np.where(np.arange(64) == 5, np.inf, GOOD)), "holds 32 values that are not finite"),
    ("normals", npy(np.full((32, 64, 3), np.nan)), "holds 6144 values that are not finite"),
    ("normals", npy(GOOD), "normals are"),
    ("normals", npy(np.full((32, 64, 3), 9.0)), "length 15.5885"),
    ("normals", npy(np.full((32, 64, 4), 0.5)), "normals are"),
    ("edge", npy(GOOD * 2), "values other than 0 and 1"),
    ("edge", npy(GOOD * np.nan), "values that are not finite"),
    ("segmentation", b"no picture", "single-channel PNG"),
    ("segmentation", cv2.imencode(".png", np.full((32, 64), 14, np.uint8))[1].tobytes(), "label 14"),
    ("segmentation", cv2.imencode(".png", np.zeros((32, 64, 3), np.uint8))[1].tobytes(), "single-channel PNG"),
    ("segmentation", cv2.imencode(".png", np.zeros((32, 64), np.uint16))[1].tobytes(), "single-channel PNG"),
    ("segmentation", PNG[:8] + PNG[8:16] + (1 << 20).to_bytes(4, "big") * 2 + PNG[24:], "says that it has 1048576x"),
    ("images", b"GIF89a", "no readable image"),
    ("images", b"\xff\xd8\xff", "no readable image"),
    ("images", JPEG[: len(JPEG) // 4], "no readable image"),
    ("images", JPEG.replace(b"\x00\x20\x00\x40", b"\xff\xff\xff\xff", 1), "says that it has 65535x65535"),
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
        DEPTH.read(path, read_npy(path))
    except DataError as error:
        return error
    return None


def test_a_pickle_inside_an_array_is_not_run(copy: Path) -> None:
    loader = NyudMT(copy, "train", ["depth"])
    np.save(copy / f"depth/{loader.ids[0]}.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError):
        loader[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_from_another_editor(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "train.txt").write_bytes(f"{mark}0001\r\n0002\r\n".encode(encoding))
    assert read_list(tmp_path / "train.txt", "one a line") == ["0001", "0002"]


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
        NyudMT(copy, "train", TASKS)[0]


def test_what_a_figure_says_of_the_set(copy: Path) -> None:
    note = json.loads((copy / "rooms.json").read_text())
    assert Nyud().about(copy).title == "synthetic rooms"
    (copy / "rooms.json").write_text(json.dumps({**note, "title": "synthetic homes"}))
    assert Nyud().about(copy).title == "synthetic homes"
    data = NyudMT(copy, "train", TASKS, size=(16, 32))
    assert data.stored_size() == (32, 64)
    cv2.imwrite(str(copy / f"images/{data.ids[1]}.jpg"), np.zeros((16, 16, 3), np.uint8))
    assert data.stored_size() is None
    (copy / "rooms.json").unlink()
    config = preset("micro")
    text = describe(NyudMT(copy, "val", TASKS), config, 4, "m3vit")["text"]
    assert text == (
        "NYU Depth V2, val, 4 of the 654 official test images; stored 32x64 (crop 425x560 of 480x640); "
        "evaluated 32x64; semseg 13 classes; figures of m3vit"
    )
    assert "stored various sizes" in describe(data, config, 4, None)["text"]


def test_mixed_sizes_need_a_size(copy: Path) -> None:
    data = NyudMT(copy, "train", ["depth"])
    cv2.imwrite(str(copy / f"images/{data.ids[1]}.jpg"), np.zeros((16, 16, 3), np.uint8))
    np.save(copy / f"depth/{data.ids[1]}.npy", np.ones((16, 16), np.float32))
    with pytest.raises(DataError, match="give a size"):
        data[1]
    assert NyudMT(copy, "train", ["depth"], size=(32, 64))[1]["depth"].shape == (1, 32, 64)


def test_a_generated_set_is_never_called_photographs(tmp_path: Path) -> None:
    layout, root = Nyud(), tmp_path
    assert layout.about(root).title == "NYU Depth V2"
    (root / "seams.json").write_text("{}")
    assert layout.about(root).title == "NYU Depth V2, seams mended"
    (root / "homes.json").write_text('{"classes": ["wall", "floor"]}')
    assert layout.about(root).title == "synthetic homes"
    assert layout.classes(root, "semseg") == 2
    assert layout.fov(root, "train", "000000") is None
    (root / "homes.json").write_text('{"classes": 3}')
    with pytest.raises(DataError, match=r"homes\.json cannot be read .*make the homes again"):
        layout.about(root)


def test_a_bad_view_is_told_before_training(copy: Path) -> None:
    data = NyudMT(copy, "train", TASKS, fov=60.0)
    views(copy, **{f"_{data.ids[-1]}": "wide"})
    with pytest.raises(DataError, match="holds the field of view wide"):
        data.preload()


def test_the_package_of_atrc_and_invpt(tmp_path: Path) -> None:
    """Images, normals and edges as PNG files: (v + 1) * 127.5, and 0 or 255; depth as an array."""
    rng, size = np.random.default_rng(0), (6, 8)
    for folder in ("gt_sets", "images", "segmentation", "normals", "edge", "depth"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gt_sets" / "val.txt").write_text("7\n")
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    normals = rng.normal(size=(*size, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    shown = np.round((normals + 1) * 127.5).astype(np.uint8)
    shown[0, 0] = 0
    edge = (rng.random(size) < 0.3).astype(np.uint8)
    classes = rng.integers(0, 41, size, np.uint8)
    for folder, picture in [("images", image), ("normals", shown), ("edge", 255 * edge), ("segmentation", classes)]:
        PIL.Image.fromarray(picture).save(tmp_path / folder / "7.png")
    np.save(tmp_path / "depth" / "7.npy", rng.uniform(1, 9, size).astype(np.float32))
    layout = Nyud()
    assert layout.matches(tmp_path)
    read = {t: layout.read(tmp_path, t, layout.path(tmp_path, "val", t, "7")) for t in layout.labels}
    np.testing.assert_array_equal(layout.read_image(layout.path(tmp_path, "val", "image", "7")), image)
    np.testing.assert_array_equal(read["edge"], edge)
    np.testing.assert_array_equal(read["semseg"], classes)
    assert np.abs(read["normals"] - normals)[1:].max() < 0.01
    assert not read["normals"][0, 0].any()
    item = NyudMT(tmp_path, "val", ("semseg", "depth", "normals", "edge"))[0]
    assert item["edge"][0].numpy().tolist() == edge.tolist()
    PIL.Image.fromarray(edge + 100).save(tmp_path / "edge" / "7.png")
    with pytest.raises(DataError, match=r"7\.png"):
        layout.read(tmp_path, "edge", tmp_path / "edge" / "7.png")
