"""Results land where they were asked to, in files that ordinary readers open."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl.config import TaskConfig
from edgemtl.errors import FrameError
from edgemtl.media.sinks import RESERVE, Folder, One, Recorder, Video, open_sink, picture, store
from edgemtl.media.sources import Frame, Source, open_source
from edgemtl.runtime.output import Output, TaskOutput, Timing

SIZE = (47, 81)
FRAME = Frame(np.full((*SIZE, 3), 90, np.uint8), 0.0, "room 1.jpg")
SEMSEG = TaskConfig(name="semseg", kind="semseg", channels=13)
DEPTH = TaskConfig(name="depth", kind="depth", channels=1)


def output(*tasks: TaskConfig) -> Output:
    maps = {"semseg": np.full(SIZE, 3, np.uint8), "depth": np.full(SIZE, 2, np.float32)}
    empty = np.zeros((1, 1, 1), np.float32)
    return Output({t.name: TaskOutput(t, maps[t.name], empty, "bgr") for t in tasks}, Timing(1, {"depth": 2}, 3))


BOTH, ONE = output(SEMSEG, DEPTH), output(DEPTH)


@pytest.mark.parametrize(
    ("how", "out", "shape"),
    [
        ("map", ONE, SIZE),
        ("overlay", ONE, SIZE),
        ("map", BOTH, (47 + 18, 162)),
        ("overlay", BOTH, (47 + 18, 162)),
        ("sheet", ONE, (47 + 18, 162)),
    ],
)
def test_pictures(how: Any, out: Output, shape: tuple[int, int]) -> None:
    assert picture(FRAME, out, how, "viridis", None).shape == (*shape, 3)


def test_a_sheet_has_a_legend_of_constant_height() -> None:
    plain = picture(FRAME, ONE, "sheet", "viridis", None)
    assert picture(FRAME, BOTH, "sheet", "viridis", None).shape[0] > 2 * plain.shape[0]


@pytest.mark.parametrize("name", ["o.png", "o.jpg", "ü ☀.webp", os.fsdecode(b"o\xff.PNG")])
def test_one_picture(tmp_path: Path, name: str) -> None:
    sink = open_sink(tmp_path / name, Source("in.png", "image"), ["depth"], raw=False)
    assert isinstance(sink, One)
    sink.put(FRAME, ONE, FRAME.image)
    sink.close()
    assert sink.written == 1
    got = cv2.imdecode(np.frombuffer((tmp_path / name).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert got.shape == (*SIZE, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_video_of_odd_size(tmp_path: Path, suffix: str) -> None:
    sink = open_sink(tmp_path / f"o{suffix}", Source("in", "video", fps=12), ["depth"], raw=False)
    assert isinstance(sink, Video)
    for _ in range(3):
        sink.put(FRAME, ONE, FRAME.image)
    sink.close()
    sink.close()
    with open_source(tmp_path / f"o{suffix}") as source:
        assert source.fps == 12
        frames = list(source)
    assert [f.image.shape for f in frames] == [(48, 82, 3)] * 3
    assert abs(float(frames[0].image.mean()) - 90) < 3


def test_a_folder_of_maps(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "maps", Source("in", "folder"), list(BOTH), raw=True)
    assert isinstance(sink, Folder)
    assert not (tmp_path / "maps").exists(), "made when there is something to put into it"
    sink.put(FRAME, BOTH, None)
    with np.load(tmp_path / "maps" / "room 1.jpg.semseg+depth.npz", allow_pickle=False) as maps:
        assert {n: maps[n].dtype.name for n in maps} == {"semseg": "uint8", "depth": "float32"}


@pytest.mark.parametrize(
    ("name", "kind", "raw", "words"),
    [
        ("o.png", "video", False, "holds one frame, the source is a video: give a folder, or a video"),
        ("o.npz", "folder", True, "holds one frame, the source is a folder: give a folder"),
        (
            "o.gif",
            "image",
            False,
            "results go to .png, .jpg, .jpeg, .webp, .mp4, .avi, .mkv, or a folder, not to '.gif'",
        ),
        ("o.mp4", "video", True, "results go to .npz, .npy, or a folder"),
        ("no/o.png", "image", False, "mkdir -p"),
    ],
)
def test_refused(tmp_path: Path, name: str, kind: str, raw: bool, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        open_sink(tmp_path / name, Source("in", kind), ["depth"], raw=raw)


def test_the_source_is_not_overwritten(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), FRAME.image)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    for name in ("a.png", "link.png"):
        with pytest.raises(FrameError, match="would overwrite the source"):
            open_sink(tmp_path / name, open_source(tmp_path / "a.png"), ["depth"], raw=False, overwrite=True)
    with pytest.raises(FrameError, match="would overwrite the source; give another folder"):
        open_sink(tmp_path, open_source(tmp_path), ["depth"], raw=False, overwrite=True)


@pytest.mark.parametrize("name", ["o.png", "o.mp4", "o.avi"])
def test_a_file_that_exists_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    source = Source("in", "image")
    with pytest.raises(FrameError, match=rf"{name} exists; give another name, or --overwrite"):
        open_sink(tmp_path / name, source, ["depth"], raw=False)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert open_sink(tmp_path / name, source, ["depth"], raw=False, overwrite=True).path == tmp_path / name


@pytest.mark.parametrize("raw", [False, True])
def test_names_in_a_folder_do_not_collide(tmp_path: Path, raw: bool) -> None:
    (tmp_path / "in").mkdir()
    for name in ("img.jpg", "img.png"):
        cv2.imwrite(str(tmp_path / "in" / name), FRAME.image)
    source, out, end = open_source(tmp_path / "in"), tmp_path / "out", "npz" if raw else "png"
    sink = open_sink(out, source, ["depth"], raw=raw)
    for frame in source:
        sink.put(frame, ONE, None if raw else frame.image)
    assert sorted(p.name for p in out.iterdir()) == [f"img.jpg.depth.{end}", f"img.png.depth.{end}"]
    with pytest.raises(FrameError, match=f"img.jpg.depth.{end} exists"):  # told before anything is computed
        open_sink(out, source, ["depth"], raw=raw)
    open_sink(out, source, ["depth"], raw=raw, overwrite=True)
    open_sink(out, source, ["semseg"], raw=raw)


@pytest.mark.parametrize("size", [(2, 16384), (16384, 2), (1, 1), (3, 4096)])
@pytest.mark.parametrize("name", ["o.avi", "o.mp4"])
def test_a_video_of_extreme_size(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    sink = open_sink(tmp_path / name, Source("in", "video", fps=10), ["depth"], raw=False)
    image = np.full((*size, 3), 90, np.uint8)
    if max(size) > 4096:
        with pytest.raises(FrameError, match="a video may have 4096 pixels a side; give a folder"):
            sink.put(FRAME, ONE, image)
        assert not (tmp_path / name).exists()
        return
    sink.put(FRAME, ONE, image)
    sink.close()
    assert len(list(open_source(tmp_path / name))) == 1


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_picture_too_large_for_its_format(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FrameError, match=rf"{suffix} cannot hold 70000x1 pixels; give a .png"):
        store(tmp_path / f"o{suffix}", ONE, np.zeros((1, 70000, 3), np.uint8))


def test_an_outputs_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sink = open_sink(Path("16:38:41.mp4"), Source("in", "video", fps=10), ["depth"], raw=False)
    sink.put(FRAME, ONE, FRAME.image)
    sink.close()
    assert len(list(open_source("16:38:41.mp4"))) == 1


def test_a_write_that_fails(tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    with pytest.raises(FrameError, match="cannot write .*no file"):
        store(tmp_path / "d.png", ONE, FRAME.image)
    with pytest.raises(FrameError, match="cannot write .*No such file"):
        store(tmp_path / "no" / "x.npz", ONE, None)


@pytest.mark.parametrize("name", ["plain", "/dev/null", "o\udcff.mp4", "n" * 300, "n" * 300 + ".png"])
def test_a_place_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").write_bytes(b"mine")
    with pytest.raises(FrameError, match=r"is no folder; give a folder|no UTF-8|cannot write .*too long"):
        open_sink(tmp_path / name, Source("in", "image"), ["depth"], raw=False).put(FRAME, ONE, FRAME.image)
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out", Source("in", "image"), ["depth"], raw=False)
    (tmp_path / "out").write_bytes(b"made meanwhile")
    with pytest.raises(FrameError, match="cannot write .*out: File exists"):
        sink.put(FRAME, ONE, FRAME.image)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> None:
        path.touch()
        with open("/dev/full", "wb") as full:
            full.write(data)

    (tmp_path / "o.png").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(FrameError, match="cannot write .*No space left"):
        store(tmp_path / "o.png", ONE, FRAME.image)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("o.png", b"old")]


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "out", Source("in", "video"), ["depth"], raw=False)
    for name in ("ü" * 125 + "a.jpg", "ü" * 125 + "b.jpg", "short.jpg"):
        sink.put(FRAME._replace(name=name), ONE, FRAME.image)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len(names) == 3
    assert names[0] == "short.jpg.depth.png"
    assert all(n.endswith(".depth.png") and len(os.fsencode(n)) <= 255 for n in names)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "link.png").symlink_to("real.png")
    store(tmp_path / "link.png", ONE, FRAME.image)
    assert (tmp_path / "link.png").is_symlink()
    assert cv2.imread(str(tmp_path / "real.png")).shape == FRAME.image.shape


@pytest.mark.parametrize("kind", ["video", "camera", "folder"])
def test_moments_are_kept_of_what_has_some(tmp_path: Path, kind: str) -> None:
    """Ten pictures a second, three of them at once, then a pause, then times that make no sense."""
    sink = open_sink(tmp_path / "o.avi", Source("in", kind, fps=10), ["depth"], raw=False)
    times = [0.0, 0.1, 0.2, 0.21, 0.22, 1.0, 1.1, 1.0, 1.1, 1e6]
    for i, seconds in enumerate(times):
        sink.put(FRAME._replace(time=seconds), ONE, np.full_like(FRAME.image, 20 * i))
    sink.close()
    seen = [round(f.image[0, 0, 0] / 20) for f in open_source(tmp_path / "o.avi")]
    if kind == "folder":
        assert seen == list(range(10))
    else:
        assert seen == [0, 1, 2, *[4] * 7, 5, 6, 7, *[8] * 100, 9]


class TestRecorder:
    def test_it_keeps_real_time(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "o.mp4", 10)
        for seconds in (5.0, 5.1, 5.12, 5.14, 5.6):  # two that come too soon, then one that comes late
            recorder.put(FRAME.image, seconds)
        recorder.close()
        assert recorder.written == 7, "0.6 s at 10 a second, the first picture included"
        with open_source(tmp_path / "o.mp4") as source:
            assert len(list(source)) == 7

    def test_a_long_gap_is_cut(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "o.avi", 10)
        for seconds in (0.0, 1e6, 1e6 + 0.1):
            recorder.put(FRAME.image, seconds)
        recorder.close()
        assert recorder.written == 102

    def test_a_full_disk_ends_it_with_a_video_that_plays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The disk is nearly full after five pictures; OpenCV itself would not tell."""
        left = iter([RESERVE] * 5)
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(left, RESERVE - 1)))
        recorder = Recorder(tmp_path / "seen.avi", 10)
        image = np.zeros((48, 64, 3), np.uint8)
        for i in range(5):
            recorder.put(image, i / 10)
        with pytest.raises(FrameError, match=r"seen.avi ends here: its disk has less than 16 MiB left"):
            recorder.put(image, 0.5)
        recorder.close()
        assert cv2.VideoCapture(str(tmp_path / "seen.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 5

    def test_another_size_is_fitted(self, tmp_path: Path) -> None:
        recorder = Recorder(tmp_path / "o.avi", 10)
        recorder.put(FRAME.image, 0.0)
        recorder.put(np.full((40, 300, 3), 200, np.uint8), 0.1)
        recorder.close()
        with open_source(tmp_path / "o.avi") as source:
            first, second = source
        assert first.image.shape == second.image.shape
        assert abs(float(second.image[24, 40].mean()) - 200) < 10
        assert second.image[2].mean() < 60, "dark above it"

    @pytest.mark.parametrize(("name", "words"), [("o.gif", "a video is .mp4"), ("no/o.mp4", "mkdir -p")])
    def test_refused(self, tmp_path: Path, name: str, words: str) -> None:
        with pytest.raises(FrameError, match=words):
            Recorder(tmp_path / name, 10)
