"""A clip: one home seen by a camera that glides along a closed path. The demo's input when there is no camera.

The path is an ellipse that keeps its distance from everything: rays are cast from its points in all directions, and
along it, so no frame is inside an object. Frames are independent of each other and can be rendered in parallel.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.home import Home
from edgemtl.data.homes.render import render
from edgemtl.data.homes.trace import World
from edgemtl.data.homes.view import Eye, judge
from edgemtl.data.homes.write import home
from edgemtl.data.rooms.image_set import MAX_SIDE, MIN_SIDE
from edgemtl.data.rooms.write import disk_error
from edgemtl.errors import ConfigError, DataError

CLEARANCE = 0.3  # metres kept from every surface
VIDEO_CODES = {".mp4": "mp4v", ".avi": "MJPG"}
SWING = np.radians(50.0)  # how far the gaze turns to either side
FOV = 64.0  # degrees, across: a webcam's


@dataclass(frozen=True)
class Clip:
    """What to render, furnished from paths of .sh3f files. The video loops: the last frame leads back to the first."""

    furniture: tuple[str, ...]
    seed: int = 0
    seconds: float = 8.0
    fps: float = 15.0
    height: int = 240
    width: int = 320

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}; give a whole number from 0 up, for example --seed 0")
        if not (1 <= self.fps <= 120 and 0 < self.seconds <= 600 and self.frames >= 2):
            raise ConfigError(
                f"{self.seconds:g} seconds at {self.fps:g} frames/s cannot be made; give 1 to 120 frames/s and up to "
                "600 seconds with at least two frames, for example --seconds 8 --fps 15"
            )
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in (self.height, self.width)):
            raise ConfigError(
                f"the size is {self.height}x{self.width}; each side must be {MIN_SIDE} to {MAX_SIDE} pixels, "
                "for example --size 240x320"
            )

    @property
    def frames(self) -> int:
        return round(self.seconds * self.fps)


@dataclass(frozen=True)
class Path3D:
    """An ellipse for the eye in a room of the home, and a direction about which the gaze swings."""

    centre: tuple[float, float, float]
    half_x: float
    half_y: float
    bob: float
    heading: float
    room: int

    def camera(self, turn: float) -> Eye:
        """The camera at 0 <= turn < 1 of the loop."""
        t = 2 * np.pi * turn
        x, y, z = self.centre
        x, y = x + self.half_x * float(np.cos(t)), y + self.half_y * float(np.sin(t))
        eye = (x, y, z + self.bob * float(np.sin(2 * t)))
        yaw = self.heading + SWING * float(np.sin(t))
        pitch = -0.2 + 0.06 * float(np.cos(t))
        return Eye(eye, (eye[0] + float(np.cos(yaw)), eye[1] + float(np.sin(yaw)), eye[2] + pitch), FOV, room=self.room)


def _directions() -> NDArray[np.float32]:
    """Directions spread over the sphere (Fibonacci lattice), float32 [64, 3]."""
    k = np.arange(64) + 0.5
    z, turn = 1 - k / 32, k * np.pi * (1 + 5**0.5)
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], 1).astype(np.float32)


def room_to_spare(world: World, path: Path3D, points: int = 48) -> float:
    """Least distance in metres from the path to any surface; 0 if the path passes through one."""
    eyes = np.array([path.camera(k / points).eye for k in range(points)], np.float32)
    step = np.roll(eyes, -1, 0) - eyes
    if world.blocked(eyes, step, np.ones(points, np.float32)).any():
        return 0.0
    around = _directions()
    rays = np.tile(around, (points, 1))
    return float(world.cast(np.repeat(eyes, len(around), 0), rays).distance.min())


def find_path(home: Home, world: World, rng: np.random.Generator) -> Path3D:
    """Draw ellipses, the large ones first, and take the first few that are clear; of these the one with most to see."""
    found: list[tuple[float, Path3D]] = []
    number = max(range(len(home.rooms)), key=lambda k: _area(home, k))
    room = home.rooms[number]
    for attempt in range(600):
        reach = 0.32 * (1 - attempt / 600) + 0.02
        half_x, half_y = (float(rng.uniform(0.6, 1.0)) * reach * s for s in (room.x1 - room.x0, room.y1 - room.y0))
        x = float(rng.uniform(room.x0 + half_x + CLEARANCE, room.x1 - half_x - CLEARANCE))
        y = float(rng.uniform(room.y0 + half_y + CLEARANCE, room.y1 - half_y - CLEARANCE))
        start = Path3D((x, y, float(rng.uniform(1.25, 1.7))), half_x, half_y, 0.06, 0.0, number)
        if any(f.distance(x + half_x, y) <= 0 for f in home.footprints if f.solid):
            continue  # may begin inside a large object, which rays from within would not tell
        if room_to_spare(world, start) < CLEARANCE:
            continue
        for heading in np.linspace(0, 2 * np.pi, 8, endpoint=False):
            path = replace(start, heading=float(heading))
            worth = [judge(world, path.camera(turn)) for turn in np.linspace(0, 1, 8, endpoint=False)]
            views = [-2.0 if w is None else w for w in worth]
            found.append((float(np.mean(views) + min(views)), path))  # not one frame of bare wall
        if len(found) >= 12 * 8:
            break
    if not found:
        raise DataError("the camera finds no clear path through this home; give another --seed")
    return max(found, key=lambda pair: pair[0])[1]


def _area(home: Home, room: int) -> float:
    place = home.rooms[room]
    return (place.x1 - place.x0) * (place.y1 - place.y0)


@lru_cache(maxsize=1)
def _setting(furniture: tuple[str, ...], seed: int) -> tuple[Home, World, Path3D]:
    made, world = home(furniture, seed, 0)
    return made, world, find_path(made, world, np.random.default_rng(np.random.SeedSequence([seed, 4])))


def clip_frame(clip: Clip, number: int) -> NDArray[np.uint8]:
    """One frame as RGB, uint8 [H, W, 3]."""
    made, world, path = _setting(clip.furniture, clip.seed)
    # The same numbers for every frame: the camera is one, and what noise is left in the light does not flicker.
    rng = np.random.default_rng(np.random.SeedSequence([clip.seed, 5]))
    return render(world, made.lights, path.camera(number / clip.frames), (clip.height, clip.width), rng).rgb


def clip_frames(clip: Clip, workers: int = 1) -> Iterator[NDArray[np.uint8]]:
    """The frames in order."""
    if workers < 1:
        raise ConfigError(f"the number of workers is {workers}; give at least 1, for example --workers 2")
    if workers == 1:
        for number in range(clip.frames):
            yield clip_frame(clip, number)
        return
    from edgemtl.data.workers import pool

    with pool(workers) as processes:
        yield from processes.map(clip_frame, [clip] * clip.frames, range(clip.frames))


def write_clip(clip: Clip, out: Path, workers: int = 1, report: Callable[[int], None] | None = None) -> Path:
    """Write a video (.mp4 or .avi) or, if `out` has no ending, a folder of PNG frames. Returns what was written.

    Where OpenCV has no MPEG-4 encoder the video becomes Motion-JPEG in an .avi beside the wanted name.
    """
    tell = report or (lambda _: None)
    if out.suffix.lower() not in ("", *VIDEO_CODES):
        raise ConfigError(f"{out} ends in {out.suffix!r}; give a name ending in .mp4 or .avi, or a folder")
    if out.suffix == "":
        return _write_images(clip, out, workers, tell)
    if out.is_dir():
        raise DataError(f"{out} is a folder; give the name of a video file")
    writer, beside, out = _open_video(clip, out)
    try:
        for frame in clip_frames(clip, workers):
            writer.write(np.ascontiguousarray(frame[..., ::-1]))
            tell(1)
        writer.release()
        os.replace(beside, out)
    except OSError as error:
        raise disk_error(out, error) from error
    finally:
        writer.release()
        beside.unlink(missing_ok=True)
    return out


def _open_video(clip: Clip, out: Path) -> tuple[Any, Path, Path]:
    """An open encoder, the file it writes to, and the name that the file gets in the end."""
    import cv2

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(out.parent, error) from error
    for suffix in dict.fromkeys((out.suffix.lower(), ".avi")):
        beside = out.absolute().with_name(f".{out.stem}.{os.getpid()}.tmp{suffix}")
        code = cv2.VideoWriter.fourcc(*VIDEO_CODES[suffix])
        writer = cv2.VideoWriter(str(beside), code, clip.fps, (clip.width, clip.height))
        if writer.isOpened():
            return writer, beside, out if suffix == out.suffix.lower() else out.with_suffix(suffix)
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    raise DataError(f"{out} cannot be written as a video; give a place that you may write to, or a folder for images")


def _write_images(clip: Clip, out: Path, workers: int, tell: Callable[[int], None]) -> Path:
    import cv2

    from edgemtl.data.rooms.write import write_atomic

    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; give a folder for the images or a name that ends in .mp4")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(out, error) from error
    for number, frame in enumerate(clip_frames(clip, workers)):
        write_atomic(out / f"{number:05d}.png", cv2.imencode(".png", frame[..., ::-1])[1].tobytes())
        tell(1)
    return out
