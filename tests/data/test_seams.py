"""`edgemtl data seams`: labels with unlabelled seams between objects, mended; and what `data check` says of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgemtl.cli.data import app
from edgemtl.data import seams
from edgemtl.data.check import check
from edgemtl.data.nyud import Nyud
from edgemtl.data.seams import Mended, mend, mend_labels, seam
from edgemtl.errors import ConfigError, DataError

RUN = CliRunner()
HEIGHT, WIDTH = 60, 320


def picture(voids: int) -> np.ndarray:
    """Class 1, a seam of 3 pixels, class 2, a seam, class 1 again; a thick block of the seams' class below them."""
    labels = np.full((HEIGHT, WIDTH), 1, np.uint8)
    labels[:, 100:200] = 2
    labels[:, 99:102] = labels[:, 199:202] = voids
    labels[40:] = voids
    return labels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two training images with seams in class 40 and a test image with seams without a label."""
    root = tmp_path / "sets" / "nyud"
    for folder in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (root / folder).mkdir(parents=True)
    for name, voids in (("a", 40), ("b", 40), ("c", 0)):
        cv2.imwrite(str(root / f"images/{name}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        cv2.imwrite(str(root / f"segmentation/{name}.png"), picture(voids))
        np.save(root / f"depth/{name}.npy", np.ones((HEIGHT, WIDTH), np.float32))
        np.save(root / f"normals/{name}.npy", np.full((HEIGHT, WIDTH, 3), 3**-0.5, np.float32))
        np.save(root / f"edge/{name}.npy", np.eye(HEIGHT, WIDTH, dtype=np.float32))
    (root / "gt_sets/train.txt").write_text("a\nb\n")
    (root / "gt_sets/val.txt").write_text("c\n")
    return root


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for f in root.iterdir() for p in [f, *f.glob("*")] if p.is_file()}


@pytest.mark.parametrize("voids", [0, 40])
def test_one_border_runs_along_the_middle_of_a_seam(voids: int) -> None:
    before = picture(voids)
    after, edge = mend_labels(before, voids)
    thin = np.zeros(before.shape, bool)
    thin[:38, 99:102] = thin[:38, 199:202] = True  # the last rows of a seam may belong to the block that it runs into
    rest = before != voids
    assert not after[thin].any()
    assert (after[rest] == before[rest]).all()
    assert (after[42:] == voids).all()  # what is thick stays
    assert [np.flatnonzero(row).tolist() for row in edge[:36]] == [[100, 200]] * 36
    assert edge[39, :95].all()  # a block without a label has a border, too
    assert not edge[42:].any()


def test_the_square_grows_with_the_width() -> None:
    for width, thin, thick in ((320, 4, 5), (640, 8, 9), (1280, 16, 17)):
        for wide, removed in ((thin, True), (thick, False)):
            mask = np.zeros((64, width), bool)
            mask[:, 50 : 50 + wide] = True
            assert seam(mask).any() == removed, (width, wide)
    block = np.zeros((64, 320), bool)
    block[20:40, 50:90] = block[19, 60] = True
    assert not seam(block).any()  # a rough border is no seam
    for shape in ((1, 1), (1, 4000), (4000, 1), (2, 3), (5, 9000)):  # flat ones do not ask for a huge square
        labels, edge = mend_labels(np.zeros(shape, np.uint8), 0)
        assert labels.shape == edge.shape == shape
        assert not edge.any()
    assert mend_labels(np.eye(20, dtype=np.uint8) + 1, 40)[0].all()  # nothing to mend


def test_a_copy(source: Path, tmp_path: Path) -> None:
    before = content(source)
    out = tmp_path / "sets" / "mended"
    result = mend(source, out)
    assert content(source) == before
    found = check(out, Nyud(), ("train", "val"))
    assert found.problems == []
    assert {name: c.good for name, c in found.counts["train"].items()} == dict.fromkeys(found.counts["train"], 2)
    for name, voids in (("a", 40), ("c", 0)):
        labels, edge = mend_labels(picture(voids), voids)
        stored = np.load(out / f"edge/{name}.npy")
        np.testing.assert_array_equal(cv2.imread(str(out / f"segmentation/{name}.png"), -1), labels)
        np.testing.assert_array_equal(stored, edge)
        assert stored.dtype == np.uint8
    assert (cv2.imread(str(out / "segmentation/c.png"), -1) == picture(0)).all()  # val keeps its classes
    assert [(out / folder).is_symlink() for folder in ("images", "gt_sets")] == [True, False]
    assert str((out / "images").readlink()) == "../nyud/images"
    (tmp_path / "sets").rename(tmp_path / "moved")  # side by side, both can move
    assert check(tmp_path / "moved/mended", Nyud(), ("train", "val")).problems == []
    first = result["train"]
    assert isinstance(first, Mended)
    assert (first.images, first.mended) == (2, 2)
    assert first.before[:2] == pytest.approx((1 / WIDTH, 0))
    assert first.before.other == pytest.approx((picture(40) == 40).mean())
    assert first.after.edge == pytest.approx(mend_labels(picture(40), 40)[1].mean())
    assert first.after.none + first.after.other == pytest.approx(first.before.other)
    assert result["val"].before[1:] == result["val"].after[1:]


def test_elsewhere_links_are_absolute_and_without_links_files_are_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend(source, tmp_path / "linked")
    assert (tmp_path / "linked/depth").readlink() == source / "depth"
    source = source.rename(tmp_path / "sets" / "elsewhere")
    mend(source, tmp_path / "linked")
    assert (tmp_path / "linked/depth").readlink() == source / "depth"

    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    mend(source, tmp_path / "copied")
    assert not (tmp_path / "copied/depth").is_symlink()
    assert content(tmp_path / "copied") == content(tmp_path / "linked")


def test_a_stopped_run_goes_on_and_another_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    want = mend(source, whole)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mend(source, out, progress=stop)
    assert sorted(p.name for p in (out / "edge").iterdir()) == ["a.npy", "b.npy"]
    assert not list((out / "gt_sets").iterdir())  # half a copy is no set
    (out / "edge" / ".c.npy.7.tmp").write_bytes(b"half")
    written = (out / "edge/a.npy").stat().st_mtime_ns
    assert mend(source, out) == want
    assert (out / "edge/a.npy").stat().st_mtime_ns == written
    assert content(out) == content(whole)
    with pytest.raises(DataError, match="holds something else than this copy"):
        mend(source, out, voids_train=39)
    cv2.imwrite(str(source / "segmentation/b.png"), picture(3))
    with pytest.raises(DataError, match="holds something else than this copy"):
        mend(source, out)


def test_the_class_of_the_voids_is_an_option(source: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(source / "segmentation/a.png"), picture(7))
    cv2.imwrite(str(source / "segmentation/c.png"), picture(9))
    done = RUN.invoke(
        app,
        ["seams", str(source), str(tmp_path / "out"), "--voids-train", "7", "--voids-other", "9"],
        terminal_width=200,
    )
    assert done.exit_code == 0, done.output
    for name, voids in (("a", 7), ("c", 9)):
        labels = cv2.imread(str(tmp_path / f"out/segmentation/{name}.png"), -1)
        np.testing.assert_array_equal(labels, mend_labels(picture(voids), voids)[0])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out/segmentation/b.png"), -1), picture(40))
    for text in ("train", "val", "class 40", "0.31 →", "cannot be compared"):
        assert text in done.output
    for bad in (-1, 41):
        with pytest.raises(ConfigError, match="give a class from 1 to 40, or 0"):
            mend(source, tmp_path / "other", voids_other=bad)


def test_missing_labels_stay_missing(source: Path, tmp_path: Path) -> None:
    (source / "segmentation/b.png").unlink()
    (source / "edge/c.npy").unlink()
    result = mend(source, tmp_path / "out")
    assert (result["train"].images, result["train"].mended) == (2, 1)
    assert np.isnan(result["val"].before.edge)
    assert sorted(p.name for p in (tmp_path / "out/edge").iterdir()) == ["a.npy", "c.npy"]
    for path in (source / "segmentation").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has no labels to mend"):
        mend(source, tmp_path / "none")


@pytest.mark.parametrize(
    ("file", "data", "match"),
    [
        ("segmentation/b.png", b"\x89PNG", "no readable image"),
        ("segmentation/b.png", cv2.imencode(".png", np.full((4, 4), 41, np.uint8))[1].tobytes(), "label 41"),
        ("segmentation/b.png", cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes(), "single-channel PNG"),
        ("gt_sets/train.txt", b"../../a", "no image ID"),
        ("gt_sets/test.txt", b"", "names no images"),
        ("rooms.json", b"{}", r"is generated, .* \(rooms.json\)"),
        ("homes.json", b"{}", r"is generated, .* \(homes.json\)"),
        ("seams.json", b"{}", r"is mended already \(seams.json\)"),
    ],
)
def test_bad_sets_give_one_error_before_anything_is_written(
    source: Path, tmp_path: Path, file: str, data: bytes, match: str
) -> None:
    (source / file).write_bytes(data)
    with pytest.raises(DataError, match=match) as caught:
        mend(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("edge", "match"), [(np.full((4, 4), 2), "other than 0 and 1"), (np.zeros((0, 4)), "is .0, 4.")]
)
def test_bad_edges_are_one_error(source: Path, tmp_path: Path, edge: np.ndarray, match: str) -> None:
    np.save(source / "edge/b.npy", edge)
    with pytest.raises(DataError, match=match):
        mend(source, tmp_path / "out")


def test_the_set_is_never_written_to(source: Path, tmp_path: Path) -> None:
    before = content(source)
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "out", tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(DataError, match="which is not changed; give a folder outside of it"):
            mend(source, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        mend(source, tmp_path / "file")
    with pytest.raises(DataError, match="holds something else"):
        mend(source, tmp_path)
    out = tmp_path / "out"
    mend(source, out)
    for path in (out / "edge").iterdir():
        path.unlink()
    (out / "edge").rmdir()
    (out / "edge").symlink_to(source / "edge")
    with pytest.raises(DataError, match="holds something else"):
        mend(source, out)
    assert content(source) == before
    with pytest.raises(DataError, match="does not exist"):
        mend(tmp_path / "nowhere", tmp_path / "new")


def test_check_names_the_command(source: Path) -> None:
    thin = picture(40)
    thin[40:] = 3
    for name in ("a", "b"):
        cv2.imwrite(str(source / f"segmentation/{name}.png"), thin)
    (line,) = check(source, Nyud(), ("train", "val")).problems
    assert line.startswith("train: 100 % of class 40 are seams a few pixels wide")
    assert f"`edgemtl data seams {source} OUT`" in line
    assert len(check(source, Nyud(), ("val",)).problems) == 0  # other splits keep voids without a label
    done = RUN.invoke(app, ["check", str(source)])
    assert done.exit_code == 0
    assert "edgemtl data seams" in done.output
    for name in ("a", "b"):
        cv2.imwrite(str(source / f"segmentation/{name}.png"), np.full((HEIGHT, WIDTH), seams.OTHER, np.uint8))
    assert check(source, Nyud(), ("train", "val")).problems == []
