"""Where results go: one picture, a video, a folder of pictures, or the maps themselves as .npy or .npz."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from edgemtl import tasks
from edgemtl.errors import FrameError
from edgemtl.files import replacing
from edgemtl.media import legend, view
from edgemtl.media.feed import USUAL_FPS
from edgemtl.media.names import shown_name
from edgemtl.media.preprocess import Image
from edgemtl.media.sources import Frame, Source
from edgemtl.runtime.output import Output, Timing

View = Literal["map", "overlay", "sheet"]
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}
RAW = (".npz", ".npy")
MAX_VIDEO_SIDE = 4096  # pixels; MPEG-4 ends at 8191, and OpenCV's writers of larger ones fail in their own ways
LONGEST_NAME = 255  # bytes, on the file systems of Linux
LONGEST_GAP = 10.0  # seconds
RESERVE = 16 << 20  # bytes that a recording leaves free: enough to finish its file


def picture(frame: Frame, out: Output, how: View, colormap: str, limits: tuple[float, float] | None) -> Image:
    """One BGR image of a frame's results: several tasks stand side by side; "sheet" adds the frame and a legend."""
    if how == "overlay":
        tiles = [(n, t.overlay(frame.image, colormap=colormap, limits=limits)) for n, t in out.items()]
    else:
        tiles = [(n, t.colour(colormap=colormap, limits=limits)) for n, t in out.items()]
    if how != "sheet":
        return tiles[0][1] if len(tiles) == 1 else view.contact_sheet(tiles)
    sheet = view.contact_sheet([("frame", frame.image), *tiles])
    for t in out.values():
        if tasks.find(t.task.kind).classes:
            strip = legend.classes(t.task, range(t.task.channels), sheet.shape[1], color="bgr")
            sheet = np.concatenate([sheet, strip])
    return sheet


class Sink:
    """Takes results one by one; `close` finishes what must be finished."""

    def __init__(self, path: Path) -> None:
        self.path, self.written = path, 0

    def put(self, frame: Frame, out: Output, image: Image | None) -> None:
        """Store one frame's results; `image` is the picture, None where maps are stored."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish."""


def open_sink(path: Path, source: Source, tasks: Sequence[str], *, raw: bool, overwrite: bool = False) -> Sink:
    """A place for the results of `source`, by the suffix of `path`; with `raw` for maps instead of pictures.

    `tasks` become part of the names of a folder's files. Raises FrameError for a suffix that does not fit the source, a
    folder that is missing, the source itself, what the system refuses or, but for `overwrite`, a file that exists.
    """
    with writing(path):
        return _open_sink(path, source, tasks, raw, overwrite)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says while `path` is written or looked at becomes a FrameError."""
    try:
        yield
    except OSError as e:
        raise FrameError(f"cannot write {shown_name(path)}: {e.strerror or e}") from None


def _open_sink(path: Path, source: Source, tasks: Sequence[str], raw: bool, overwrite: bool) -> Sink:
    suffix, many = path.suffix.lower(), source.kind != "image"
    if source.path is not None and path.resolve() == source.path.resolve():
        hint = "; give another folder" if path.is_dir() else ""
        raise FrameError(f"the output {shown_name(path)} would overwrite the source{hint}")
    if not path.resolve().parent.is_dir():
        raise FrameError(f"the folder of {shown_name(path)} does not exist; make it with mkdir -p")
    if suffix in RAW if raw else suffix in PICTURES:
        if many:
            kind = "a folder" if raw else "a folder, or a video (.mp4)"
            raise FrameError(f"{shown_name(path)} holds one frame, the source is a {source.kind}: give {kind}")
        check_free(path, overwrite)
        return One(path)
    if not raw and suffix in CODECS:
        check_free(path, overwrite)
        return Video(path, source.fps, timed=source.kind == "video" or source.live)
    if suffix and not path.is_dir():
        fit = (*RAW, "or a folder") if raw else (*PICTURES, *CODECS, "or a folder")
        raise FrameError(f"{shown_name(path)}: results go to {', '.join(fit)}, not to {suffix!r}")
    if path.exists() and not path.is_dir():
        raise FrameError(f"{shown_name(path)} is no folder; give a folder, or a name that ends in .png, .npz or .mp4")
    folder = Folder(path, "+".join(tasks), ".npz" if raw else ".png", overwrite)
    for name in source.names:
        folder.place(name)
    return folder


def check_free(path: Path, overwrite: bool) -> None:
    """Raise FrameError when `path` is a file that exists and must be kept."""
    if path.is_file() and not overwrite:
        raise FrameError(f"{shown_name(path)} exists; give another name, or --overwrite to replace it")


def check_room(path: Path) -> None:
    """Raise FrameError when the disk that `path` is on has less than RESERVE bytes left.

    To be asked before each write of what does not tell that a write failed, as OpenCV's videos do not.
    """
    with writing(path):
        free = shutil.disk_usage(path.resolve().parent).free
    if free < RESERVE:
        raise FrameError(f"{shown_name(path)} ends here: its disk has less than {RESERVE >> 20} MiB left")


class One(Sink):
    """A single picture, or a single frame's maps."""

    def put(self, frame: Frame, out: Output, image: Image | None) -> None:
        store(self.path, out, image)
        self.written += 1


class Folder(Sink):
    """One file per frame: the frame's whole name, which no other frame has, then the tasks, as in a.jpg.depth.png. Of a
    name that gets too long the end becomes a digest of it.
    """

    def __init__(self, path: Path, tasks: str, suffix: str, overwrite: bool) -> None:
        super().__init__(path)
        self._end, self._overwrite = f".{tasks}{suffix}", overwrite

    def place(self, name: str) -> Path:
        """The file for the frame `name`. Raises FrameError as `check_free`."""
        whole = os.fsencode(name)
        if (most := LONGEST_NAME - len(os.fsencode(self._end))) < len(whole):
            digest = hashlib.sha256(whole).hexdigest()[:16]
            name = f"{whole[: most - 17].decode(errors='ignore')}~{digest}"
        place = self.path / (name + self._end)
        check_free(place, self._overwrite)
        return place

    def put(self, frame: Frame, out: Output, image: Image | None) -> None:
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
        store(self.place(frame.name), out, image)
        self.written += 1


class Video(Sink):
    """A video of pictures of one size; 25 frames/s where the source has no rate.

    timed: each picture begins at its frame's time, whatever the rate of frames: a picture is repeated until the next
    one begins, for LONGEST_GAP seconds at most, and left out where another one begins at once. Without it every picture
    is in the video once.
    """

    def __init__(self, path: Path, fps: float, *, timed: bool) -> None:
        super().__init__(path)
        self.fps, self._timed = fps or USUAL_FPS, timed
        self._writer: Any = None
        self._size = (0, 0)
        self._last: Frame | None = None  # with its result as the image
        self._due = 1.0  # pictures that the video should have

    def put(self, frame: Frame, out: Output, image: Image | None) -> None:
        assert image is not None
        if self._timed and self._last is not None:
            step = frame.time - self._last.time
            # no times, times that go back, and NaN count as one picture
            self._due += min(step, LONGEST_GAP) * self.fps if step > 0 else 1.0
            for _ in range(round(self._due) - self.written - 1):
                self._write(self._last)
        self._last = frame._replace(image=image)
        if not self._timed or round(self._due) > self.written:
            self._write(self._last)

    def _write(self, frame: Frame) -> None:
        image, name = frame.image, frame.name
        height, width = image.shape[:2]
        if self._writer is None:
            self._size = (width + width % 2, height + height % 2)  # codecs want even sizes
            if max(self._size) > MAX_VIDEO_SIDE:
                raise FrameError(
                    f"frame {name} gives a picture of {width}x{height}, and a video may have"
                    f" {MAX_VIDEO_SIDE} pixels a side; give a folder, or shrink the source"
                )
            try:
                str(self.path).encode()
            except UnicodeEncodeError:  # OpenCV would crash
                raise FrameError(f"the name of the video {shown_name(self.path)} is no UTF-8; give another") from None
            code = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self.path.absolute()), code, self.fps, self._size)
            if not self._writer.isOpened():
                raise FrameError(f"OpenCV cannot write the video {shown_name(self.path)}; try .avi or a folder")
        wide, high = self._size
        if not (wide - 2 < width <= wide and high - 2 < height <= high):
            raise FrameError(f"frame {name} has another size than the ones before, which a video cannot hold")
        if (width, height) != self._size:
            image = cv2.copyMakeBorder(image, 0, high - height, 0, wide - width, cv2.BORDER_REPLICATE)
        check_room(self.path)
        self._writer.write(image)
        self.written += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None


class Recorder:
    """A video of a live show: it keeps real time whatever the rate of pictures, and one size whatever theirs is.

    Pictures of another size than the first are fitted into it.
    """

    def __init__(self, path: Path, fps: float, *, overwrite: bool = False) -> None:
        if path.suffix.lower() not in CODECS:
            raise FrameError(f"{shown_name(path)}: a video is {' or '.join(CODECS)}, not {path.suffix!r}")
        if not path.resolve().parent.is_dir():
            raise FrameError(f"the folder of {shown_name(path)} does not exist; make it with mkdir -p")
        check_free(path, overwrite)
        self._video = Video(path, fps, timed=True)
        self._size: tuple[int, int] | None = None

    @property
    def written(self) -> int:
        """Pictures in the video."""
        return self._video.written

    def put(self, image: Image, seconds: float) -> None:
        """The picture shown from the time `seconds` on."""
        if self._size is None:
            high, wide = (min(n, MAX_VIDEO_SIDE) for n in image.shape[:2])
            self._size = (high, wide)
        fitted = image if image.shape[:2] == self._size else view.fit(image, self._size)
        self._video.put(Frame(fitted, seconds, "recorded"), Output({}, Timing(0.0, {}, 0.0)), fitted)

    def close(self) -> None:
        """Finish the video."""
        self._video.close()


def store(path: Path, out: Output, image: Image | None) -> None:
    """One file: a picture, an .npz with a map per task, or an .npy of the only task's map. Raises FrameError; then the
    file is as it was before.
    """
    data = io.BytesIO()
    if image is not None:
        try:
            good, encoded = cv2.imencode(path.suffix.lower(), image)
        except cv2.error:  # a side of more pixels than the format holds
            good = False
        if not good:
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise FrameError(f"{shown_name(path)}: {path.suffix} cannot hold {size} pixels; give a .png")
        data.write(encoded.tobytes())
    elif path.suffix.lower() == ".npy":
        if len(out) != 1:
            raise FrameError(f"{shown_name(path)} holds one array, {len(out)} tasks are active: use .npz")
        np.save(data, next(iter(out.values())).map)
    else:
        np.savez(data, **{name: t.map for name, t in out.items()})  # type: ignore[arg-type]
    with writing(path), replacing(path) as new:
        new.write_bytes(data.getbuffer())
