"""The frame loop on the accelerator: buffers, registers, start, poll, raw map. The same for a board and a virtual one.

The weight image is written once. Per frame the host writes pixels and a few registers; a task switch is another value
in the register `task`. Two slots of pixels and output let the host prepare and finish frames while the kernel works:
`start` the next frame, then `finish` gives the one before.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import BoardError, FrameError
from edgemtl.fpga import registers
from edgemtl.fpga.program import STATUS, WORD, Program

SLOTS = 2
POLL_S = 50e-6
# A NumPy array that host and device share, with a copy in each one's cache, as `pynq.allocate` gives it:
# device_address, flush() after the host wrote, invalidate() before it reads, freebuffer().
Buffer = Any


class Board(Protocol):
    """The kernel's registers and the memory that both sides reach."""

    def allocate(self, shape: Sequence[int], dtype: Any) -> Buffer:
        """Contiguous memory; raises BoardError where there is not enough."""

    def read(self, offset: int) -> int:
        """A 32-bit register."""

    def write(self, offset: int, value: int) -> None:
        """Write a 32-bit register."""

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
        """Allocate, write the weight image and the program, and set the registers that never change."""
        self.board, self.program, self.timeout_s = board, program, timeout_s
        self.counters = Counters()
        self._registers: dict[str, int] = {}
        self._buffers: list[Buffer] = []
        self._running: tuple[int, int, float] | None = None  # slot, task, when it began
        self._next = 0
        most = max(program.output_words(t) for t in range(len(program.tasks)))
        try:
            self._weights = self._allocate(program.banks.shape, np.uint8)
            self._words = self._allocate(program.words.shape, np.uint32)
            self._pixels = [self._allocate((*program.image_size, 3), np.uint8) for _ in range(SLOTS)]
            self._outputs = [self._allocate((most, WORD // 2), np.int16) for _ in range(SLOTS)]
            for buffer, content in ((self._weights, program.banks), (self._words, program.words)):
                buffer[:] = content
                buffer.flush()
                self.counters.image_bytes += buffer.nbytes
            self._configure()
        except BaseException:
            self.close()
            raise

    def frame(self, pixels: NDArray[np.uint8], task: str) -> NDArray[np.int16]:
        """The raw map [height, width, channels] of one frame uint8 [H, W, 3]; see `start` and `finish`."""
        self.start(pixels, task)
        return self.finish()

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
        slot, self._next = self._next, (self._next + 1) % SLOTS
        buffer = self._pixels[slot]
        buffer[:] = pixels
        buffer.flush()
        self.counters.pixel_bytes += buffer.nbytes
        self._set("pixels", buffer.device_address)
        self._set("output", self._outputs[slot].device_address)
        self._set("output_words", self.program.output_words(index))
        self._set("task", index)
        began = time.perf_counter()
        self.board.write(registers.CONTROL, registers.AP_START)
        self._running = slot, index, began
        self.counters.register_bytes += 4

    def finish(self) -> NDArray[np.int16]:
        """Wait for the frame that `start` began and give its raw map, the caller's own.

        Raises BoardError where the kernel refuses the frame, or does not answer in time; then the kernel is reset and
        the next `start` may try again.
        """
        if self._running is None:
            raise BoardError("no frame is on the accelerator: call start first")
        slot, task, began = self._running
        self._wait(task, began)
        self.counters.kernel_s += time.perf_counter() - began
        self.counters.frames += 1
        status = self.board.read(registers.RETURN)
        if status:
            raise BoardError(f"the accelerator refused the frame: {STATUS.get(status, f'status {status}')}")
        output = self._outputs[slot]
        output.invalidate()
        words = np.asarray(output)[: self.program.output_words(task)]
        return self.program.raw_map(np.ascontiguousarray(words), task)

    def close(self) -> None:
        """Give the memory back; calling it again does nothing."""
        while self._buffers:
            self._buffers.pop().freebuffer()

    def _wait(self, task: int, began: float) -> None:
        """Until the kernel is done. Whatever happens, no frame is on its way afterwards."""
        self._running = None
        while not self.board.read(registers.CONTROL) & registers.AP_DONE:
            if time.perf_counter() - began > self.timeout_s:
                raise self._timeout(task)
            time.sleep(POLL_S)

    def _allocate(self, shape: Sequence[int], dtype: Any) -> Buffer:
        self._buffers.append(self.board.allocate(shape, dtype))
        return self._buffers[-1]

    def _configure(self) -> None:
        self._registers.clear()
        bank = self._weights.nbytes // len(self.program.banks)
        for number in range(len(self.program.banks)):
            self._set(f"w{number}", self._weights.device_address + number * bank)
        self._set("quads", self.program.banks.shape[1])
        self._set("program", self._words.device_address)
        self._set("program_words", self._words.nbytes // WORD)
        self._set("pixel_words", self._pixels[0].nbytes // WORD)

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
        self._configure()
        return error
