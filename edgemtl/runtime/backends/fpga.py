"""The accelerator on a board, through pynq. The virtual board's backend (`fpga_sim`) differs in the board alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.manifest import Program
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BoardError, BundleError
from edgemtl.fpga import bitstream, program
from edgemtl.fpga.driver import Board, Driver
from edgemtl.fpga.lock import REMOTE
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran

BOARD_FILE = Path("/proc/device-tree/chosen/pynq_board")  # only PYNQ's images have it


class Fpga(Backend):
    name = program.BACKEND
    exact = True
    packages: ClassVar[tuple[str, ...]] = ("pynq",)
    extra = "fpga"
    timeout_s = 1.0
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "each expert runs over the queue of tokens that chose it"),
        "shared prefix": Cell("cannot", "the accelerator runs a whole frame per task"),
        "mapped weights": Cell("cannot", "the weight image is copied to the board's memory"),
        "residency": Cell("cannot", "the weights are in the board's memory"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        assert choice.program is not None
        loaded, settings = program.load(bundle, choice.program.target), bundle.manifest.preprocess
        self._scale = 255 * np.array(settings.std, np.float32)[:, None, None]
        self._shift = 255 * np.array(settings.mean, np.float32)[:, None, None]
        self.driver = Driver(self._open(bundle, choice.program.target), loaded, timeout_s=self.timeout_s)

    def _open(self, bundle: Bundle, name: str) -> Board:
        """The board `name`, to run on; raises BoardError."""
        bit = bitstream.find(bundle.path)
        try:
            from edgemtl.fpga import pynq_driver
        except Exception as error:  # pynq fails in many ways off a board
            raise BoardError(f"pynq cannot be imported: {error}; type edgemtl doctor --board") from error
        return pynq_driver.board(bit, name)

    @classmethod
    def unusable(cls) -> str | None:
        if reason := super().unusable():
            return reason
        if not (BOARD_FILE.exists() or os.environ.get(REMOTE)):
            return f"this machine is no PYNQ board, and {REMOTE} names none: type edgemtl doctor --board"
        return None

    @classmethod
    def refuses(cls, program: Program) -> str | None:
        return cls.unusable()

    @classmethod
    def here(cls) -> str | None:
        """The board that this machine is; None where it is none."""
        return BOARD_FILE.read_text().strip("\0\n ").lower() if BOARD_FILE.exists() else None

    @classmethod
    def where(cls) -> str:
        """What the program runs on, for `engine.why`."""
        return "on the board"

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        try:
            entry, _ = program.described(bundle, cls.here())
        except BundleError as error:
            raise BackendError(str(error)) from None
        return Choice(entry, f"its INT8 program for {entry.target}, {cls.where()}")

    def bind(self, task: str, get: Get) -> None:
        """Nothing to do: every task is in the weight image."""

    def release(self, task: str) -> None:
        """Nothing to do."""

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        """The engine's normalised input goes back to the bytes it came from; other values are rounded and clipped.

        While the kernel works on a task, the host turns the map of the one before into float32.
        """
        values = np.clip(np.rint(image[0] * self._scale + self._shift), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        pixels = np.ascontiguousarray(values)
        maps, seconds, counts = {}, {}, {}
        start, before = time.perf_counter(), self.driver.counters.register_bytes
        self.driver.start(pixels, tasks[0])
        for task, following in zip(tasks, (*tasks[1:], None), strict=True):
            raw = self.driver.finish()
            if (count := self.driver.last_count) is not None:
                counts[task] = count
            if following is not None:
                self.driver.start(pixels, following)
            maps[task] = self._floats(raw, task)
            now = time.perf_counter()
            seconds[task], start = now - start, now
        return Ran(maps, seconds, counts, self.driver.counters.register_bytes - before)

    def close(self) -> None:
        self.driver.close()

    def _floats(self, raw: NDArray[np.int16], task: str) -> Array:
        unit = np.float32(self.driver.program.units[self.driver.program.task(task)])
        return np.ascontiguousarray(raw.transpose(2, 0, 1)).astype(np.float32) * unit
