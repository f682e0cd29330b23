"""Frames from files and live devices, and one clear sentence for everything that gives none."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl.errors import FrameError
from edgemtl.media import images
from edgemtl.media.sources import Device, open_feed, open_source

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

    def test_what_is_named_like_a_picture_and_is_no_file_is_told(self, tmp_path: Path) -> None:
        write_image(tmp_path / "a.png")
        (tmp_path / "b.png").symlink_to("gone")
        (tmp_path / "latest").symlink_to("gone")
        os.mkfifo(tmp_path / "c.jpg")
        with open_source(tmp_path) as source:
            assert len(list(source)) == 1
        assert [line.removeprefix(f"cannot read {tmp_path}/") for line in source.left_out.lines()] == [
            "b.png: No such file or directory",
            f"{tmp_path}/c.jpg is a pipe or a device, no file",
        ]

    @pytest.mark.parametrize(("name", "words"), [("", "name is empty; give an image"), ("pipe", "is a pipe")])
    def test_what_is_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str) -> None:
        monkeypatch.chdir(tmp_path)
        write_image(tmp_path / "a.png")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FrameError, match=words):
            open_source(name)

    def test_grey_and_alpha_become_bgr(self, tmp_path: Path) -> None:
        for shape in [(5, 6), (5, 6, 4)]:
            (tmp_path / "x.png").write_bytes(cv2.imencode(".png", np.full(shape, 7, np.uint8))[1].tobytes())
            (frame,) = open_source(tmp_path / "x.png")
            assert frame.image.shape == (5, 6, 3)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "is empty"),
            (b"hello", "no frame that can be decoded"),
            (b"\x89PNG\r\n\x1a\n" + bytes(40), "is cut off"),
        ],
    )
    def test_damaged(self, tmp_path: Path, data: bytes, words: str) -> None:
        (tmp_path / "x.png").write_bytes(data)
        with pytest.raises(FrameError, match=words):
            list(open_source(tmp_path / "x.png"))

    def test_hidden_companions_and_bad_files_do_not_stop_a_folder(self, tmp_path: Path) -> None:
        whole = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))[1].tobytes()
        for name, data in {
            "._a.jpg": b"\0\5\x16\7" + bytes(60),
            "a.jpg": whole,
            "b.jpg": whole[: len(whole) // 2],
            "c": whole,
            "d.HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
            "e.png": b"",
            "f.txt": b"notes",
        }.items():
            (tmp_path / name).write_bytes(data)
        write_video(tmp_path / "g.avi")
        with open_source(tmp_path) as source:
            assert [frame.name for frame in source] == ["a.jpg", "c"]
        assert sorted(source.left_out.named) == ["b.jpg", "d.HEIC", "e.png", "g.avi"]
        assert source.left_out.count == 4
        assert "b.jpg is cut off before its end" in source.left_out.named["b.jpg"]
        assert "HEIC file, which is not read; convert it to JPEG" in source.left_out.named["d.HEIC"]

    def test_a_folder_of_bad_files_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"no picture")
        with open_source(tmp_path) as source, pytest.raises(FrameError, match=r"no image that can be read: .*a\.jpg"):
            list(source)

    def test_too_large_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "MAX_FILE", 10)
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

    @pytest.mark.parametrize("bad", [[0], [5], [5, 6, 7, 10], [28, 29]])
    def test_a_damaged_frame_is_skipped_and_told(self, tmp_path: Path, bad: list[int]) -> None:
        """Frames are damaged by overwriting their JPEG data in the file."""
        path = write_video(tmp_path / "v.avi", 30)
        data = bytearray(path.read_bytes())
        starts = [m.start() for m in re.finditer(b"\xff\xd8\xff", data)]
        assert len(starts) == 30
        for i in bad:
            size = int.from_bytes(data[starts[i] - 4 : starts[i]], "little")  # a RIFF chunk states it
            data[starts[i] : starts[i] + size] = bytes(size)
        path.write_bytes(data)
        with open_source(path) as source:
            names = [frame.name for frame in source]
        assert names == [f"{i:06d}" for i in range(30) if i not in bad]
        assert source.left_out.count == len(bad)
        assert list(source.left_out.named) == (["end"] if bad == [28, 29] else [f"{i:06d}" for i in bad])

    def test_a_count_that_cannot_be_is_not_believed(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "v.avi")
        data = bytearray(path.read_bytes())
        for at in [data.index(b"avih") + 24, data.index(b"strh") + 40]:  # dwTotalFrames, dwLength
            data[at : at + 4] = b"\xff" * 4
        path.write_bytes(data)
        with open_source(path) as source:
            assert len(list(source)) == 5
        assert len(source.left_out.lines()) <= 1

    @pytest.mark.parametrize("name", ["2024-11-14T22:57:44.avi", "http:x.avi", "rtsp:v.avi"])
    def test_a_name_is_no_address(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        os.rename(write_video(tmp_path / "v.avi"), tmp_path / name)
        monkeypatch.chdir(tmp_path)
        with open_source(name) as source:
            assert len(list(source)) == 5

    def test_closing_ends_the_iteration(self, tmp_path: Path) -> None:
        source = open_source(write_video(tmp_path / "v.avi"))
        frames = iter(source)
        next(frames)
        source.close()
        source.close()
        assert list(frames) == []


class Camera:
    """A `cv2.VideoCapture` of three frames, which stamps them if told to."""

    def __init__(self, good: bool = True, stamp: float = 0.0, frames: int = 3, cut: tuple[int, ...] = ()) -> None:
        self.cut = cut  # frames, counted from the last, that cannot be decoded
        self.good, self.stamp, self.left, self.released = good, stamp, frames, False

    def isOpened(self) -> bool:  # noqa: N802
        return self.good

    def get(self, what: int) -> float:
        return 1e3 * self.stamp if what == cv2.CAP_PROP_POS_MSEC else 30.0

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        good = self.left >= 0 and self.left not in self.cut
        return (True, GREY) if good else (False, None)

    def release(self) -> None:
        self.released = True


class TestDevices:
    def test_frames_until_it_ends(self) -> None:
        camera = Camera()
        with Device("camera 9", "camera", camera) as source:
            assert (source.live, source.fps) == (True, 30.0)
            frames = list(source)
        assert [f.name for f in frames] == ["000000", "000001", "000002"]
        assert all(time.monotonic() - 5 < f.taken == f.time <= time.monotonic() for f in frames)
        assert camera.released

    def test_a_cut_frame_is_no_end(self) -> None:
        with Device("http://h/", "stream", Camera(frames=9, cut=(3, 5, 6))) as source:
            assert len(list(source)) == 6
        assert source.left_out.count == 3

    def test_the_drivers_stamp_is_the_time_a_frame_was_taken(self) -> None:
        stamp = time.monotonic() - 0.2
        (frame, *_) = Device("camera 9", "camera", Camera(stamp=stamp))
        assert frame.taken == pytest.approx(stamp, abs=1e-6)

    @pytest.mark.parametrize(("kind", "ahead"), [("camera", -3600.0), ("camera", 60.0), ("stream", -0.2)])
    def test_a_stamp_of_another_clock_is_not_believed(self, kind: str, ahead: float) -> None:
        before = time.monotonic()
        (frame, *_) = Device("it", kind, Camera(stamp=before + ahead))
        assert before <= frame.taken <= time.monotonic()

    def test_a_camera_that_is_not_there(self) -> None:
        camera = Camera(good=False)
        with pytest.raises(FrameError, match=r"camera 9 cannot be opened; is it plugged in"):
            Device("camera 9", "camera", camera)
        assert camera.released

    def test_a_camera_that_gives_nothing(self) -> None:
        with pytest.raises(FrameError, match="opened but gave no frame"):
            next(iter(Device("camera 9", "camera", Camera(frames=0))))

    def test_numbers_and_devices_are_cameras_and_addresses_streams(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
        with pytest.raises(FrameError, match="/dev/null cannot be opened"):  # a device, though no camera
            open_source("/dev/null")
        assert asked[0] == (0,)
        assert asked[1][:2] == ("rtsp://user:secret@10.0.0.1/s", cv2.CAP_FFMPEG)
        assert asked[2] == ("/dev/null", cv2.CAP_V4L2)

    def test_a_device_that_is_not_there(self) -> None:
        with pytest.raises(FrameError, match=r"there is no /dev/video987; `ls /dev/video\*` lists the cameras"):
            open_source("/dev/video987")

    def test_a_recording_to_watch_is_paced_and_may_loop(self, tmp_path: Path) -> None:
        began = time.monotonic()
        with open_feed(write_video(tmp_path / "v.avi"), "all", loop=True) as feed:
            frames = [feed.take(5) for _ in range(7)]
        assert [f.image.mean() // 35 for f in frames if f] == [0, 1, 2, 3, 4, 0, 1]
        assert time.monotonic() - began >= 0.5, "five frames at ten a second, then once more"
