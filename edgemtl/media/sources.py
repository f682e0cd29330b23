"""Where frames come from: an image, a video, a folder of images, a camera, or a network stream.

    with open_source("rtsp://192.168.0.7/stream") as source:
        for frame in source:
            show(engine(frame.image, color="bgr"))

A live source (camera, stream) is read by a thread; see `edgemtl.media.feed` for frames that come too fast
and for sources that vanish.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgemtl.errors import FrameError
from edgemtl.media.feed import STALL_SECONDS, Feed, Frame, Policy, Source
from edgemtl.media.preprocess import Image

__all__ = ["Device", "Feed", "Frame", "Images", "Source", "Video", "open_feed", "open_source", "read_image"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
STREAM = re.compile(r"^(rtsps?|https?|rtmp|udp|tcp)://", re.IGNORECASE)
CAMERA = re.compile(r"^/dev/(video\d+$|v4l/)")
MAX_FILE = 1 << 28  # bytes of one image file
OPEN_SECONDS = 10.0
OLDEST = 1.0  # seconds; a driver's time stamp further back is of another clock


def open_source(text: str | os.PathLike[str]) -> Source:
    """The source that `text` names: "0" or "/dev/video0" a camera, "rtsp://…" a stream, else a file or folder ("./0"
    for a file "0"). Cameras and streams are read by a thread that keeps the newest frame.

    Raises FrameError for a source that is missing, empty, unreadable or of an unknown kind.
    """
    name = os.fspath(text)
    return Feed(lambda: open_plain(name)) if is_live(name) else open_plain(name)


def open_feed(
    text: str | os.PathLike[str], policy: Policy = "newest", *, paced: bool = True, loop: bool = False
) -> Feed:
    """The source that `text` names as something to watch: read by a thread, and a camera or stream that is lost is
    opened again. A recording is `paced`, given at its own speed, and may begin again at its end.

    Raises FrameError like `open_source`.
    """
    name = os.fspath(text)
    live = is_live(name)
    return Feed(
        lambda: open_plain(name), policy=policy, reconnect=live, paced=paced and not live, loop=loop and not live
    )


def is_live(name: str) -> bool:
    """Whether `name` is a camera or a stream."""
    return bool(re.fullmatch(r"\d{1,3}", name) or STREAM.match(name) or _is_device(name))


def _is_device(name: str) -> bool:
    try:
        return bool(CAMERA.match(name)) or stat.S_ISCHR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def open_plain(name: str) -> Source:
    """Like `open_source`, but read where it is iterated, with no thread."""
    if re.fullmatch(r"\d{1,3}", name):
        return Device(f"camera {name}", "camera", cv2.VideoCapture(int(name)))
    if STREAM.match(name):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1e3 * OPEN_SECONDS)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1e3 * STALL_SECONDS)]
        shown = re.sub(r"//[^/@]*@", "//…@", name)  # never show a password
        return Device(shown, "stream", cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits))
    if _is_device(name):
        if not os.path.exists(name):
            raise FrameError(f"there is no {name}; `ls /dev/video*` lists the cameras of this machine")
        return Device(name, "camera", cv2.VideoCapture(name, cv2.CAP_V4L2))
    path = Path(name)
    try:
        if path.is_dir():
            return _folder(path)
        if not path.exists():
            raise FrameError(
                f"there is no file {shown_name(path)}; a source is an image, a video, a folder of images,"
                " a camera's number, or rtsp://…"
            )
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return Images(path, [path], "image")
        return Video(path)
    except (OSError, ValueError) as e:
        raise FrameError(f"cannot open {shown_name(path)}: {getattr(e, 'strerror', None) or e}") from None


def read_image(path: Path) -> Image:
    """A file as BGR; reads the bytes itself, so that any file name works. Raises FrameError."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise FrameError(f"{shown_name(path)} has more than {MAX_FILE >> 20} MiB, too much for one image")
        data = path.read_bytes()
    except OSError as e:
        raise FrameError(f"cannot read {shown_name(path)}: {e.strerror}") from None
    if not data:
        raise FrameError(f"{shown_name(path)} is empty")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # for one, more pixels than OpenCV allows
        image = None
    if image is None:
        raise FrameError(f"{shown_name(path)} is no image that can be decoded, or it is damaged")
    return np.asarray(image, np.uint8)


def shown_name(path: Path) -> str:
    """A path for people: printable, whatever bytes its name has."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(path))


class Images(Source):
    """One image, or the images of a folder in the order of their names."""

    def __init__(self, path: Path, files: list[Path], kind: str) -> None:
        super().__init__(shown_name(path), kind, count=len(files))
        self._files = files

    def __iter__(self) -> Iterator[Frame]:
        for i, file in enumerate(self._files):
            yield Frame(read_image(file), float(i), file.name)


def _folder(path: Path) -> Images:
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
    if not files:
        raise FrameError(f"folder {shown_name(path)} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return Images(path, files, "folder")


class Video(Source):
    """A recording, read frame by frame, none dropped."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size == 0:
            raise FrameError(f"{shown_name(path)} is empty")
        self._capture: Any = None
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        name = str(path)
        if not name.isascii() and Path("/proc/self/fd").exists():
            name = f"/proc/self/fd/{self._fd}"  # OpenCV takes UTF-8 names only
        self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            self.close()
            raise FrameError(f"{shown_name(path)} is no image or video that can be decoded, or it is damaged")
        count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        super().__init__(shown_name(path), "video", count=count, fps=float(self._capture.get(cv2.CAP_PROP_FPS)))

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while self._fd >= 0:
            good, image = self._capture.read()
            at = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3  # of the frame just read
            if not good:
                if number == 0:
                    raise FrameError(f"{self.name} holds no frame that can be decoded")
                return
            yield Frame(image, at, f"{number:06d}")
            number += 1

    def close(self) -> None:
        if self._fd >= 0:
            self._capture.release()
            os.close(self._fd)
            self._fd = -1


class Device(Source):
    """A camera or stream, read where it is iterated: a read may block for seconds, so put a Feed before it.

    `capture` is an opened `cv2.VideoCapture` (or anything with its isOpened, read, get and release).
    """

    def __init__(self, name: str, kind: str, capture: Any) -> None:
        if not capture.isOpened():
            capture.release()
            hint = "; is it plugged in, and may you read /dev/video*?" if kind == "camera" else ""
            raise FrameError(f"{name} cannot be opened{hint}")
        super().__init__(name, kind, fps=float(capture.get(cv2.CAP_PROP_FPS)))
        self._capture = capture

    def __iter__(self) -> Iterator[Frame]:
        number = 0
        while True:
            good, image = self._capture.read()
            if not good:
                if number == 0:
                    raise FrameError(f"{self.name} was opened but gave no frame")
                return
            taken = self._taken()
            yield Frame(image, taken, f"{number:06d}", taken)
            number += 1

    def _taken(self) -> float:
        """When the frame was taken: by the camera driver's own stamp where it is of our clock, else now."""
        now = time.monotonic()
        if self.kind == "camera":
            stamp = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
            if now - OLDEST < stamp <= now:
                return stamp
        return now

    def close(self) -> None:
        self._capture.release()
