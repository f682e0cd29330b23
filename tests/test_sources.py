"""Frames from files and live devices, and one clear sentence for everything that gives none."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl import sources
from edgemtl.errors import FrameError
from edgemtl.sources import Live, open_source

GREY = np.full((12, 16, 3), 90, np.uint8)


def write_image(path: Path, value: int = 90) -> Path:
    good, data = cv2.imencode(".png", np.full_like(GREY, value))
    assert good
    path.write_bytes(data.tobytes())
    return path


def write_video(path: Path, frames: int = 5) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 40 * (i % 6), np.uint8))
    writer.release()
    return path


class TestImages:
    @pytest.mark.parametrize("name", ["a.png", "Räume ☀.PNG", "frame%03d.png", "-x.png"])
    def test_one(self, tmp_path: Path, name: str) -> None:
        with open_source(write_image(tmp_path / name)) as source:
            assert (source.kind, source.count, source.live) == ("image", 1, False)
            (frame,) = source
        assert frame.name == name
        np.testing.assert_array_equal(frame.image, GREY)

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"b\xff\x1b.png")
        write_image(path)
        with open_source(str(path)) as source:
            assert len(list(source)) == 1
            assert source.name.isprintable()

    def test_a_folder_in_the_order_of_names(self, tmp_path: Path) -> None:
        for name, value in [("b.png", 2), ("a.png", 1), ("c.jpg", 3)]:
            write_image(tmp_path / name, value)
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / "sub.png").mkdir()
        with open_source(tmp_path) as source:
            assert source.kind == "folder"
            assert [(f.name, f.image[0, 0, 0]) for f in source] == [("a.png", 1), ("b.png", 2), ("c.jpg", 3)]

    def test_grey_and_alpha_become_bgr(self, tmp_path: Path) -> None:
        for shape in [(5, 6), (5, 6, 4)]:
            (tmp_path / "x.png").write_bytes(cv2.imencode(".png", np.full(shape, 7, np.uint8))[1].tobytes())
            (frame,) = open_source(tmp_path / "x.png")
            assert frame.image.shape == (5, 6, 3)

    @pytest.mark.parametrize(
        ("data", "words"),
        [(b"", "is empty"), (b"hello", "no image that can be decoded"), (b"\x89PNG\r\n\x1a\n" + bytes(40), "decoded")],
    )
    def test_damaged(self, tmp_path: Path, data: bytes, words: str) -> None:
        (tmp_path / "x.png").write_bytes(data)
        with pytest.raises(FrameError, match=words):
            list(open_source(tmp_path / "x.png"))

    def test_too_large_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "MAX_FILE", 10)
        with pytest.raises(FrameError, match="too much for one image"):
            list(open_source(write_image(tmp_path / "x.png")))


class TestFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match="there is no file .*a source is an image, a video, a folder"):
            open_source(tmp_path / "no.png")

    def test_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(FrameError, match="holds no images"):
            open_source(tmp_path)

    def test_null_in_the_name(self) -> None:
        with pytest.raises(FrameError, match="cannot open|there is no file"):
            open_source("a\0b.png")

    def test_video(self, tmp_path: Path) -> None:
        with open_source(write_video(tmp_path / "v.avi")) as source:
            assert (source.kind, source.count, source.fps, source.live) == ("video", 5, 10.0, False)
            frames = list(source)
        assert [f.name for f in frames] == [f"{i:06d}" for i in range(5)]
        assert [round(f.time, 3) for f in frames] == [0, 0.1, 0.2, 0.3, 0.4]
        assert [int(f.image.mean()) // 35 for f in frames] == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("name", ["ü.avi", os.fsdecode(b"v\xfe.avi"), "100%d.avi"])
    def test_video_of_any_name(self, tmp_path: Path, name: str) -> None:
        os.rename(write_video(tmp_path / "v.avi"), tmp_path / name)
        with open_source(tmp_path / name) as source:
            assert len(list(source)) == 5

    @pytest.mark.parametrize(("data", "words"), [(b"", "is empty"), (b"junk" * 99, "no image or video")])
    def test_damaged_video(self, tmp_path: Path, data: bytes, words: str) -> None:
        (tmp_path / "v.mp4").write_bytes(data)
        fds = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FrameError, match=words):
            open_source(tmp_path / "v.mp4")
        assert len(os.listdir("/proc/self/fd")) == fds

    def test_a_video_cut_short_gives_what_it_has(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.avi", 100)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        with open_source(path) as source:
            assert 0 < len(list(source)) < 100

    def test_closing_ends_the_iteration(self, tmp_path: Path) -> None:
        source = open_source(write_video(tmp_path / "v.avi"))
        frames = iter(source)
        next(frames)
        source.close()
        source.close()
        assert list(frames) == []


class Camera:
    """A `cv2.VideoCapture` that gives frames when it is told to."""

    def __init__(self, good: bool = True) -> None:
        self.good, self.released, self.left = good, False, threading.Semaphore(0)
        self.number, self.end, self.taken = 0, False, threading.Condition()

    def give(self, count: int) -> None:
        """Let it produce `count` frames and wait until all are taken."""
        goal = self.number + count
        self.left.release(count)
        with self.taken:
            assert self.taken.wait_for(lambda: self.number >= goal, 5)

    def stop(self) -> None:
        self.end = True
        self.left.release()

    def isOpened(self) -> bool:  # noqa: N802
        return self.good

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Any]:
        self.left.acquire()
        if self.end:
            return False, None
        with self.taken:
            self.number += 1
            self.taken.notify_all()
        return True, np.full((2, 2, 3), self.number, np.uint8)

    def release(self) -> None:
        self.released = True


def settled(source: Live, number: int) -> None:
    """Wait until the reading thread has stored frame `number` (counted from 0)."""
    until = time.monotonic() + 5
    while source._newest is None or source._newest.name != f"{number:06d}":
        assert time.monotonic() < until
        time.sleep(0.001)


class TestLive:
    def test_only_the_newest_frame_is_given(self) -> None:
        camera = Camera()
        with Live("camera 9", "camera", camera) as source:
            assert source.live
            frames = iter(source)
            camera.give(4)
            settled(source, 3)
            first = next(frames)
            assert (first.name, first.image[0, 0, 0], source.dropped) == ("000003", 4, 3)
            camera.give(1)
            assert next(frames).name == "000004"
            assert source.dropped == 3
            assert first.time <= time.monotonic()
            camera.stop()
            assert list(frames) == []
        assert camera.released

    def test_a_camera_that_is_not_there(self) -> None:
        camera = Camera(good=False)
        with pytest.raises(FrameError, match=r"camera 9 cannot be opened; is it plugged in"):
            Live("camera 9", "camera", camera)
        assert camera.released

    def test_a_camera_that_gives_nothing(self) -> None:
        camera = Camera()
        camera.stop()
        with Live("camera 9", "camera", camera) as source, pytest.raises(FrameError, match="opened but gave no frame"):
            next(iter(source))

    def test_a_camera_that_stalls(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "STALL_SECONDS", 0.01)
        camera = Camera()
        with Live("camera 9", "camera", camera) as source:
            with pytest.raises(FrameError, match="gave no frame for"):
                next(iter(source))
            camera.stop()

    def test_numbers_are_cameras_and_addresses_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Any] = []

        def capture(*args: Any) -> Camera:
            asked.append(args)
            return Camera(good=False)

        monkeypatch.setattr(cv2, "VideoCapture", capture)
        with pytest.raises(FrameError, match="camera 0 cannot"):
            open_source("0")
        with pytest.raises(FrameError, match=r"rtsp://…@10.0.0.1/s cannot be opened") as caught:
            open_source("rtsp://user:secret@10.0.0.1/s")
        assert "secret" not in str(caught.value)
        assert asked[0] == (0,)
        assert asked[1][:2] == ("rtsp://user:secret@10.0.0.1/s", cv2.CAP_FFMPEG)
