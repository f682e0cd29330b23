"""Images that lie on the (emulated) GPU: read where they are, frames resized and normalised there to the very bytes
that OpenCV gives on a CPU.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgemtl.bundle.manifest import Preprocess
from edgemtl.errors import BackendError, FrameError
from edgemtl.media.preprocess import Geometry, Preprocessor
from edgemtl.model.presets import preset
from edgemtl.runtime.cuda import dlpack, prepare
from edgemtl.runtime.cuda.dlpack import View
from edgemtl.runtime.cuda.driver import Driver
from edgemtl.runtime.cuda.prepare import KEPT_SIZES, KERNEL, Prepare

EXACT = platform.machine() == "x86_64"  # OpenCV for ARM has code of ARM's, which rounds otherwise
few = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Tensor:
    """What a library with CUDA tensors would hand over; `changes` are fields of DLPack's struct."""

    def __init__(self, address: int, shape: tuple[int, ...], device: tuple[int, int] = (2, 0), **changes: Any) -> None:
        self.device, self.streams = device, []
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._tensor = dlpack._Tensor(data=address, device=device[0], number=device[1], ndim=len(shape))
        self._tensor.code, self._tensor.bits, self._tensor.lanes = 2, 32, 1
        self._tensor.shape = self._shape
        for name, value in changes.items():
            setattr(self._tensor, name, value)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:
        self.streams.append(stream)
        make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return make(("PyCapsule_New", ctypes.pythonapi))(ctypes.addressof(self._tensor), b"dltensor", None)


class Room:
    """Device memory with arrays in it."""

    def __init__(self) -> None:
        self.gpu = Driver()
        self.stream, self._made = self.gpu.stream(), list[int]()

    def put(self, array: Any) -> int:
        """Where a copy of the array is; of a view, where its first item is in a copy of the whole."""
        whole = array
        while whole.base is not None:
            whole = whole.base
        self._made.append(self.gpu.alloc(whole.nbytes))
        self.gpu.upload(self._made[-1], whole.ctypes.data, whole.nbytes, self.stream)
        self.gpu.synchronize(self.stream)
        return int(self._made[-1] + array.ctypes.data - whole.ctypes.data)

    def frame(self, array: Any) -> Tensor:
        """A uint8 view as a tensor."""
        strides = (ctypes.c_int64 * array.ndim)(*array.strides)
        return Tensor(self.put(array), array.shape, code=1, bits=8, strides=strides)

    def clear(self) -> None:
        for address in self._made:
            self.gpu.free(address)


@pytest.fixture
def room(gpu16: Any) -> Iterator[Room]:
    room = Room()
    yield room
    room.clear()


def pixels(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


VIEWS: dict[str, Callable[[int, int], Any]] = {
    "plain": pixels,
    "rows apart": lambda h, w: pixels(h, w + 5)[:, 2 : w + 2],
    "planes": lambda h, w: np.random.default_rng(1).integers(0, 256, (3, h, w), np.uint8).transpose(1, 2, 0),
    "four channels": lambda h, w: np.random.default_rng(2).integers(0, 256, (h, w, 4), np.uint8)[..., :3],
    "upside down": lambda h, w: pixels(h, w)[::-1, ::-1],
}


class TestFrames:
    """A frame on the device becomes the input that the CPU's path makes of it."""

    @given(
        high=st.integers(1, 90),
        wide=st.integers(1, 90),
        grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        view=st.sampled_from(sorted(VIEWS)),
        colour=st.sampled_from(["rgb", "bgr"]),
        box=st.booleans(),
    )
    @example(high=64, wide=96, grid=(2, 3), view="plain", colour="rgb", box=False)  # means of 2 x 2
    @example(high=96, wide=64, grid=(2, 1), view="planes", colour="rgb", box=False)  # means of 3 x 4
    @example(high=32, wide=48, grid=(2, 3), view="rows apart", colour="bgr", box=False)  # nothing to resize
    @example(high=1, wide=1, grid=(1, 2), view="plain", colour="rgb", box=True)
    @few
    def test_the_same_bytes(
        self, room: Room, high: int, wide: int, grid: tuple[int, int], view: str, colour: Any, box: bool
    ) -> None:
        config = preset("micro", image_size=(16 * grid[0], 16 * grid[1]))
        options = Preprocess(mode="letterbox" if box else "resize", fill=7, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
        frame, host = VIEWS[view](high, wide), Preprocessor(config, options)
        want, place = host(np.ascontiguousarray(frame), colour)
        address = room.gpu.alloc(want.nbytes)
        device = Prepare(room.gpu, Preprocessor(config, options), options, address)
        function = room.gpu.function(0, KERNEL, 0)
        seen = View(room.put(frame), frame.shape, frame.strides, "uint8")
        assert device.submit(lambda: function, seen, colour, room.stream) == place
        got = np.empty_like(want)
        room.gpu.download(got.ctypes.data, address, got.nbytes, room.stream)
        room.gpu.synchronize(room.stream)
        device.close()
        room.gpu.free(address)
        levels = np.abs(got - want)[0] * (255 * np.array(options.std))[:, None, None]
        assert levels.max() <= (0 if EXACT else 1.001)

    @given(size=st.integers(1, 3000), count=st.integers(1, 600))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_weights_are_opencvs(self, size: int, count: int) -> None:
        """Each column's weights, found by resizing a frame that is white in one source column."""
        place = Geometry((2 * size, size), 0, 0, size, count) if count < size else Geometry((1, size), 0, 0, 1, count)
        method, _, columns = prepare.taps(place)
        assert method != "linear" or count >= size
        assert len(columns.first) == len(columns.weights) == count
        whole = 2048 if method == "linear" else 1
        for first, weights in zip(columns.first, columns.weights, strict=True):
            assert first >= 0
            assert first + len(weights) <= size + (method == "linear")
            total = sum(weights) / (len(weights) if method == "mean" else whole)
            assert total == pytest.approx(1, abs=1e-5)
        line = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
        resized = [
            sum(w * int(line[min(first + i, size - 1)]) for i, w in enumerate(some))
            / (len(some) if method == "mean" else whole)
            for first, some in zip(columns.first, columns.weights, strict=True)
        ]
        frame = np.repeat(line[None], place.frame[0], 0)
        how = cv2.INTER_AREA if place.shrinks else cv2.INTER_LINEAR
        want = cv2.resize(frame, (count, place.height), interpolation=how)[0]
        assert np.abs(np.array(resized) - want).max() < 1.01

    def test_through_the_engine(self, load: Any, room: Room) -> None:
        engine = load("depth", "semseg")
        for frame in (pixels(50, 90), pixels(20, 300), VIEWS["planes"](40, 130)):
            host = np.ascontiguousarray(frame)
            for order in ("rgb", "bgr"):
                want, want_raw = engine(host, color=order), engine.raw(host, color=order)
                engine._runner.input.fill(np.nan)  # so that a way over the host would show
                got, raw = engine(room.frame(frame), color=order), engine.raw(room.frame(frame), color=order)
                for task in ("depth", "semseg"):
                    assert got[task].map.shape[:2] == frame.shape[:2]
                    if EXACT:
                        np.testing.assert_array_equal(got[task].map, want[task].map)
                        np.testing.assert_array_equal(raw[task], want_raw[task])
                assert got.timing.preprocess > 0
                assert set(got.timing.run) == {"prefix", "depth", "semseg"}

    def test_one_launch_and_no_copy_of_the_image(self, load: Any, room: Room, gpu16: Any, monkeypatch: Any) -> None:
        engine, frame = load("depth"), room.frame(pixels(50, 90))
        engine(frame)
        sizes: list[int] = []
        monkeypatch.setattr(Driver, "upload", lambda *a: sizes.append(a[3]))
        monkeypatch.setattr(Driver, "download", lambda *a: sizes.append(a[3]))
        before = gpu16.launches(KERNEL)
        engine.raw(frame)  # its graph, which has the map's way to the host, is made already
        assert (gpu16.launches(KERNEL) - before, sizes) == (1, [])

    def test_tables_of_many_sizes_do_not_pile_up(self, load: Any, room: Room, gpu16: Any) -> None:
        engine, frames = load("depth"), [pixels(30 + i, 50) for i in range(KEPT_SIZES + 2)]
        want = [engine.raw(f)["depth"] for f in frames]
        for _ in range(2):
            for f, w in zip(frames, want, strict=True):
                np.testing.assert_allclose(engine.raw(room.frame(f))["depth"], w, rtol=0 if EXACT else 0.1)
        assert len(engine._runner._prepare._tables) == KEPT_SIZES

    def test_a_program_without_the_kernel(self, load: Any, room: Room, monkeypatch: Any) -> None:
        engine, kernel = load("depth"), Driver.function

        def missing(self: Driver, module: int, name: str, shared: int) -> int:
            return kernel(self, module, "no_such_kernel" if name == KERNEL else name, shared)

        monkeypatch.setattr(Driver, "function", missing)
        with pytest.raises(BackendError, match="compiled before frames could be resized on the GPU: compile it again"):
            engine(room.frame(pixels(50, 90)))
        assert engine(pixels(50, 90))["depth"].map.shape == (50, 90)


class TestInputs:
    def test_one_is_read_where_it_lies(self, load: Any, room: Room) -> None:
        image = np.random.default_rng(1).normal(size=(1, 3, 32, 64)).astype(np.float32)
        engine, address = load("depth"), room.put(image)
        want = engine.raw(image)["depth"]
        engine.raw(np.zeros_like(image))
        engine._runner.input.fill(np.nan)  # so that a way over the host would show
        given = Tensor(address, image.shape)
        np.testing.assert_array_equal(engine.raw(given)["depth"], want)
        assert given.streams == [engine._runner._frames.stream]  # which its maker lets wait for the tensor
        out = np.empty_like(want)
        assert engine.raw(given, out={"depth": out})["depth"] is out

    def test_it_is_no_frame(self, load: Any, room: Room) -> None:
        given = Tensor(room.put(np.zeros((1, 3, 32, 64), np.float32)), (1, 3, 32, 64))
        with pytest.raises(FrameError, match=r"an input, normalised already: give it to engine\.raw"):
            load("depth")(given)


NEED = r"; it must be a frame, uint8 \[height, width, 3\], or an input, contiguous float32 of shape \(1, 3, 32, 64\)"


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((1, 3, 32, 32), {}, rf"the image is a float32 CUDA tensor of shape \(1, 3, 32, 32\){NEED}$"),
        ((1, 3, 32, 64), {"bits": 16}, f"a float16 CUDA tensor of shape .*{NEED}"),
        ((1, 3, 32, 64), {"code": 4, "bits": 16}, "a bfloat16 CUDA tensor"),
        ((1, 3, 32, 64), {"code": 99, "bits": 3, "lanes": 2}, "a type 99, 3x2 CUDA tensor"),
        ((1, 3, 32, 64), {"strides": (ctypes.c_int64 * 4)(6144, 1, 192, 3)}, "not contiguous; it must be"),
        ((3, 40, 50), {"code": 1, "bits": 8}, r"a uint8 CUDA tensor.*; try tensor\.permute\(1, 2, 0\)"),
        ((40, 50, 4), {"code": 1, "bits": 8}, r"a uint8 CUDA tensor of shape \(40, 50, 4\); it must be"),
        ((40, 50), {"code": 1, "bits": 8}, r"shape \(40, 50\); it must be a frame"),
        ((0, 50, 3), {"code": 1, "bits": 8}, r"shape \(0, 50, 3\); a side must have 1 to 16384 pixels"),
        ((9, 16385, 3), {"code": 1, "bits": 8}, "a side must have 1 to 16384 pixels"),
        ((1, 3, 32, 64), {"device": (1, 0)}, "the image lies on no CUDA device; it must be a NumPy array or a CUDA"),
        ((1, 3, 32, 64), {"device": (2, 1)}, "the image lies on GPU 1; it must be"),
    ],
)
def test_what_cannot_be_read(load: Any, shape: Any, changes: dict[str, Any], message: str) -> None:
    engine = load("depth")
    with pytest.raises(FrameError, match=message):
        engine.raw(Tensor(256, shape, **changes))
    assert engine.raw(np.zeros((1, 3, 32, 64), np.float32))["depth"].shape == (1, 8, 16)


def test_an_order_that_is_none(load: Any, room: Room) -> None:
    with pytest.raises(FrameError, match="the colour order is 'rgb' or 'bgr', not 'gbr'"):
        load("depth").raw(room.frame(pixels(40, 50)), color="gbr")
