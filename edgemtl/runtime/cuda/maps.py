"""Maps that stay on the GPU: each is the memory that a frame wrote, lent to whoever asks for it by DLPack.

A buffer belongs to one map until nobody holds the map or a tensor made of it; only then a later frame may write it
again. So a map never changes while it is held, and holding one costs its bytes. DLPack does not tell when a consumer's
kernels are done with a tensor that has been dropped; so when the last holder goes, an event in the stream that the
consumer had named marks everything submitted there, and the next frame that writes the buffer waits for it, on the GPU.

The capsules are NumPy's own: an array over the device's address is made, which NumPy never looks into, and its DLPack
struct is told to lie on the GPU. Its deleter is C code that may run in any thread and after the interpreter has ended.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgemtl.runtime.cuda import dlpack
from edgemtl.runtime.cuda.driver import Driver

KEPT_BUFFERS = 4  # of each task, waiting for a frame
LEGACY, PER_THREAD = 1, 2  # CUDA's numbers of streams: of the one that a consumer means who names none, of a thread's

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class _Buffer:
    """Device memory for one map. `written`: the frame that wrote it is over; `read`: events that must have come before
    it is written again; `lost`: a reader's stream cannot be asked any more.
    """

    address: int
    size: int
    written: int
    read: list[int] = field(default_factory=list)
    lost: bool = False


class Pool:
    """The buffers of all tasks, those lent and those free. Buffers come back from any thread."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._lock = threading.RLock()
        self._free: dict[str, list[_Buffer]] = {}  # of tasks that are in use
        self._lent = 0
        self._closed: Callable[[], None] | None = None

    def take(self, task: str, size: int, stream: int) -> Lease:
        """A buffer that `stream` may write from now on: one that came back, or a new one. Raises BackendError."""
        with self._lock:
            free = self._free.setdefault(task, [])
            buffer = free.pop() if free else _Buffer(self.driver.alloc(size), size, self.driver.event())
            self._lent += 1
        lease = Lease(self, task, buffer)
        while buffer.read:
            event = buffer.read.pop()
            self.driver.wait(stream, event)
            self.driver.end_event(event)
        return lease

    def back(self, task: str, buffer: _Buffer) -> None:
        """Nobody holds the buffer any more."""
        with self._lock:
            self._lent -= 1
            free = self._free.get(task)
            if free is not None and not buffer.lost and len(free) < KEPT_BUFFERS:
                free.append(buffer)
                return
            self._end(buffer)
            if self._closed and not self._lent:
                self._closed()

    def forget(self, task: str) -> None:
        """The task is not in use now: its free buffers go, others when they come back."""
        with self._lock:
            for buffer in self._free.pop(task, []):
                self._end(buffer)

    def close(self, after: Callable[[], None]) -> None:
        """Give everything back, and then call `after`; maps that are held live on, and the last one calls it."""
        with self._lock:
            for task in list(self._free):
                self.forget(task)
            if self._lent:
                self._closed = after
            else:
                after()

    def _end(self, buffer: _Buffer) -> None:
        """Give the memory back when nobody can be reading it any more."""
        with self.driver.entered():
            if buffer.lost:
                self.driver.finish()
            for event in (*buffer.read, buffer.written):
                self.driver.arrived(event)
                self.driver.end_event(event)
            self.driver.free(buffer.address)


class Lease:
    """Keeps a buffer from being written again, for as long as it lives."""

    def __init__(self, pool: Pool, task: str, buffer: _Buffer) -> None:
        self.pool, self.buffer, self._task = pool, buffer, task

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # of a process that ends
            self.pool.back(self._task, self.buffer)


class DeviceMap:
    """One task's raw map in the GPU's memory: float32 [channels, h, w], contiguous.

    `torch.from_dlpack(map)` and `cupy.from_dlpack(map)` make a tensor of this memory, without a copy and without
    waiting: their current stream waits for the frame. The values stay as they are until this object and all such
    tensors are gone, whatever the engine does meanwhile, its end included. A tensor may be dropped while work that
    reads it is still running in the stream that was current when it was made, if that stream still exists (PyTorch's
    do, for ever); work in other streams must be over.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, lease: Lease, shape: tuple[int, ...]) -> None:
        self._lease, self.shape = lease, shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._lease.pool.driver.number

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: bool | None = None
    ) -> Any:
        """A capsule in DLPack's form without versions, which every consumer takes, whatever its `max_version`.

        stream: the consumer's: an address, 1 or None (the legacy default), 2 (the thread's default), or -1, with
        which it waits for nothing, and must itself be done before it drops the tensor. Raises BufferError where the
        consumer asks for a copy, another device or a stream that cannot be.
        """
        if copy:
            raise BufferError("a map on the GPU is handed over as it is; copy the tensor that you make of it")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"a map on the GPU stays there; for a NumPy array call {type(self).__name__}.numpy()")
        if isinstance(stream, bool) or not isinstance(stream, int | None) or stream == 0 or (stream or 1) < -1:
            raise BufferError(f"stream must be None, -1, 1, 2 or the address of a CUDA stream, not {stream!r}")
        driver, buffer = self._lease.pool.driver, self._lease.buffer
        stream = LEGACY if stream is None else stream
        if stream != -1:
            with driver.entered():
                driver.wait(stream, buffer.written)
        capsule = np.asarray(_Lent(self._lease, self.shape, stream)).__dlpack__()
        struct = dlpack.described(capsule)
        struct.device, struct.number = self.__dlpack_device__()
        return capsule

    def numpy(self) -> Array:
        """A copy in the host's memory, float32 [channels, h, w]; waits for the frame."""
        out = np.empty(self.shape, np.float32)
        driver, buffer = self._lease.pool.driver, self._lease.buffer
        with driver.entered():
            driver.arrived(buffer.written)
            driver.fetch(out.ctypes.data, buffer.address, out.nbytes)
        return out

    def __repr__(self) -> str:
        return f"<DeviceMap float32 {self.shape} on GPU {self._lease.pool.driver.number}>"


class _Lent:
    """What NumPy takes for the owner of the memory, and lets go when the consumer's tensor goes."""

    def __init__(self, lease: Lease, shape: tuple[int, ...], stream: int) -> None:
        self._lease, self._stream, self._thread = lease, stream, threading.get_ident()
        self.__array_interface__ = {
            "version": 3, "shape": shape, "typestr": np.dtype(np.float32).str, "data": (lease.buffer.address, False),
        }  # fmt: skip

    def __del__(self) -> None:
        """Mark the end of what the consumer has submitted so far."""
        if self._stream == -1:
            return
        driver, buffer = self._lease.pool.driver, self._lease.buffer
        if self._stream == PER_THREAD and self._thread != threading.get_ident():
            buffer.lost = True  # the number means another stream here
            return
        try:
            with driver.entered():
                event = driver.event()
                buffer.read.append(event)
                driver.record(event, self._stream)
        except Exception:  # the stream has ended, or the process does
            buffer.lost = True
