"""NVIDIA's driver, libcuda.so.1, through ctypes: the few calls that running a program takes, and nothing else.

No CUDA toolkit and no CUDA runtime is needed on the device. Every call that fails raises BackendError with the
driver's own words. Handles and device addresses are plain integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from edgemtl.errors import BackendError

LIBRARY = "libcuda.so.1"
NO_DRIVER = f"there is no NVIDIA driver here ({LIBRARY} cannot be loaded): install the driver of your GPU, or JetPack"
NO_GPU = "the NVIDIA driver finds no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES"
_MAJOR, _MINOR, _SHARED = 75, 76, 97  # numbers of device attributes
_SHARED_SIZE = 8  # number of the function attribute: most bytes of dynamic shared memory
_PLAIN_SHARED = 48 << 10  # more must be asked for
_WRONG_CODE = (200, 209, 218, 222)  # errors of code for another GPU, or newer than the driver
_HINT = "; compile for this GPU (edgemtl compile --target cuda --arch …) with an nvcc no newer than its driver"
_NON_BLOCKING, _RELAXED, _EXTERNAL = 1, 2, 1  # stream; capture mode; an event that a graph records for the outside

Argument = ctypes.c_uint64 | ctypes.c_int32 | ctypes.c_float
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@cache
def library(name: str = LIBRARY) -> ctypes.CDLL:
    """The loaded library. Raises OSError where there is none."""
    return ctypes.CDLL(name)


def unusable(name: str | None = None) -> str | None:
    """Why no GPU can be used here; None when one can. `name`: another library than LIBRARY, as below."""
    try:
        lib = library(name or LIBRARY)
    except OSError:
        return NO_DRIVER
    count = ctypes.c_int(0)
    good = lib.cuInit(0) == 0 and lib.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return None if good else NO_GPU


def architecture(number: int = 0, name: str | None = None) -> str:
    """Of a GPU, such as "sm_90". Raises BackendError."""
    if reason := unusable(name):
        raise BackendError(reason)
    lib, device = library(name or LIBRARY), ctypes.c_int()
    if lib.cuDeviceGet(ctypes.byref(device), number):
        raise BackendError(f"there is no GPU number {number}")
    return "sm_" + "".join(str(_attribute(lib, device, which)) for which in (_MAJOR, _MINOR))


def _attribute(lib: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    lib.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


class Driver:
    """One GPU, in this process's primary context, which PyTorch and others share. Use it from one thread at a time;
    a thread that was not the last one calls `enter` first, or is `entered` for a while. enter: at once.
    """

    def __init__(self, number: int = 0, name: str | None = None, *, enter: bool = True) -> None:
        if reason := unusable(name):
            raise BackendError(reason)
        self._lib = library(name or LIBRARY)
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(self._device), number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._context: ctypes.c_void_p | None = context
        self.number, self.arch = number, architecture(number, name)
        self.shared_limit = _attribute(self._lib, self._device, _SHARED)
        text = ctypes.create_string_buffer(128)
        self._call("cuDeviceGetName", text, 128, self._device)
        self.name = text.value.decode(errors="replace")
        if enter:
            self.enter()

    def enter(self) -> None:
        """Make the GPU's context the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The same for a while, in a thread that is another library's, or that has another GPU's context."""
        before = ctypes.c_void_p()
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(before))

    def alloc(self, size: int) -> int:
        """Address of `size` bytes of device memory."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size), what=f"{size} bytes of GPU memory")
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def pinned(self, size: int) -> Bytes:
        """`size` bytes of host memory that the GPU copies from and to by itself; `free_pinned` takes them back."""
        pointer = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(pointer), ctypes.c_size_t(size), 0, what=f"{size} pinned bytes")
        assert pointer.value
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer.value))

    def free_pinned(self, memory: Bytes) -> None:
        self._call("cuMemFreeHost", ctypes.c_void_p(memory.ctypes.data))

    def upload(self, to: int, source: int, size: int, stream: int) -> None:
        """Copy from a host address; it must be pinned for the copy to go on by itself."""
        args = ctypes.c_uint64(to), ctypes.c_void_p(source), ctypes.c_size_t(size), ctypes.c_void_p(stream)
        self._call("cuMemcpyHtoDAsync_v2", *args)

    def download(self, to: int, source: int, size: int, stream: int) -> None:
        args = ctypes.c_void_p(to), ctypes.c_uint64(source), ctypes.c_size_t(size), ctypes.c_void_p(stream)
        self._call("cuMemcpyDtoHAsync_v2", *args)

    def fetch(self, to: int, source: int, size: int) -> None:
        """Copy to a host address, of any memory, and wait for it."""
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(to), ctypes.c_uint64(source), ctypes.c_size_t(size))

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Copy within device memory."""
        args = ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_size_t(size), ctypes.c_void_p(stream)
        self._call("cuMemcpyDtoDAsync_v2", *args)

    def module(self, cubin: bytes) -> int:
        """Load code for this GPU's architecture."""
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), cubin, what="loading the program's kernels")
        return module.value or 0

    def unload(self, module: int) -> None:
        self._call("cuModuleUnload", ctypes.c_void_p(module))

    def function(self, module: int, name: str, shared: int) -> int:
        """A kernel that may use `shared` bytes of dynamic shared memory."""
        function = ctypes.c_void_p()
        handle = ctypes.c_void_p(module)
        self._call("cuModuleGetFunction", ctypes.byref(function), handle, name.encode(), what=f"kernel {name!r}")
        if shared > self.shared_limit:
            raise BackendError(
                f"kernel {name!r} needs {shared} bytes of shared memory, {self.name} has {self.shared_limit}"
            )
        if shared > _PLAIN_SHARED:
            self._call("cuFuncSetAttribute", function, _SHARED_SIZE, shared)
        return function.value or 0

    def launch(
        self,
        function: int,
        grid: tuple[int, int, int],
        threads: int,
        shared: int,
        stream: int,
        args: Sequence[Argument],
    ) -> None:
        pointers = (ctypes.c_void_p * len(args))(*(ctypes.addressof(a) for a in args))
        self._call(
            "cuLaunchKernel", ctypes.c_void_p(function), *grid, threads, 1, 1, shared,
            ctypes.c_void_p(stream), pointers, None,
        )  # fmt: skip

    def stream(self) -> int:
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        return stream.value or 0

    def synchronize(self, stream: int) -> None:
        """Wait for everything in the stream; errors of kernels come out here."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def end_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def event(self) -> int:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), 0)
        return event.value or 0

    def record(self, event: int, stream: int, *, captured: bool = False) -> None:
        """Note the moment that the stream comes here; `captured`: whenever the graph does that is being captured."""
        flag = _EXTERNAL if captured else 0
        self._call("cuEventRecordWithFlags", ctypes.c_void_p(event), ctypes.c_void_p(stream), flag)

    def wait(self, stream: int, event: int) -> None:
        """Make the stream wait for the event; the caller does not."""
        self._call("cuStreamWaitEvent", ctypes.c_void_p(stream), ctypes.c_void_p(event), 0)

    def finish(self) -> None:
        """Wait for everything in every stream of the context."""
        self._call("cuCtxSynchronize")

    def arrived(self, event: int) -> None:
        """Wait until the event has come."""
        self._call("cuEventSynchronize", ctypes.c_void_p(event))

    def milliseconds(self, begin: int, end: int) -> float:
        """Between two events that have come."""
        value = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(value), ctypes.c_void_p(begin), ctypes.c_void_p(end))
        return value.value

    def end_event(self, event: int) -> None:
        self._call("cuEventDestroy_v2", ctypes.c_void_p(event))

    @contextmanager
    def capture(self, stream: int) -> Iterator[list[int]]:
        """What is submitted to the stream inside does not run, but becomes a graph: the one item of the list."""
        made: list[int] = []
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _RELAXED)
        try:
            yield made
        except BaseException:
            self._lib.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph))
            if graph:
                self._lib.cuGraphDestroy(graph)
            raise
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph), what="capturing a frame")
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
        self._call("cuGraphDestroy", graph)
        made.append(ready.value or 0)

    def replay(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def end_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def close(self) -> None:
        """Leave the context; calling it again does nothing."""
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, function: str, *args: Any, what: str = "") -> None:
        code = getattr(self._lib, function)(*args)
        if code:
            text = ctypes.c_char_p()
            self._lib.cuGetErrorString(code, ctypes.byref(text))
            words = text.value.decode(errors="replace") if text.value else "unknown error"
            hint = _HINT if code in _WRONG_CODE else ""
            raise BackendError(f"the GPU refuses {what or function}: {words} (CUDA error {code}){hint}")
