"""Where frames come from: an image, a video, a folder of images, a camera, or a network stream.

    with open_source("rtsp://192.168.0.7/stream") as source:
        for frame in source:
            show(engine(frame.image, color="bgr"))

A live source (camera, stream) is read by a thread; see `edgemtl.media.feed` for frames that come too fast
and for sources that vanish.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2

from edgemtl.errors import FrameError
from edgemtl.media import containers, images
from edgemtl.media.feed import QUIET_SECONDS, STALL_SECONDS, Feed, Frame, LeftOut, Policy, Source
from edgemtl.media.names import ADDRESS, SOURCE, shown_name

__all__ = ["Device", "Feed", "Frame", "Images", "Source", "Video", "folder_files", "open_feed", "open_source"]

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".3gp", ".wmv")
CAMERA = re.compile(r"^/dev/(video\d+$|v4l/)")
OPEN_SECONDS = 10.0
MOST_FRAMES = 1e9  # a file that states more states nothing
DAMAGED = 64  # reads in a row that may fail before a stream has ended: a frame that cannot be decoded fails too
DAMAGED_IN_FILE = 1000  # the same for a recording, which may hold half a minute of damage
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
    return bool(re.fullmatch(r"\d{1,3}", name) or ADDRESS.match(name) or _is_device(name))


def _is_device(name: str) -> bool:
    try:
        return bool(CAMERA.match(name)) or stat.S_ISCHR(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def open_plain(name: str) -> Source:
    """Like `open_source`, but read where it is iterated, with no thread."""
    if re.fullmatch(r"\d{1,3}", name):
        return Device(f"camera {name}", "camera", cv2.VideoCapture(int(name)))
    if ADDRESS.match(name):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(1e3 * OPEN_SECONDS)]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1e3 * STALL_SECONDS)]
        return Device(shown_name(name), "stream", cv2.VideoCapture(name, cv2.CAP_FFMPEG, limits))
    if _is_device(name):
        if not os.path.exists(name):
            raise FrameError(f"there is no {name}; `ls /dev/video*` lists the cameras of this machine")
        return Device(name, "camera", cv2.VideoCapture(name, cv2.CAP_V4L2))
    if not name:
        raise FrameError(f"the source's name is empty; give {SOURCE}")
    path = Path(name)
    try:
        if path.is_dir():
            files, left_out = folder_files(path)
            return Images(path, files, "folder", left_out)
        if not path.exists():
            raise FrameError(f"there is no file {shown_name(name)}; a source is {SOURCE}")
        found = images.sniff(path)
        if found.format == "GIF" and found.moving:
            return Video(path)
        if found.readable:
            return Images(path, [path], "image")
        if found.format:
            raise images.refusal(path, found.format)
        return Video(path)
    except (OSError, ValueError) as e:
        raise FrameError(f"cannot open {shown_name(path)}: {getattr(e, 'strerror', None) or e}") from None


class Images(Source):
    """One image, or the images of a folder in the order of their names; of a folder those that can be read."""

    def __init__(self, path: Path, files: list[Path], kind: str, left_out: LeftOut | None = None) -> None:
        super().__init__(shown_name(path), kind, count=len(files))
        self._files, self.path = files, path
        self.names = [file.name for file in files]
        self.left_out = left_out or LeftOut()

    def thin(self, count: int) -> None:
        """Keep at most `count` images, evenly spaced."""
        kept = min(count, len(self._files))
        self._files = [self._files[i * len(self._files) // kept] for i in range(kept)]
        self.names, self.count = [file.name for file in self._files], kept

    def __iter__(self) -> Iterator[Frame]:
        given = 0
        for i, file in enumerate(self._files):
            try:
                image, note = images.read_image(file), images.unread(file)
            except FrameError as e:
                if self.kind == "image":
                    raise
                self.left_out.add(file.name, str(e))
                continue
            if note:
                self.left_out.add(f"{file.name}+", note)
            given += 1
            yield Frame(image, float(i), file.name)
        if not given:
            raise FrameError(f"folder {self.name} holds no image that can be read: {self.left_out.lines()[0]}")


def folder_files(folder: Path) -> tuple[list[Path], LeftOut]:
    """The pictures of a folder by name, and what looks like one but cannot be read. Hidden files, such as the
    companions that macOS writes, are neither; nor are folders in it. Raises OSError, and FrameError where it has none.
    """
    files, left_out = [], LeftOut()
    for file in sorted(f for f in folder.iterdir() if not f.name.startswith(".")):
        try:
            if not stat.S_ISREG(mode := file.stat().st_mode):
                if not stat.S_ISDIR(mode) and images.is_named_like_one(file):
                    left_out.add(file.name, f"{shown_name(file)} is a pipe or a device, no file")
                continue
            found = images.sniff(file)
        except OSError as e:
            if e.errno == errno.ENOENT and not images.is_named_like_one(file):
                continue  # a link to nothing
            left_out.add(file.name, f"cannot read {shown_name(file)}: {e.strerror}")
            continue
        if found.readable or (images.is_named_like_one(file) and not found.format):
            files.append(file)  # what is named like a picture and is none is told when it is read
        elif found.format:
            left_out.add(file.name, str(images.refusal(file, found.format)))
        elif file.suffix.lower() in VIDEO_SUFFIXES:
            left_out.add(file.name, f"{shown_name(file)} is a video; give it by itself")
    if not files:
        why = "".join(f"; {line}" for line in left_out.lines()[:1])
        raise FrameError(f"folder {shown_name(folder)} holds no images (JPEG, PNG, WebP, TIFF, BMP, PNM, AVIF){why}")
    return files, left_out


class Video(Source):
    """A recording, read frame by frame, none dropped."""

    def __init__(self, path: Path) -> None:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FrameError(f"{shown_name(path)} is a pipe or a device, which is not read; store it in a file first")
        if path.stat().st_size == 0:
            raise FrameError(f"{shown_name(path)} is empty")
        self._capture: Any = None
        self._fd = os.open(path, os.O_RDONLY)
        name = str(path.absolute())  # "22:57.mp4" alone would be an address
        if not name.isascii() and Path("/proc/self/fd").exists():
            name = f"/proc/self/fd/{self._fd}"  # OpenCV takes UTF-8 names only
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # what is wrong is said below
        self._capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            self.close()
            raise FrameError(f"{shown_name(path)} is no image or video that can be decoded, or it is damaged")
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        count = int(stated) if 0 < stated < MOST_FRAMES else 0
        super().__init__(shown_name(path), "video", count=count, fps=float(self._capture.get(cv2.CAP_PROP_FPS)))
        self.path = path
        self._cut = containers.cut_off(path)
        self._counts = os.pread(self._fd, 4, 0) == b"RIFF"  # an AVI counts frames, others' may be a guess

    def __iter__(self) -> Iterator[Frame]:
        number = failed = 0
        given = False
        while self._fd >= 0 and failed < DAMAGED_IN_FILE:
            good, image = self._capture.read()
            if not good:  # the end, or a frame that cannot be decoded: reading on tells
                failed += 1
                continue
            for lost in range(number, number + failed):
                self._lose(lost)
            number, failed, given = number + failed, 0, True
            yield Frame(image, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, f"{number:06d}")
            number += 1
        if self._fd >= 0:
            if not given:
                raise FrameError(f"{self.name} holds no frame that can be decoded")
            missing = self.count - number
            if self._counts and missing > 0:
                said = f"{self.name} states {self.count} frames, but after frame {number - 1} none can be read"
                self.left_out.add("end", said, missing)
            elif self._cut:
                said = f"{self.name} is cut off: after frame {number - 1} none can be read; copy it again"
                self.left_out.add("end", said, max(1, missing))

    def _lose(self, number: int) -> None:
        self.left_out.add(f"{number:06d}", f"frame {number} of {self.name} cannot be decoded")

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
        number = failed = 0
        while failed < DAMAGED:
            began = time.monotonic()
            good, image = self._capture.read()
            if not good:  # a frame cut on its way, or the end: that fails again and again, or only after a long wait
                failed += DAMAGED if time.monotonic() - began > QUIET_SECONDS else 1
                continue
            for _ in range(failed):
                self.left_out.add(f"{self.left_out.count}", f"a frame of {self.name} cannot be decoded")
            failed, taken = 0, self._taken()
            yield Frame(image, taken, f"{number:06d}", taken)
            number += 1
        if number == 0:
            raise FrameError(f"{self.name} was opened but gave no frame")

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
