"""A camera's frame that lies on the GPU, resized and normalised there, as `edgemtl.media.preprocess` does with OpenCV.

Which source pixels an output pixel is made of, and with what weights, is settled here, on the host, once for each size
of frame; the kernel (edgemtl_compiler/cuda/kernels/preprocess.h) only multiplies and adds. Weights, the order of sums
and rounding are OpenCV's (modules/imgproc/src/resize.cpp), so the input is, bit for bit, that of the CPU's path where
OpenCV runs its own code; builds of it with a vendor's resizing code (ARM's, say) may differ by a level of 255.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgemtl.bundle.manifest import Preprocess
from edgemtl.errors import FrameError
from edgemtl.media.preprocess import MAX_SIDE, Colour, Geometry, Preprocessor, check_colour
from edgemtl.runtime.cuda.dlpack import View
from edgemtl.runtime.cuda.driver import Argument, Driver

KERNEL = "prepare"
METHODS = ("linear", "mean", "area")  # by the kernel's numbers of them
KEPT_SIZES = 4  # of frames, whose tables stay on the device
_THREADS = 128

Ints = np.ndarray[Any, np.dtype[np.int32]]


class Taps(NamedTuple):
    """One axis: output i is made of source pixels `first[i]`, `first[i]` + 1, … with `weights[i]`, of any number."""

    first: list[int]
    weights: list[list[float]]

    def table(self) -> Ints:
        """As the kernel reads it: `first`, where each one's weights begin (and the last one's end), the weights."""
        begin = np.cumsum([0, *map(len, self.weights)])
        weights = np.array([w for some in self.weights for w in some], np.float32)
        return np.concatenate([np.array(self.first), begin, weights.view(np.int32)]).astype(np.int32)


def linear(size: int, count: int, *, across: bool) -> Taps:
    """From `size` pixels to `count`, each between two neighbours, whose weights are parts of 2048.

    across: beyond the outer pixels' centres only the outer pixel counts; down a column the same pixel counts twice,
    which is rounded a little otherwise.
    """
    at = ((np.arange(count) + 0.5) * _scale(size, count) - 0.5).astype(np.float32)
    first = np.floor(at)
    part = at - first
    if across:
        part[(first < 0) | (first >= size - 1)] = 0
        first = np.clip(first, 0, size - 1)
    pairs = np.rint(2048 * np.stack([np.float32(1) - part, part], 1))
    return Taps(first.astype(int).tolist(), pairs.tolist())


def mean(size: int, count: int) -> Taps:
    """From `size` pixels to `count`, of which it is a multiple; the kernel needs no weights."""
    many = size // count
    return Taps(list(range(0, size, many)), [[1.0] * many] * count)


def area(size: int, count: int) -> Taps:
    """From `size` pixels to fewer, `count`: each pixel counts by how much of it the output pixel covers."""
    scale = _scale(size, count)
    taps = Taps([], [])
    for i in range(count):
        begin = i * scale
        end = begin + scale
        cell = min(scale, size - begin)
        last = min(int(np.floor(end)), size - 1)
        whole = min(int(np.ceil(begin)), last)
        before, after = whole - begin, end - last
        weights = [1 / cell] * (last - whole)
        if before > 1e-3:
            weights.insert(0, before / cell)
        if after > 1e-3:
            weights.append(min(after, 1, cell) / cell)
        taps.first.append(whole - (before > 1e-3))
        taps.weights.append(weights)
    return taps


def taps(place: Geometry) -> tuple[str, Taps, Taps]:
    """How a frame gets to its place: the method, and the taps of rows and of columns."""
    (high, wide), size = place.frame, (place.height, place.width)
    if not place.shrinks:
        return "linear", linear(high, size[0], across=False), linear(wide, size[1], across=True)
    scales = _scale(high, size[0]), _scale(wide, size[1])
    if all(abs(s - round(s)) < np.finfo(float).eps for s in scales):
        return "mean", mean(high, size[0]), mean(wide, size[1])
    return "area", area(high, size[0]), area(wide, size[1])


def _scale(size: int, count: int) -> float:
    """Source pixels per output pixel, by OpenCV's two divisions."""
    return 1 / (count / size)


@dataclass(frozen=True)
class _Tables:
    """Of one size of frame: one allocation, which begins with the rows' table."""

    place: Geometry
    method: int
    rows: int
    columns: int


class Prepare:
    """The kernel with its tables; `input` is the device address of the network's input, float32 [1, 3, H, W]."""

    def __init__(self, driver: Driver, sizes: Preprocessor, settings: Preprocess, input: int) -> None:
        self._driver, self._sizes, self._settings, self._input = driver, sizes, settings, input
        self._levels = 0
        self._tables: dict[tuple[int, int], _Tables] = {}

    def submit(self, kernel: Callable[[], int], frame: View, colour: Colour, stream: int) -> Geometry:
        """Submit the way of `frame`, uint8 [H, W, 3] of any strides, into the input; tells where it lies in it.

        Raises FrameError for a size that cannot be a frame's.
        """
        check_colour(colour)
        high, wide, _ = frame.shape
        if not 0 < min(high, wide) <= max(high, wide) <= MAX_SIDE:
            raise FrameError(f"the frame has shape {frame.shape}; a side must have 1 to {MAX_SIDE} pixels")
        function = kernel()
        tables = self._for((high, wide), stream)
        place, (down, right, next) = tables.place, frame.strides
        start = frame.address
        if colour == "bgr":
            start, next = start + 2 * next, -next
        height, width = self._sizes.input.shape[2:]
        args: list[Argument] = [ctypes.c_uint64(v) for v in (start, down, right, next)]
        args += [ctypes.c_int32(high), ctypes.c_int32(wide)]
        args += [ctypes.c_uint64(v) for v in (tables.rows, tables.columns, self._levels, self._input)]
        numbers = (height, width, place.top, place.left, place.height, place.width, tables.method, self._settings.fill)
        args += [ctypes.c_int32(v) for v in numbers]
        self._driver.launch(function, (-(-height * width // _THREADS), 1, 1), _THREADS, 0, stream, args)
        return place

    def close(self) -> None:
        """Give the tables back."""
        for size in list(self._tables):
            self._drop(size)
        if self._levels:
            self._driver.free(self._levels)
            self._levels = 0

    def _for(self, size: tuple[int, int], stream: int) -> _Tables:
        if not self._levels:
            self._levels = self._put(self._sizes.levels(), stream)
        if size not in self._tables:
            if len(self._tables) >= KEPT_SIZES:
                self._driver.synchronize(stream)
                self._drop(next(iter(self._tables)))
            place = self._sizes.geometry(size)
            method, rows, columns = taps(place)
            tables = rows.table(), columns.table()
            address = self._put(np.concatenate(tables), stream)
            self._tables[size] = _Tables(place, METHODS.index(method), address, address + tables[0].nbytes)
        return self._tables[size]

    def _drop(self, size: tuple[int, int]) -> None:
        self._driver.free(self._tables.pop(size).rows)

    def _put(self, array: np.ndarray[Any, Any], stream: int) -> int:
        address = self._driver.alloc(array.nbytes)
        self._driver.upload(address, array.ctypes.data, array.nbytes, stream)
        self._driver.synchronize(stream)
        return address
