"""Where frames come from: an image, a video, a folder of images, a camera by number, or a network stream.

    with open_source("rtsp://192.168.0.7/stream") as source:
        for frame in source:
            show(engine(frame.image, color="bgr"))

A live source (camera, stream) is read by a thread that keeps the newest frame only, so that a slow consumer sees the
present rather than a growing past; `source.dropped` counts what it missed.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import cv2
import numpy as np

from edgemtl.errors import FrameError
from edgemtl.preprocess import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
STREAM = re.compile(r"^(rtsps?|https?|rtmp|udp|tcp)://", re.IGNORECASE)
MAX_FILE = 1 << 28  # bytes of one image file
OPEN_SECONDS, STALL_SECONDS = 10.0, 10.0


class Frame(NamedTuple):
    """image: uint8 BGR [H, W, 3]. time: seconds; of a recording from its start, of a live source `time.monotonic()`
    when the frame was taken. name: of the file, or the frame's number.
    """

    image: Image
    time: float
    name: str


class Source:
    """An iterator over frames that closes what it opened; `count` and `fps` are 0 where unknown."""

    def __init__(self, name: str, kind: str, *, count: int = 0, fps: float = 0.0) -> None:
        self.name, self.kind, self.count, self.fps = name, kind, count, fps
        self.live = kind in ("camera", "stream")
        self.dropped = 0

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop reading; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(text: str | os.PathLike[str]) -> Source:
    """The source that `text` names: "0" a camera, "rtsp://…" a stream, else a file or folder ("./0" for a file "0").

    Raises FrameError for a source that is missing, empty, unreadable or of an unknown kind.
    """
    name = os.fspath(text)
    if re.fullmatch(r"\d{1,3}", name):
        return Live(f"camera {name}", "camera", cv2.VideoCapture(int(name)))
    if STREAM.match(name):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1e3 * OPEN_SECONDS)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1e3 * STALL_SECONDS)]
        shown = re.sub(r"//[^/@]*@", "//…@", name)  # never show a password
        return Live(shown, "stream", cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits))
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


class Live(Source):
    """A camera or stream; a thread takes every frame, the iterator gives the newest that it has not given yet.

    `capture` is an opened `cv2.VideoCapture` (or anything with its isOpened, read, get and release).
    """

    def __init__(self, name: str, kind: str, capture: Any) -> None:
        if not capture.isOpened():
            capture.release()
            hint = "; is it plugged in, and may you read /dev/video*?" if kind == "camera" else ""
            raise FrameError(f"{name} cannot be opened{hint}")
        super().__init__(name, kind, fps=float(capture.get(cv2.CAP_PROP_FPS)))
        self._capture = capture
        self._news = threading.Condition()
        self._newest: Frame | None = None
        self._ended = self._closing = False
        self._thread = threading.Thread(target=self._read, name=f"edgemtl {kind}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        number = 0
        while not self._closing:
            good, image = self._capture.read()
            with self._news:
                if good:
                    self.dropped += self._newest is not None
                    self._newest = Frame(image, time.monotonic(), f"{number:06d}")
                    number += 1
                else:
                    self._ended = True
                self._news.notify()
            if not good:
                break
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        given = 0
        while not self._closing:
            with self._news:
                if not self._news.wait_for(lambda: self._newest or self._ended, STALL_SECONDS):
                    raise FrameError(f"{self.name} gave no frame for {STALL_SECONDS:.0f} s")
                frame, self._newest = self._newest, None
            if frame is None:
                if given == 0:
                    raise FrameError(f"{self.name} was opened but gave no frame")
                return
            given += 1
            yield frame

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(RuntimeError):  # not from the reading thread itself
            self._thread.join(STALL_SECONDS)
