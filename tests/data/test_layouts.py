"""PASCAL-Context and Cityscapes in their published file forms: small files are written as the sets have them."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edgemtl[train]'")
scipy_io = pytest.importorskip("scipy.io", reason="SciPy is not installed: pip install 'edgemtl[train]'")

from PIL import Image  # noqa: E402

from edgemtl.config import IMAGE_MEAN, IMAGE_STD  # noqa: E402
from edgemtl.data import files  # noqa: E402
from edgemtl.data.check import check  # noqa: E402
from edgemtl.data.dataset import LabelledSet  # noqa: E402
from edgemtl.data.files import picture_size, read_mat  # noqa: E402
from edgemtl.data.layout import find_layout, layouts  # noqa: E402
from edgemtl.data.pascal import NORMALS_ON, PARTS, human_parts, label_map, outlines  # noqa: E402
from edgemtl.errors import ConfigError, DataError  # noqa: E402

SIZE = (24, 32)
FIVE = ("semseg", "human_parts", "saliency", "normals", "edge")


def structure(items: list[dict[str, Any]], *fields: str) -> np.ndarray:
    """A MATLAB structure array of shape [1, n] with the fields in this order."""
    out = np.empty((1, len(items)), [(name, object) for name in fields])
    for i, item in enumerate(items):
        for name in fields:
            out[name][0, i] = item[name]
    return out


def write_parts(path: Path, people: list[dict[str, Any]]) -> None:
    """PASCAL-Parts' form: anno.imname and anno.objects(n) with class, class_ind, mask and parts(m)."""
    objects = []
    for one in people:
        parts = [{"part_name": n, "mask": m.astype(np.uint8)} for n, m in one["parts"]]
        made: Any = structure(parts, "part_name", "mask") if parts else np.zeros((0, 0))
        mask = one.get("mask", np.ones(SIZE)).astype(np.uint8)
        objects.append({"class": one["class"], "class_ind": one["index"], "mask": mask, "parts": made})
    anno = {"imname": "x", "objects": structure(objects, "class", "class_ind", "mask", "parts")}
    scipy_io.savemat(path, {"anno": structure([anno], "imname", "objects")}, do_compression=True)


def half(left: bool = True) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[:, :16] = left
    mask[:, 16:] = not left
    return mask


@pytest.fixture
def pascal(tmp_path: Path) -> Path:
    """Two images: the first with a person, the second with a dog and its semantic labels in the other folder."""
    root = tmp_path / "PASCAL_MT"
    for folder in (
        "JPEGImages",
        "ImageSets/Context",
        "semseg/VOC12",
        "semseg/pascal-context",
        "human_parts",
        "normals_distill",
        "sal_distill",
        "pascal-context/trainval",
    ):
        (root / folder).mkdir(parents=True)
    ids = ["2008_000002", "2008_000015"]
    for split in ("train", "val"):
        (root / f"ImageSets/Context/{split}.txt").write_text("\n".join(ids) + "\n")
    rng = np.random.default_rng(0)
    for k, name in enumerate(ids):
        cv2.imwrite(str(root / f"JPEGImages/{name}.jpg"), rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8))
        classes = np.where(half(), 15, 12 * k).astype(np.uint8)
        classes[0, :] = 255
        picture = Image.fromarray(classes)
        picture.putpalette([v for i in range(256) for v in (i * 37 % 256, i * 91 % 256, i)])  # VOC's files have one
        picture.save(root / f"semseg/{('VOC12', 'pascal-context')[k]}/{name}.png")
        labels = np.where(half(), 284, 187).astype(np.uint16)  # person, which NYUD has; grass, which it has not
        scipy_io.savemat(root / f"pascal-context/trainval/{name}.mat", {"LabelMap": labels}, do_compression=True)
        normal = np.array([0.6, 0.0, 0.8])
        encoded = np.broadcast_to(np.round((normal + 1) * 127.5), (*SIZE, 3)).astype(np.uint8)
        cv2.imwrite(str(root / f"normals_distill/{name}.png"), encoded[..., ::-1])
        cv2.imwrite(str(root / f"sal_distill/{name}.png"), np.where(half(), 128, 127).astype(np.uint8))
    head, leg = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    head[2:5, 2:6], leg[20:, 4:6] = True, True
    person = {"class": "person", "index": 15, "parts": [("lear", head), ("hair", head), ("rfoot", leg)]}
    dog = {"class": "dog", "index": 12, "parts": [("tail", leg)]}
    write_parts(root / "human_parts" / f"{ids[0]}.mat", [dog, person])
    write_parts(root / "human_parts" / f"{ids[1]}.mat", [dog])
    return root


def test_pascal_labels_are_read_back(pascal: Path) -> None:
    assert find_layout(pascal).name == "pascal"
    data = LabelledSet(pascal, "train", FIVE)
    assert (data.classes("semseg"), data.classes("human_parts")) == (21, 7)
    first, second = data[0], data[1]
    assert first["semseg"][0].eq(255).all()
    assert first["semseg"][1:, :16].eq(15).all()
    assert second["semseg"][1:, 16:].eq(12).all()
    assert first["saliency"][0, :, :16].eq(1).all()
    assert first["saliency"][0, :, 16:].eq(0).all()
    # edges: where LabelMap changes, one pixel wide
    assert first["edge"][0, 2:-2].sum(1).eq(1).all()
    assert first["edge"][0, 12, 15:17].sum() == 1
    # normals only on the class that NYUD has too
    assert first["normals"][:, :, 16:].eq(255).all()
    np.testing.assert_allclose(first["normals"][:, 5, 5], [0.6, 0.0, 0.8], atol=8e-3)
    parts = first["human_parts"]
    assert (parts[3, 3], parts[22, 5], parts[12, 30]) == (PARTS.index("head"), PARTS.index("lower leg"), 0)
    assert second["human_parts"].eq(255).all()  # nobody there
    assert [bool(item["present/human_parts"]) for item in (first, second)] == [True, False]
    assert bool(second["present/semseg"])


def test_a_check_of_pascal_counts_what_is_there(pascal: Path) -> None:
    report = check(pascal, find_layout(pascal), ("train", "val"))
    assert report.problems == []
    counts = report.counts["val"]
    assert {name: (c.good, c.empty) for name, c in counts.items()} == {
        "image": (2, 0),
        "semseg": (2, 0),
        "human_parts": (2, 1),
        "saliency": (2, 0),
        "normals": (2, 0),
        "edge": (2, 0),
    }
    assert counts["normals"].labelled == pytest.approx(0.5)
    assert counts["semseg"].labelled == pytest.approx(23 / 24)


def test_pascal_training_turns_pictures_and_stays_sane(pascal: Path) -> None:
    data = LabelledSet(pascal, "train", (*FIVE[:2], "sal", *FIVE[3:]), size=(48, 64), train=True, cache=True)
    batch = data.batch([0, 1] * 4)
    assert batch["image"].shape == (8, 3, 48, 64)
    assert set(batch["sal"].unique().tolist()) <= {0.0, 1.0, 255.0}
    assert set(batch["semseg"].unique().tolist()) <= {0, 12, 15, 255}
    normals = batch["normals"][0]
    valid = normals.ne(255).all(0)
    assert torch.allclose(normals[:, valid].norm(dim=0), torch.ones(int(valid.sum())), atol=5e-3)


def test_facts_of_pascal() -> None:
    assert len(set(NORMALS_ON.tolist())) == 170
    assert {72, 284, 427} <= set(NORMALS_ON.tolist())  # chair, person, tvmonitor
    assert not {187, 360} & set(NORMALS_ON.tolist())  # grass, sky
    assert outlines(np.full((9, 9), 7, np.uint16)).sum() == 0


@pytest.mark.parametrize(
    ("people", "match"),
    [
        ([{"class": "person", "index": 15, "parts": [("wing", half())]}], "'wing' is no part of a person"),
        ([{"class": "person", "index": 15, "parts": [("head", np.ones((3, 3)))]}], "does not hold anno.objects"),
    ],
)
def test_strange_parts_are_named(tmp_path: Path, people: list[dict[str, Any]], match: str) -> None:
    write_parts(tmp_path / "x.mat", people)
    with pytest.raises(DataError, match=match) as caught:
        human_parts(tmp_path / "x.mat")
    assert "x.mat" in str(caught.value)


def test_a_person_without_parts_is_no_label(tmp_path: Path) -> None:
    write_parts(tmp_path / "x.mat", [{"class": "person", "index": 15, "parts": []}])
    assert human_parts(tmp_path / "x.mat").sum() == 0
    write_parts(tmp_path / "y.mat", [{"class": "person", "index": 15, "parts": [("neck", half())]}])
    assert set(np.unique(human_parts(tmp_path / "y.mat"))) == {1, 1 + PARTS.index("torso")}


def damage(root: Path, name: str, data: bytes) -> None:
    (root / name).write_bytes(data)


HOSTILE = [
    ("edge", "pascal-context/trainval", ".mat", b"", "must be a MATLAB file"),
    ("edge", "pascal-context/trainval", ".mat", b"MATLAB 5.0 MAT-file" + bytes(400), "must be a MATLAB file"),
    ("edge", "pascal-context/trainval", ".mat", bytes(5_000_000), "more than 4194304 bytes"),
    ("human_parts", "human_parts", ".mat", b"\x80\x04]q\x00.", "must be a MATLAB file"),
    ("saliency", "sal_distill", ".png", b"x", "no readable image"),
    ("semseg", "semseg/VOC12", ".png", b"\x89PNG\r\n\x1a\n" + bytes(20), "no readable image"),
]


@pytest.mark.parametrize(("task", "folder", "end", "content", "match"), HOSTILE)
def test_hostile_pascal_files(pascal: Path, task: str, folder: str, end: str, content: bytes, match: str) -> None:
    data = LabelledSet(pascal, "train", [task])
    path = pascal / folder / (data.ids[0] + end)
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        data[0]
    assert str(path) in str(caught.value)


def test_labels_out_of_range_and_of_another_size(pascal: Path) -> None:
    data = LabelledSet(pascal, "train", ["semseg", "edge", "saliency", "normals"])
    name = data.ids[0]
    where = pascal / f"semseg/VOC12/{name}.png"
    Image.fromarray(np.full(SIZE, 21, np.uint8)).save(where)
    with pytest.raises(DataError, match=r"VOC12.*holds the label 21, but the set has 21 classes, stored from 0"):
        data[0]
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(where)
    with pytest.raises(DataError, match="24x30 but its image is 24x32"):
        data[0]
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(where)
    scipy_io.savemat(pascal / f"pascal-context/trainval/{name}.mat", {"LabelMap": np.full(SIZE, 460, np.uint16)})
    with pytest.raises(DataError, match="460"):
        data[0]
    scipy_io.savemat(pascal / f"pascal-context/trainval/{name}.mat", {"Other": np.zeros(SIZE)})
    with pytest.raises(DataError, match=r"variable 'LabelMap' \(it holds Other\)"):
        data[0]


def test_a_huge_array_in_a_matlab_file_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io.savemat(tmp_path / "x.mat", {"LabelMap": np.zeros((100, 200), np.uint8)}, do_compression=True)
    assert read_mat(tmp_path / "x.mat", "LabelMap").shape == (100, 200)
    monkeypatch.setattr(files, "MAX_PIXELS", 100 * 199)
    monkeypatch.setattr(scipy_io, "loadmat", None)
    with pytest.raises(DataError, match=r"has the shape \(100, 200\)"):
        read_mat(tmp_path / "x.mat", "LabelMap")


@settings(max_examples=120, deadline=None)
@given(at=st.integers(0, 400), value=st.integers(0, 255), keep=st.integers(0, 2000), compress=st.booleans())
def test_damaged_matlab_files_never_crash(at: int, value: int, keep: int, compress: bool) -> None:
    buffer = io.BytesIO()
    scipy_io.savemat(
        buffer, {"LabelMap": np.arange(480, dtype=np.uint16).reshape(20, 24) % 460}, do_compression=compress
    )
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mat"
        path.write_bytes(data[:keep])
        error = refusal(path)
        assert error is None or (str(path) in error and "\n" not in error)


def refusal(path: Path) -> str | None:
    try:
        label_map(path)
    except DataError as error:
        return str(error)
    return None


@settings(max_examples=200, deadline=None)
@given(start=st.sampled_from([b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b""]), rest=st.binary(max_size=80))
def test_no_header_crashes_the_size_reader(start: bytes, rest: bytes) -> None:
    size = picture_size(start + rest)
    assert size is None or min(size) >= 0


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    root = tmp_path / "cityscapes"
    rng = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 2)):
        for folder in ("image", "label_7", "depth"):
            (root / split / folder).mkdir(parents=True)
        for i in range(count):
            np.save(root / split / f"image/{i}.npy", rng.random((*SIZE, 3)))
            label = rng.integers(-1, 7, SIZE).astype(np.float64)
            label[0, 0], label[0, 1] = -1, 6
            np.save(root / split / f"label_7/{i}.npy", label)
            depth = rng.uniform(0.01, 0.4, (*SIZE, 1)).astype(np.float32)
            depth[0, 0] = 0
            np.save(root / split / f"depth/{i}.npy", depth)
    return root


def test_cityscapes_is_read_back(cityscapes: Path) -> None:
    assert find_layout(cityscapes).name == "cityscapes"
    data = LabelledSet(cityscapes, "train", ("semseg", "depth"))
    assert data.ids == [str(i) for i in range(11)]  # by number: 10 is last
    assert data.size == SIZE
    item = data[10]
    assert item["semseg"][0, :2].tolist() == [255, 6]
    assert item["depth"][0, 0, 0] == 255
    stored = np.load(cityscapes / "train/depth/10.npy")[..., 0]
    np.testing.assert_allclose(item["depth"][0, 1:], stored[1:], rtol=1e-3)
    image = np.load(cityscapes / "train/image/10.npy").transpose(2, 0, 1)
    back = item["image"].numpy() * np.reshape(IMAGE_STD, (3, 1, 1)) + np.reshape(IMAGE_MEAN, (3, 1, 1))
    np.testing.assert_allclose(back, image, atol=1 / 500)
    augmented = LabelledSet(cityscapes, "train", ("semseg", "depth"), train=True)
    assert augmented.batch([0, 1])["depth"].shape == (2, 1, *SIZE)


@pytest.mark.parametrize(
    ("folder", "array", "match"),
    [
        ("label_7", np.full(SIZE, 7.0), "holds the label 7, but the set has 7 classes"),
        ("label_7", np.full(SIZE, 0.5), "holds the label 0.5"),
        ("depth", np.full(SIZE, np.nan), "not finite"),
        ("depth", np.full(SIZE, -0.1), "from 0"),
        ("image", np.full((*SIZE, 3), 200.0), "from 0 to 1"),
        ("image", np.zeros(SIZE), "has the shape"),
    ],
)
def test_malformed_cityscapes_files(cityscapes: Path, folder: str, array: np.ndarray, match: str) -> None:
    data = LabelledSet(cityscapes, "val", ("semseg", "depth"))
    np.save(cityscapes / f"val/{folder}/0.npy", array)
    with pytest.raises(DataError, match=match) as caught:
        data[0]
    assert f"val/{folder}/0.npy" in str(caught.value)


def test_which_layout(tmp_path: Path, cityscapes: Path) -> None:
    with pytest.raises(DataError, match="none of the known layouts"):
        find_layout(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no layout 'coco'; choose one of nyud, pascal, cityscapes"):
        find_layout(tmp_path, "coco")
    assert find_layout(cityscapes, "pascal").name == "pascal"
    with pytest.raises(ConfigError, match="semseg, depth"):
        LabelledSet(cityscapes, "val", ("normals",))
    shutil.rmtree(cityscapes / "val/image")
    with pytest.raises(DataError, match="holds no images"):
        LabelledSet(cityscapes, "val", ("depth",))
    assert all(form.describe().count("\n") == 2 + len(form.labels) for form in layouts().values())


def test_any_layout_can_hold_out(cityscapes: Path) -> None:
    """Also one whose split is a part of every path."""
    for folder in (cityscapes / "train").iterdir():
        first = next(folder.iterdir()).read_bytes()
        for i in range(12):
            (folder / f"{i}.npy").write_bytes(first)
    hold, fit = (LabelledSet(cityscapes, f"train:{part}", ("semseg", "depth")) for part in ("hold", "fit"))
    assert (hold.ids, len(fit), "9" in fit.ids) == (["9"], 11, False)
    assert hold[0]["image"].equal(fit[0]["image"])
    assert check(cityscapes, hold.layout, ("train:hold",)).problems == []


def test_picture_sizes_from_headers() -> None:
    picture = np.zeros((5, 9, 3), np.uint8)
    for end in (".png", ".jpg"):
        assert picture_size(cv2.imencode(end, picture)[1].tobytes()) == (5, 9)
    progressive = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert picture_size(progressive) == (5, 9)
    assert picture_size(b"BM" + bytes(60)) is None
    for cut in range(40):
        assert picture_size(progressive[:cut]) is None
