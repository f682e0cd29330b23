"""A board without the board: contiguous memory with a copy on each side, the kernel's registers, and a kernel.

It is strict where a board is silent. A buffer that was not flushed shows its old content; an address that is not
16-byte aligned, lies outside every buffer or needs more than 36 bits is refused; so is memory beyond the CMA region.
What it does not model: time, bursts, and the order of memory accesses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import BoardError
from edgemtl.fpga import counters, registers
from edgemtl.fpga.contract import WORD
from edgemtl.fpga.driver import Board

PAGE = 4096
CMA_BYTES = 256 << 20
BASE = 0x8_1000_0000  # above 4 GiB, so that a forgotten high half of an address shows
ADDRESS_BITS = 36
Memory = NDArray[np.uint8]
# Banks, program, pixels and output as device memory, the task, memory for the counters: returns the kernel's status.
Kernel = Callable[[Sequence[Memory], Memory, Memory, Memory, int, Memory], int]
Fault = Literal["stuck"]


class VirtualBuffer(np.ndarray[Any, np.dtype[Any]]):
    """The host's copy of a buffer, an array like pynq's; `device_memory` is the device's."""

    device_address: int
    device_memory: Memory
    _board: VirtualBoard | None

    def __array_finalize__(self, source: Any) -> None:
        """Views and results are plain arrays in all but type: they have no device memory."""
        self._board = None

    def flush(self) -> None:
        self.device_memory[:] = self._bytes()
        assert self._board is not None
        self._board.written += self.nbytes

    def invalidate(self) -> None:
        self._bytes()[:] = self.device_memory

    def freebuffer(self) -> None:
        """Give the memory back; calling it again does nothing."""
        if self._board is not None:
            self._board.free(self)
            self._board = None

    def _bytes(self) -> Memory:
        if self._board is None:
            raise BoardError("this array is no buffer of the board, or has been freed")
        return self.view(np.ndarray).reshape(-1).view(np.uint8)


class VirtualBoard(Board):
    """Memory, registers and a kernel. `faults` are injected once each, at the next frame; `written` counts the bytes
    that the host wrote, to memory and registers.
    """

    origin: counters.Origin = "csim"

    def __init__(self, kernel: Kernel, *, cma_bytes: int = CMA_BYTES, base: int = BASE) -> None:
        if base % PAGE or base + cma_bytes > 1 << ADDRESS_BITS:
            raise BoardError(f"the memory must begin on a page and end within {ADDRESS_BITS} address bits")
        super().__init__()
        self.faults: set[Fault] = set()
        self.written = 0
        self._kernel, self._base, self._size = kernel, base, cma_bytes
        self._held: dict[int, VirtualBuffer] = {}  # by device address
        self._spans = {
            r.offset + 4 * half: (r.name, half, r.access) for r in registers.layout() for half in range(r.bits // 32)
        }
        self._values: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._failure: BoardError | None = None
        self._lock = threading.Lock()
        self.reset()

    def allocate(self, shape: Sequence[int], dtype: Any) -> VirtualBuffer:
        """A zeroed buffer on a page of its own; raises BoardError with need and free bytes where it does not fit."""
        size = prod(shape) * np.dtype(dtype).itemsize
        at = self._place(-(-size // PAGE) * PAGE)
        buffer = np.zeros(tuple(shape), dtype).view(VirtualBuffer)
        buffer.device_address, buffer.device_memory, buffer._board = at, np.zeros(size, np.uint8), self
        self._held[at] = buffer
        return buffer

    def free(self, buffer: VirtualBuffer) -> None:
        self._held.pop(buffer.device_address, None)

    @property
    def free_bytes(self) -> int:
        return self._size - sum(-(-b.nbytes // PAGE) * PAGE for b in self._held.values())

    def read(self, offset: int) -> int:
        """A register; reading the control register clears its done bit. Raises BoardError what the kernel met."""
        name, half, _ = self._register(offset)
        with self._lock:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            value = self._values.get(name, 0) >> 32 * half & 0xFFFFFFFF
            if name == "CTRL":
                self._values["CTRL"] &= ~(registers.AP_DONE | registers.AP_READY)
            return value

    def write(self, offset: int, value: int) -> None:
        """Write a register; the start bit runs the kernel on what the registers hold now."""
        name, half, access = self._register(offset)
        self.written += 4
        if not 0 <= value < 1 << 32:
            raise BoardError(f"register {name} takes 32 bits, given {value}")
        if access == "R":
            raise BoardError(f"register {name} can be read only")
        if name == "CTRL":
            if value & registers.AP_START:
                self._start()
            return
        with self._lock:
            old = self._values.get(name, 0)
            self._values[name] = old & ~(0xFFFFFFFF << 32 * half) | value << 32 * half

    def reset(self) -> None:
        """As loading the bitstream does: all registers 0, the kernel idle. A frame on its way is waited for."""
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._values = {"CTRL": registers.AP_IDLE}
            self._thread = self._failure = None

    def _register(self, offset: int) -> tuple[str, int, str]:
        if offset not in self._spans:
            raise BoardError(f"there is no register at offset {offset:#x}; the map ends at {max(self._spans):#x}")
        return self._spans[offset]

    def _place(self, size: int) -> int:
        """First gap of `size` bytes."""
        at = self._base
        for start in sorted(self._held):
            if start - at >= size:
                return at
            at = start + -(-self._held[start].nbytes // PAGE) * PAGE
        if at + size > self._base + self._size:
            raise BoardError(
                f"the board's contiguous memory is full: {size} bytes needed, {self.free_bytes} of {self._size} free "
                "(and perhaps in pieces): give the kernel a larger cma= or close other users"
            )
        return at

    def _start(self) -> None:
        with self._lock:
            if not self._values["CTRL"] & registers.AP_IDLE:
                return  # as the hardware does while it is busy: nothing
            self._values["CTRL"] = registers.AP_START
            values = dict(self._values)
        if "stuck" in self.faults:
            self.faults.discard("stuck")
            return
        try:
            inputs = self._inputs(values)
        except BoardError:
            with self._lock:
                self._values["CTRL"] = registers.AP_IDLE
            raise
        self._thread = threading.Thread(target=self._run, args=(values.get("task", 0), *inputs), daemon=True)
        self._thread.start()

    def _inputs(self, values: dict[str, int]) -> tuple[list[Memory], Memory, Memory, Memory, Memory]:
        sizes = {"w0": "quads", "w1": "quads", "w2": "quads", "w3": "quads"}
        sizes |= {"program": "program_words", "pixels": "pixel_words", "output": "output_words"}
        seen = {
            name: self._memory(name, values.get(name, 0), values.get(size, 0) * WORD) for name, size in sizes.items()
        }
        counts = self._memory("counters", values.get("counters", 0), counters.BYTES)
        return [seen[f"w{i}"] for i in range(4)], seen["program"], seen["pixels"], seen["output"], counts

    def _memory(self, name: str, address: int, size: int) -> Memory:
        """Device memory [address, address + size); raises BoardError where no buffer holds it whole."""
        if address % WORD:
            raise BoardError(f"register {name} holds {address:#x}, which is not aligned to {WORD} bytes")
        if address >= 1 << ADDRESS_BITS:
            raise BoardError(f"register {name} holds {address:#x}, which has more than {ADDRESS_BITS} bits")
        for start, buffer in self._held.items():
            if start <= address and address + size <= start + buffer.nbytes:
                return buffer.device_memory[address - start : address - start + size]
        raise BoardError(f"register {name} names {size} bytes at {address:#x}, which lie in no buffer of the board")

    def _run(
        self, task: int, banks: Sequence[Memory], program: Memory, pixels: Memory, output: Memory, counts: Memory
    ) -> None:
        failure, status = None, 0
        try:
            status = self._kernel(banks, program, pixels, output, task, counts)
        except Exception as error:  # in a thread of its own: told to whoever reads the registers next
            failure = BoardError(f"the simulated kernel failed: {error}")
        with self._lock:
            self._failure = failure
            self._values["ap_return"] = status
            self._values["CTRL"] = registers.AP_DONE | registers.AP_IDLE | registers.AP_READY
