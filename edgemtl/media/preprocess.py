"""From a camera's frame to the network's input, and the geometry that leads back.

A frame is uint8 [H, W, 3] of any size from 1x1 to MAX_SIDE, contiguous or not. It is resized (or letterboxed) with
OpenCV while it is still bytes, then split into planes and normalised in place: two passes over the small image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from edgemtl.bundle.manifest import Preprocess
from edgemtl.config import ModelConfig
from edgemtl.errors import FrameError

MAX_SIDE = 16384
Colour = Literal["rgb", "bgr"]
Array = np.ndarray[Any, np.dtype[np.float32]]
Image = np.ndarray[Any, np.dtype[np.uint8]]

_NEED = "edgemtl needs a uint8 array [height, width, 3]"


@dataclass(frozen=True)
class Geometry:
    """Where the frame lies in the input: `top`, `left`, `height`, `width` in input pixels; `frame` its own (H, W)."""

    frame: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def shrinks(self) -> bool:
        """Whether the frame gets smaller both ways, and so pixels are averaged; else they are interpolated."""
        return self.height < self.frame[0] and self.width < self.frame[1]

    def cut(self, raw: Array, stride: int) -> Array:
        """The part of a raw map [channels, h, w], with cells of `stride` input pixels, that covers the frame."""
        top, left = self.top // stride, self.left // stride
        return raw[:, top : top + self.height // stride, left : left + self.width // stride]


def check_frame(frame: object) -> Image:
    """The frame as it is, if it can be one; raises FrameError saying what was given, what is needed, what to type."""
    if not isinstance(frame, np.ndarray):
        given = "None: did the camera or file give no frame?" if frame is None else f"a {type(frame).__name__}"
        hint = "" if frame is None else "; try numpy.asarray(frame)"
        raise FrameError(f"the frame is {given}{' ' if frame is None else ', but '}{_NEED}{hint}")
    if masked(frame):
        raise FrameError(f"the frame is a masked array, and its mask would be ignored; {_NEED}: try frame.filled(0)")
    if frame.ndim == 2:
        raise FrameError(
            f"the frame is grey, shape {frame.shape}, but {_NEED}; try cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) first"
        )
    if frame.ndim != 3 or frame.shape[2] != 3:
        hint = "; try frame[0]" if frame.ndim == 4 else "; try frame[:, :, :3]" if frame.shape[-1:] == (4,) else ""
        if frame.ndim == 3 and frame.shape[0] == 3:
            hint = "; try frame.transpose(1, 2, 0)"
        raise FrameError(f"the frame has shape {frame.shape}, but {_NEED}{hint}")
    if frame.dtype != np.uint8:
        hint = "; for values from 0 to 1 try (frame * 255).astype('uint8')" if frame.dtype.kind == "f" else ""
        raise FrameError(f"the frame is {frame.dtype}, but {_NEED}{hint}")
    if not frame.size:
        raise FrameError(f"the frame is empty, shape {frame.shape}, but {_NEED}")
    if max(frame.shape[:2]) > MAX_SIDE:
        raise FrameError(
            f"the frame has shape {frame.shape}; a side may have at most {MAX_SIDE} pixels: shrink it first"
        )
    return frame


def masked(array: object) -> bool:
    """Whether it is a NumPy array with a mask. Importing numpy.ma to ask would cost every start."""
    return isinstance(array, np.ndarray) and hasattr(array, "mask") and hasattr(array, "filled")


def check_colour(colour: object) -> None:
    """Raises FrameError unless it is an order of channels."""
    if colour not in ("rgb", "bgr"):
        raise FrameError(f"the colour order is 'rgb' or 'bgr', not {colour!r}")


def aligned_zeros(shape: tuple[int, ...]) -> Array:
    """Float32 zeros that begin on a 64-byte boundary: compiled programs load whole vectors, numpy promises 16 bytes."""
    size = 4 * int(np.prod(shape))
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


class Preprocessor:
    """Frames to inputs for one model; its buffers are reused, so each input lasts until the next call."""

    def __init__(self, config: ModelConfig, settings: Preprocess) -> None:
        self._size, self._stride, self._settings = config.image_size, config.head_stride, settings
        self._small = np.empty((*config.image_size, 3), np.uint8)
        self._planes = [np.empty(config.image_size, np.uint8) for _ in range(3)]
        self.input = aligned_zeros((1, 3, *config.image_size))
        std = np.array(settings.std, np.float32)
        self._scale = np.float32(1) / (255 * std)
        self._shift = np.array(settings.mean, np.float32) / std

    def __call__(self, frame: object, colour: Colour) -> tuple[Array, Geometry]:
        """Input [1, 3, H, W], normalised RGB, and where in it the frame lies. Raises FrameError."""
        frame = check_frame(frame)
        check_colour(colour)
        place = self.geometry((frame.shape[0], frame.shape[1]))
        inner = self._small[place.top : place.top + place.height, place.left : place.left + place.width]
        if inner.size < self._small.size:
            self._small[:] = self._settings.fill
        method = cv2.INTER_AREA if place.shrinks else cv2.INTER_LINEAR
        inner[...] = cv2.resize(frame, (place.width, place.height), interpolation=method)
        cv2.split(self._small, self._planes)
        for c, plane in enumerate(self._planes if colour == "rgb" else self._planes[::-1]):
            self._normalise(plane, c, self.input[0, c])
        return self.input, place

    def levels(self) -> Array:
        """What a byte becomes in each channel: float32 [3, 256], R, G, B."""
        table, every = np.empty((3, 256), np.float32), np.arange(256, dtype=np.uint8)
        for c in range(3):
            self._normalise(every, c, table[c])
        return table

    def _normalise(self, plane: Image, channel: int, out: Array) -> None:
        np.multiply(plane, self._scale[channel], out=out, dtype=np.float32)
        np.subtract(out, self._shift[channel], out=out)

    def geometry(self, frame: tuple[int, int]) -> Geometry:
        """Where a frame of (H, W) lies in the input.

        A letterboxed frame's place is rounded to whole cells of the raw map, so that undoing it is a plain crop; its
        shape changes by half a cell at most.
        """
        height, width = self._size
        if self._settings.mode == "resize":
            return Geometry(frame, 0, 0, height, width)
        scale, s = min(height / frame[0], width / frame[1]), self._stride
        high = min(height, max(s, round(frame[0] * scale / s) * s))
        wide = min(width, max(s, round(frame[1] * scale / s) * s))
        return Geometry(frame, (height - high) // 2 // s * s, (width - wide) // 2 // s * s, high, wide)
