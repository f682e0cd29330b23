"""Writing a set of rooms: same seed same bytes, stopping and going on, refusing what cannot work."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgemtl.data.rooms import write
from edgemtl.data.rooms.write import FILES, RoomSet, generate
from edgemtl.errors import ConfigError, DataError

JOB = RoomSet(seed=4, count=10, height=32, width=64, val_share=0.4)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rooms") / "set"
    assert generate(JOB, out) == {"train": 6, "val": 4}
    return out


def test_layout(whole: Path) -> None:
    names = {f"{i:06d}" for i in range(10)}
    for folder, end in FILES.items():
        assert {p.name for p in (whole / folder).iterdir()} == {n + end for n in names}
    assert cv2.imread(str(whole / "images/000003.jpg")).shape == (32, 64, 3)
    semseg = cv2.imread(str(whole / "segmentation/000003.png"), cv2.IMREAD_UNCHANGED)
    assert semseg.dtype == np.uint8
    assert 1 <= semseg.min() <= semseg.max() <= 13
    for folder, dtype, shape in (
        ("depth", np.float32, (32, 64)),
        ("normals", np.float16, (32, 64, 3)),
        ("edge", np.uint8, (32, 64)),
    ):
        array = np.load(whole / folder / "000003.npy", allow_pickle=False)
        assert (array.dtype, array.shape) == (dtype, shape)
    split = {s: (whole / "gt_sets" / f"{s}.txt").read_text().split() for s in ("train", "val")}
    assert split["val"] == ["000004", "000005", "000006", "000007"]  # the second of three rooms
    assert set(split["train"]) | set(split["val"]) == names


def test_files_hold_what_was_rendered(whole: Path) -> None:
    view = write.make_view(JOB, 5)
    semseg = cv2.imread(str(whole / "segmentation/000005.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(semseg, view.semseg + 1)
    rgb = cv2.imread(str(whole / "images/000005.jpg"))[..., ::-1]
    assert np.abs(rgb.astype(int) - view.rgb).mean() < 6  # red and blue are not swapped
    np.testing.assert_array_equal(np.load(whole / "depth/000005.npy"), view.depth)


def test_two_workers_write_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    generate(JOB, tmp_path / "set", workers=2)
    assert contents(tmp_path / "set") == contents(whole)


def test_another_seed_gives_other_pictures(whole: Path) -> None:
    other = write.encode(write.make_view(RoomSet(seed=5, count=10, height=32, width=64), 0))
    assert other["images"] != (whole / "images/000000.jpg").read_bytes()
    assert (whole / "images/000000.jpg").read_bytes() != (whole / "images/000001.jpg").read_bytes()


def test_interrupted_and_resumed_equals_uninterrupted(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    made = 0

    def stop_after_first_room(images: int) -> None:
        nonlocal made
        made += images
        if made:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(JOB, out, report=stop_after_first_room)
    assert (out / "gt_sets/train.txt").read_text().split() == ["000000", "000001", "000002", "000003"]
    (out / "depth/000001.npy").unlink()  # as if stopped between two files of an image
    (out / "depth/.000002.npy.99.tmp").write_bytes(b"half")  # as if the power went
    counts: list[int] = []
    assert generate(JOB, out, report=counts.append) == {"train": 6, "val": 4}
    assert sum(counts) == 10
    assert counts[0] == 3  # known before any work
    assert contents(out) == contents(whole)


def test_a_larger_count_extends_and_a_smaller_is_refused(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    generate(RoomSet(4, 3, 32, 64, 0.4), out)
    generate(JOB, out)
    assert contents(out) == contents(whole)
    with pytest.raises(DataError, match="count is 10, more than 3"):
        generate(RoomSet(4, 3, 32, 64, 0.4), out)


@pytest.mark.parametrize("job", [RoomSet(5, 10, 32, 64, 0.4), RoomSet(4, 10, 32, 32, 0.4), RoomSet(4, 10, 32, 64, 0.1)])
def test_other_parameters_are_refused(whole: Path, job: RoomSet) -> None:
    before = contents(whole)
    with pytest.raises(DataError, match="holds other rooms"):
        generate(job, whole)
    assert contents(whole) == before


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "rooms.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"rooms\.json cannot be read"):
        generate(JOB, tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("")
    with pytest.raises(DataError, match="is a file; give a folder"):
        generate(JOB, tmp_path / "set")
    with pytest.raises(DataError, match="cannot be written"):
        generate(JOB, tmp_path / "set" / "below")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    if workers == 2:  # spawned processes do not inherit the patch: the error itself must travel between them
        import pickle

        error = pickle.loads(pickle.dumps(write.disk_error(tmp_path, OSError(errno.ENOSPC, "x"))))
        assert isinstance(error, DataError)
        assert "disk is full" in str(error)
        return

    def full(self: Path, data: bytes) -> int:
        if self.parent.name == "depth":
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, data)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"disk is full: .*depth.000000.npy"):
        generate(JOB, tmp_path / "set")
    assert not list((tmp_path / "set").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"count": 0}, "number of images is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"height": 8}, "8x64"),
        ({"width": 5000}, "32x5000"),
        ({"val_share": 1.5}, "val share is 1.5"),
        ({"val_share": float("nan")}, "val share is nan"),
    ],
)
def test_bad_settings(change: dict[str, float], match: str) -> None:
    settings = {"seed": 4, "count": 10, "height": 32, "width": 64, "val_share": 0.4} | change
    with pytest.raises(ConfigError, match=match):
        RoomSet(**settings)  # type: ignore[arg-type]


def test_no_workers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--workers 2"):
        generate(JOB, tmp_path, workers=0)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.1, 100), (0.25, 250), (1.0, 1000)])
def test_the_split_is_by_room_and_of_the_asked_size(share: float, expected: int) -> None:
    job = RoomSet(0, 4000, val_share=share)
    splits = [job.split_of(i) for i in range(4000)]
    assert splits.count("val") == 4 * expected
    assert all(len(set(splits[i : i + 4])) == 1 for i in range(0, 4000, 4))


def test_the_note_tells_what_is_there(whole: Path) -> None:
    note = json.loads((whole / "rooms.json").read_text())
    assert (note["seed"], note["count"], note["height"], note["width"]) == (4, 10, 32, 64)
    assert len(note["classes"]) == 13
