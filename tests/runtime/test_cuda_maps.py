"""Maps that stay on the (emulated) GPU: whose they are, who waits for whom, and when their memory is used again.

A stream of the emulation does nothing before somebody waits for it, so a wait that is missing shows as wrong values;
where a test shows that it would, it says "without".
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgemtl.errors import BackendError, FrameError
from edgemtl.runtime.cuda import dlpack
from edgemtl.runtime.cuda.driver import Driver
from edgemtl.runtime.cuda.maps import KEPT_BUFFERS, DeviceMap

SHAPE = (1, 8, 16)
IMAGES = np.random.default_rng(3).integers(0, 256, (3, 40, 70, 3), np.uint8)


class Consumer:
    """What PyTorch does with a capsule: takes the tensor out of it, and calls its deleter in the end."""

    _ends = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    _rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_SetName", ctypes.pythonapi)
    )

    def __init__(self, given: Any, stream: Any = None, **options: Any) -> None:
        self.take(given.__dlpack__(stream=stream, **options))

    def take(self, capsule: Any) -> None:
        found = dlpack.described(capsule)  # raises ValueError for a capsule that somebody has taken it out of
        self.place = (found.device, found.number)
        self.shape = tuple(found.shape[i] for i in range(found.ndim))
        self.address = found.data + found.offset
        self.number = (found.code, found.bits, found.lanes)
        self._struct = ctypes.addressof(found)
        self._rename(capsule, b"used_dltensor")

    def drop(self) -> None:
        after = self._struct + ctypes.sizeof(dlpack._Tensor)  # manager_ctx, deleter
        deleter = ctypes.c_void_p.from_address(after + ctypes.sizeof(ctypes.c_void_p)).value
        self._ends(deleter)(self._struct)


class Reader:
    """Another library's stream, in which it copies a tensor to where the test can see it."""

    def __init__(self) -> None:
        self.gpu = Driver()
        self.stream = self.gpu.stream()
        self._seen = self.gpu.pinned(4 * int(np.prod(SHAPE)))

    def submit(self, address: int) -> None:
        self.gpu.download(self._seen.ctypes.data, address, self._seen.nbytes, self.stream)

    def seen(self) -> Any:
        self.gpu.synchronize(self.stream)
        return self._seen.view(np.float32).reshape(SHAPE).copy()

    def close(self) -> None:
        self.gpu.end_stream(self.stream)
        self.gpu.free_pinned(self._seen)


@pytest.fixture
def reader(gpu16: Any) -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


@pytest.fixture
def depth(load: Any) -> Any:
    return load("depth")


def buffers(engine: Any) -> tuple[int, int]:
    """Free and lent ones."""
    pool = engine._runner._maps
    return len(pool._free.get("depth", ())), pool._lent


def test_they_are_the_maps_that_come_to_the_host(load: Any) -> None:
    engine = load("depth", "normals")
    for image in IMAGES:
        want, got = engine.raw(image), engine.raw(image, on_device=True)
        assert list(got) == ["depth", "normals"]
        for task, held in got.items():
            assert isinstance(held, DeviceMap)
            assert held.__dlpack_device__() == (2, 0)
            assert (held.shape, held.dtype) == (want[task].shape, np.float32)
            np.testing.assert_array_equal(held.numpy(), want[task])
    assert repr(got["depth"]) == "<DeviceMap float32 (1, 8, 16) on GPU 0>"


def test_no_map_goes_to_the_host(depth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[int] = []
    monkeypatch.setattr(Driver, "download", lambda *_: copies.append(1))
    depth.raw(IMAGES[0], on_device=True)
    assert copies == []
    depth.activate("edge")  # makes the graph of frames whose map goes to the host
    assert copies == [1]


def test_the_call_does_not_wait_for_the_frame_but_for_the_image(depth: Any, gpu16: Any) -> None:
    want, gpu, stream = depth.raw(IMAGES[0])["depth"], Driver(), Driver().stream()
    done = gpu16.launches("to_map")
    place = gpu.alloc(IMAGES[0].nbytes)
    gpu.upload(place, IMAGES[0].ctypes.data, IMAGES[0].nbytes, stream)

    class Frame:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, *, stream: int) -> Any:
            event = gpu.event()
            gpu.record(event, self.stream)
            gpu.wait(stream, event)
            gpu.end_event(event)
            view = np.ctypeslib.as_array((ctypes.c_uint8 * IMAGES[0].size).from_address(place))
            capsule = view.reshape(IMAGES[0].shape).__dlpack__()
            found = dlpack.described(capsule)
            found.device, found.number = 2, 0
            return capsule

    Frame.stream = stream  # type: ignore[attr-defined]
    held = depth.raw(Frame(), on_device=True)["depth"]
    assert gpu16.launches("to_map") == done
    gpu.upload(place, IMAGES[1].ctypes.data, IMAGES[1].nbytes, stream)  # the image's memory is its owner's again
    gpu.synchronize(stream)
    assert gpu16.launches("to_map") == done
    np.testing.assert_array_equal(held.numpy(), want)
    assert gpu16.launches("to_map") == done + 1
    gpu.free(place)


@pytest.mark.parametrize("named", ["its own", None, 1, 2])
def test_the_consumers_stream_waits_for_the_frame(depth: Any, reader: Reader, named: Any) -> None:
    want = depth.raw(IMAGES[0])["depth"]
    if named != "its own":
        reader.gpu.end_stream(reader.stream)
        reader.stream = named or 1
    held = depth.raw(IMAGES[0], on_device=True)["depth"]
    taken = Consumer(held, None if named is None else reader.stream)
    assert (taken.place, taken.shape, taken.number) == ((2, 0), SHAPE, (2, 32, 1))
    reader.submit(taken.address)
    np.testing.assert_array_equal(reader.seen(), want)
    taken.drop()
    if named != "its own":
        reader.stream = reader.gpu.stream()


def test_without_its_wait_it_sees_something_else(depth: Any, reader: Reader) -> None:
    held = depth.raw(IMAGES[0], on_device=True)["depth"]
    taken = Consumer(held, -1)
    reader.submit(taken.address)
    assert np.isnan(reader.seen()).all()
    taken.drop()


def test_a_map_that_is_held_never_changes(depth: Any) -> None:
    want = [depth.raw(image)["depth"] for image in IMAGES]
    held = [depth.raw(image, on_device=True)["depth"] for image in IMAGES]
    taken = [Consumer(h) for h in held]
    del held
    depth.raw(IMAGES[0])
    assert buffers(depth) == (0, 3)
    for t, w in zip(taken, want, strict=True):
        seen = np.ctypeslib.as_array((ctypes.c_float * w.size).from_address(t.address))
        np.testing.assert_array_equal(seen, w.ravel())
        t.drop()
    assert buffers(depth) == (3, 0)


def test_memory_and_graph_of_a_map_that_is_gone_are_used_again(depth: Any, gpu16: Any) -> None:
    addresses, sizes = set(), set()
    for i in range(12):
        held = depth.raw(IMAGES[i % 3], on_device=True)["depth"]
        addresses.add(held._lease.buffer.address)
        del held
        sizes.add(gpu16.bytes)
    assert len(addresses) == len(sizes) == 1
    assert len(depth._runner._frames._graphs) == 2  # the other's maps go to the host


def test_free_buffers_do_not_pile_up(depth: Any, gpu16: Any) -> None:
    want = depth.raw(IMAGES[1])["depth"]
    held = [depth.raw(IMAGES[1], on_device=True)["depth"] for _ in range(20)]  # more than there are graphs
    assert all(np.array_equal(h.numpy(), want) for h in held)
    before = gpu16.bytes
    held.clear()
    assert buffers(depth) == (KEPT_BUFFERS, 0)
    assert gpu16.bytes == before - (20 - KEPT_BUFFERS) * want.nbytes


@pytest.mark.parametrize("tells", [True, False])
def test_a_frame_waits_for_who_still_reads_a_dropped_tensor(depth: Any, reader: Reader, tells: bool) -> None:
    want = [depth.raw(image)["depth"] for image in IMAGES[:2]]
    held = depth.raw(IMAGES[0], on_device=True)["depth"]
    address = held._lease.buffer.address
    held.numpy()  # the frame is over
    taken = Consumer(held, reader.stream if tells else -1)
    del held
    reader.submit(address)
    taken.drop()
    again = depth.raw(IMAGES[1], on_device=True)["depth"]
    assert again._lease.buffer.address == address
    np.testing.assert_array_equal(again.numpy(), want[1])
    np.testing.assert_array_equal(reader.seen(), want[0] if tells else want[1])  # without a stream, nobody waits


def test_a_reader_whose_stream_has_ended(depth: Any, gpu16: Any) -> None:
    """Nothing tells when it is done, so the memory is given back, for which the driver waits for the whole GPU."""
    gpu = Driver()
    stream = gpu.stream()
    taken = Consumer(depth.raw(IMAGES[0], on_device=True)["depth"], stream)
    assert buffers(depth) == (0, 1)
    before = gpu16.bytes
    gpu.end_stream(stream)
    taken.drop()
    assert buffers(depth) == (0, 0)
    assert gpu16.bytes == before - 4 * np.prod(SHAPE)


def test_a_threads_own_stream_is_not_another_threads(depth: Any) -> None:
    taken = [Consumer(depth.raw(IMAGES[0], on_device=True)["depth"], 2) for _ in range(2)]
    thread = threading.Thread(target=taken[0].drop)
    thread.start()
    thread.join()
    assert buffers(depth) == (0, 1)  # nothing tells that it is done
    taken[1].drop()
    assert buffers(depth) == (1, 0)


def test_tensors_may_be_dropped_in_any_thread(depth: Any) -> None:
    want = depth.raw(IMAGES[2])["depth"]
    taken = [Consumer(depth.raw(IMAGES[2], on_device=True)["depth"]) for _ in range(4)]
    threads = [threading.Thread(target=t.drop) for t in taken]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert buffers(depth) == (4, 0)
    np.testing.assert_array_equal(depth.raw(IMAGES[2], on_device=True)["depth"].numpy(), want)


def test_a_map_outlives_its_engine(depth: Any, gpu16: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    close = Driver.close
    want = depth.raw(IMAGES[0])["depth"]
    held = depth.raw(IMAGES[0], on_device=True)["depth"]
    monkeypatch.setattr(Driver, "close", lambda self: (ended.append(1), close(self)))
    depth.close()
    assert not ended  # the GPU's context must live as long as the map
    np.testing.assert_array_equal(held.numpy(), want)
    taken = Consumer(held)
    before = gpu16.bytes
    del held
    assert gpu16.bytes == before
    taken.drop()
    assert gpu16.bytes == before - want.nbytes
    assert ended == [1]


def test_leaving_a_task_gives_its_buffers_back(load: Any, gpu16: Any) -> None:
    engine = load("depth", "normals")
    held = engine.raw(IMAGES[0], on_device=True)
    want, pool = held["depth"].numpy(), engine._runner._maps
    kept = held["depth"]
    del held
    assert sorted(pool._free) == ["depth", "normals"]
    engine.activate("edge")
    assert pool._free == {}
    np.testing.assert_array_equal(kept.numpy(), want)
    before = gpu16.bytes
    del kept
    assert (pool._free, pool._lent, gpu16.bytes) == ({}, 0, before - want.nbytes)


def test_weights_of_a_task_that_was_left_go_though_no_map_comes_to_the_host(load: Any, gpu16: Any) -> None:
    engine = load("depth", "semseg")
    engine.raw(IMAGES[0], on_device=True)
    engine.activate("depth")
    before = gpu16.bytes
    held = engine.raw(IMAGES[0], on_device=True)
    assert gpu16.bytes <= before - engine.switches[-1].dropped + held["depth"]._lease.buffer.size + 1024


def test_no_room_for_a_map(depth: Any, gpu16: Any) -> None:
    held = depth.raw(IMAGES[0], on_device=True)["depth"]
    want = held.numpy()
    gpu16.limit(gpu16.bytes + 100)
    try:
        with pytest.raises(BackendError, match="the GPU refuses 512 bytes of GPU memory: out of memory"):
            depth.raw(IMAGES[1], on_device=True)
    finally:
        gpu16.limit(8 << 30)
    del held
    np.testing.assert_array_equal(depth.raw(IMAGES[0], on_device=True)["depth"].numpy(), want)
    assert buffers(depth) == (1, 0)


class TestCapsules:
    def test_one_is_taken_once(self, depth: Any) -> None:
        held = depth.raw(IMAGES[0], on_device=True)["depth"]
        capsule = held.__dlpack__()
        taken = Consumer.__new__(Consumer)
        taken.take(capsule)
        with pytest.raises(ValueError, match="incorrect name"):
            taken.take(capsule)
        another = Consumer(held)  # but the map may be handed over again
        assert another.address == taken.address
        del held, capsule
        taken.drop()
        assert buffers(depth) == (0, 1)
        another.drop()
        assert buffers(depth) == (1, 0)

    def test_one_that_nobody_takes(self, depth: Any) -> None:
        with pytest.raises(TypeError, match="PyCapsule"):  # and its end does not swallow an error on its way
            int(depth.raw(IMAGES[0], on_device=True)["depth"].__dlpack__())
        assert buffers(depth) == (1, 0)

    def test_what_consumers_may_ask_for(self, depth: Any) -> None:
        held = depth.raw(IMAGES[0], on_device=True)["depth"]
        Consumer(held, 1, max_version=(1, 1), dl_device=(2, 0), copy=False).drop()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"copy": True}, "copy the tensor that you make of it"),
            ({"dl_device": (1, 0)}, r"for a NumPy array call DeviceMap\.numpy"),
            ({"stream": 0}, "stream must be None, -1, 1, 2 or the address of a CUDA stream, not 0"),
            ({"stream": -2}, "not -2"),
            ({"stream": True}, "not True"),
            ({"stream": "s"}, "not 's'"),
        ],
    )
    def test_what_they_may_not(self, depth: Any, options: dict[str, Any], message: str) -> None:
        held = depth.raw(IMAGES[0], on_device=True)["depth"]
        with pytest.raises(BufferError, match=message):
            held.__dlpack__(**options)

    def test_numpy_is_told_what_to_call(self, depth: Any) -> None:
        with pytest.raises(BufferError, match=r"call DeviceMap\.numpy"):
            np.from_dlpack(depth.raw(IMAGES[0], on_device=True)["depth"], device="cpu")

    def test_tvms_tensors(self, depth: Any) -> None:
        ffi = pytest.importorskip("tvm_ffi")
        tensor = ffi.from_dlpack(depth.raw(IMAGES[0], on_device=True)["depth"])
        assert (tuple(tensor.shape), str(tensor.dtype), str(tensor.device)) == (SHAPE, "float32", "cuda:0")
        assert buffers(depth) == (0, 1)
        del tensor
        assert buffers(depth) == (1, 0)


def test_out_is_for_the_host(depth: Any) -> None:
    with pytest.raises(FrameError, match="out is for maps that come to the host"):
        depth.raw(IMAGES[0], on_device=True, out={"depth": np.empty(SHAPE, np.float32)})
