"""The frame loop on the accelerator: buffers, registers, start, poll, raw map. The same for a board and a virtual one.

The weight image is written once. Per frame the host writes pixels and a few registers; a task switch is another value
in the register `task`. Two slots of pixels and output let the host prepare and finish frames while the kernel works:
`start` the next frame, then `finish` gives the one before, as `stream` does.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import BoardError, FrameError
from edgemtl.fpga import counters, registers
from edgemtl.fpga.contract import WORD
from edgemtl.fpga.counters import FrameCount
from edgemtl.fpga.program import STATUS, Program

SLOTS = 2
POLL_S = 50e-6
# A NumPy array that host and device share, with a copy in each one's cache, as `pynq.allocate` gives it:
# device_address, flush() after the host wrote, invalidate() before it reads, freebuffer().
Buffer = Any


class Board(ABC):
    """The kernel's registers and the memory that both sides reach.

    Several drivers may share one: `lock` is held while a frame is on the kernel, `owner` is the driver whose values the
    registers hold. `origin` is that of what the kernel counts.
    """

    origin: counters.Origin = "measured"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner: Driver | None = None

    @abstractmethod
    def allocate(self, shape: Sequence[int], dtype: Any) -> Buffer:
        """Contiguous memory; raises BoardError where there is not enough."""

    @abstractmethod
    def read(self, offset: int) -> int:
        """A 32-bit register."""

    @abstractmethod
    def write(self, offset: int, value: int) -> None:
        """Write a 32-bit register."""

    @abstractmethod
    def reset(self) -> None:
        """Bring the kernel to its first state, as loading the bitstream does; memory stays."""


@dataclass
class Counters:
    """What the driver did since it was made: frames, seconds from start to done, bytes written by the host."""

    frames: int = 0
    kernel_s: float = 0.0
    register_bytes: int = 0
    pixel_bytes: int = 0
    image_bytes: int = 0


class Driver:
    """One program on one board. Not for several threads at once; `close` gives the memory back."""

    def __init__(self, board: Board, program: Program, *, timeout_s: float = 1.0) -> None:
        """Allocate, and write the weight image and the program."""
        self.board, self.program, self.timeout_s = board, program, timeout_s
        self.counters = Counters()
        self._counted: NDArray[np.uint8] | None = None
        self._registers: dict[str, int] = {}
        self._buffers: list[Buffer] = []
        self._addresses: dict[int, int] = {}  # by id: a remote board is asked once for each
        self._running: tuple[int, int, float] | None = None  # slot, task, when it began
        self._next = 0
        most = max(program.output_words(t) for t in range(len(program.tasks)))
        try:
            self._weights = self._allocate(program.banks.shape, np.uint8)
            self._words = self._allocate(program.words.shape, np.uint32)
            self._pixels = [self._allocate((*program.image_size, 3), np.uint8) for _ in range(SLOTS)]
            self._outputs = [self._allocate((most, WORD // 2), np.int16) for _ in range(SLOTS)]
            self._counts = self._allocate((counters.BYTES,), np.uint8)
            for buffer, content in ((self._weights, program.banks), (self._words, program.words)):
                buffer[:] = content
                buffer.flush()
                self.counters.image_bytes += buffer.nbytes
        except BaseException:
            self.close()
            raise

    @property
    def last_count(self) -> FrameCount | None:
        """What the kernel counted of the last finished frame; None before the first."""
        return None if self._counted is None else counters.read(self._counted, self.board.origin)

    def frame(self, pixels: NDArray[np.uint8], task: str) -> NDArray[np.int16]:
        """The raw map [height, width, channels] of one frame uint8 [H, W, 3]; see `start` and `finish`."""
        self.start(pixels, task)
        return self.finish()

    def stream(self, frames: Iterable[NDArray[np.uint8]], task: str) -> Iterator[NDArray[np.int16]]:
        """The raw map of each frame, in order. The host takes the next frame, and the caller works on the last map,
        while the kernel works.
        """
        for pixels in frames:
            raw = None if self._running is None else self.finish()
            self.start(pixels, task)
            if raw is not None:
                yield raw
        if self._running is not None:
            yield self.finish()

    def start(self, pixels: NDArray[np.uint8], task: str) -> None:
        """Hand a frame over and begin. Raises FrameError, TaskError, and BoardError while another one is on its way."""
        index = self.program.task(task)
        if pixels.dtype != np.uint8 or pixels.shape != (*self.program.image_size, 3):
            height, width = self.program.image_size
            raise FrameError(
                f"the accelerator needs uint8 [{height}, {width}, 3]; given {pixels.dtype} {list(pixels.shape)}"
            )
        if self._running is not None:
            raise BoardError("a frame is still on the accelerator: call finish before the next start")
        if not self.board.lock.acquire(timeout=self.timeout_s):
            raise BoardError(f"another engine has kept the board for {self.timeout_s:g} s: close it, or wait")
        try:
            if self.board.owner is not self:
                self._configure()
                self.board.owner = self
            slot, self._next = self._next, (self._next + 1) % SLOTS
            buffer = self._pixels[slot]
            buffer[:] = pixels
            buffer.flush()
            self.counters.pixel_bytes += buffer.nbytes
            self._set("pixels", self._address(buffer))
            self._set("output", self._address(self._outputs[slot]))
            self._set("output_words", self.program.output_words(index))
            self._set("task", index)
            began = time.perf_counter()
            self.board.write(registers.CONTROL, registers.AP_START)
        except BaseException:
            self.board.owner = None  # nobody knows what the registers hold
            self.board.lock.release()
            raise
        self._running = slot, index, began
        self.counters.register_bytes += 4

    def finish(self) -> NDArray[np.int16]:
        """Wait for the frame that `start` began and give its raw map, the caller's own.

        Raises BoardError where the kernel refuses the frame, or does not answer in time; then the kernel is reset and
        the next `start` may try again.
        """
        if self._running is None:
            raise BoardError("no frame is on the accelerator: call start first")
        (slot, task, began), self._running = self._running, None
        try:
            self._wait(task, began)
            self.counters.kernel_s += time.perf_counter() - began
            self.counters.frames += 1
            status = self.board.read(registers.RETURN)
        except BaseException:
            self.board.owner = None
            raise
        finally:
            self.board.lock.release()
        if status:
            raise BoardError(f"the accelerator refused the frame: {STATUS.get(status, f'status {status}')}")
        output = self._outputs[slot]
        for buffer in (output, self._counts):
            buffer.invalidate()
        self._counted = np.array(self._counts)
        words = np.asarray(output)[: self.program.output_words(task)]
        return self.program.raw_map(np.ascontiguousarray(words), task)

    def close(self) -> None:
        """Give the memory back; calling it again does nothing. A frame on its way is waited for."""
        if self._running is not None:
            with suppress(BoardError):
                self.finish()
        while self._buffers:
            self._buffers.pop().freebuffer()

    def _wait(self, task: int, began: float) -> None:
        """Until the kernel is done; raises BoardError, after a reset, where it takes too long."""
        while not self.board.read(registers.CONTROL) & registers.AP_DONE:
            if time.perf_counter() - began > self.timeout_s:
                raise self._timeout(task)
            time.sleep(POLL_S)

    def _allocate(self, shape: Sequence[int], dtype: Any) -> Buffer:
        buffer = self.board.allocate(shape, dtype)
        self._buffers.append(buffer)
        self._addresses[id(buffer)] = int(buffer.device_address)
        return buffer

    def _address(self, buffer: Buffer) -> int:
        return self._addresses[id(buffer)]

    def _configure(self) -> None:
        """Set the registers that no frame changes."""
        self._registers.clear()
        bank = self._weights.nbytes // len(self.program.banks)
        for number in range(len(self.program.banks)):
            self._set(f"w{number}", self._address(self._weights) + number * bank)
        self._set("quads", self.program.banks.shape[1])
        self._set("program", self._address(self._words))
        self._set("program_words", self._words.nbytes // WORD)
        self._set("pixel_words", self._pixels[0].nbytes // WORD)
        self._set("counters", self._address(self._counts))

    def _set(self, name: str, value: int) -> None:
        """Write a register, an address in two halves, unless it has the value already."""
        if self._registers.get(name) == value:
            return
        register = registers.REGISTERS[name]
        for half in range(register.bits // 32):
            self.board.write(register.offset + 4 * half, value >> 32 * half & 0xFFFFFFFF)
            self.counters.register_bytes += 4
        self._registers[name] = value

    def _timeout(self, task: int) -> BoardError:
        control = self.board.read(registers.CONTROL)
        names = {"started": registers.AP_START, "idle": registers.AP_IDLE, "ready": registers.AP_READY}
        state = ", ".join(f"{name} {int(bool(control & bit))}" for name, bit in names.items())
        error = BoardError(
            f"the accelerator did not finish task {self.program.tasks[task]!r} within {self.timeout_s:g} s "
            f"(control register {control:#x}: {state}; returned {self.board.read(registers.RETURN)}); it has been reset"
        )
        self.board.reset()
        return error
