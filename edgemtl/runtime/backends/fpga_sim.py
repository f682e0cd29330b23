"""The accelerator on a virtual ZCU104: the driver of the board, with the kernels' C simulation behind its registers.

Exact, not fast: what it gives is bit for bit what the board must give; its times say nothing about the board's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BundleError
from edgemtl.fpga import program
from edgemtl.fpga.driver import Driver
from edgemtl.fpga.simulation import CSimKernel, obstacle
from edgemtl.fpga.virtual import VirtualBoard
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran

TIMEOUT_S = 120.0  # a frame of ViT-S takes seconds in simulation


class FpgaSim(Backend):
    name = "fpga-sim"
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "each expert runs over the queue of tokens that chose it"),
        "shared prefix": Cell("cannot", "the accelerator runs a whole frame per task"),
        "mapped weights": Cell("cannot", "the weight image is copied to the board's memory"),
        "residency": Cell("cannot", "the weights are in the virtual board's memory"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        loaded, settings = program.load(bundle), bundle.manifest.preprocess
        self._scale = 255 * np.array(settings.std, np.float32)[:, None, None]
        self._shift = 255 * np.array(settings.mean, np.float32)[:, None, None]
        self.board = VirtualBoard(CSimKernel())
        self.driver = Driver(self.board, loaded, timeout_s=TIMEOUT_S)

    @classmethod
    def unusable(cls) -> str | None:
        return obstacle()

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        try:
            fpga = program.described(bundle)
        except BundleError as error:
            raise BackendError(str(error)) from None
        return Choice(
            None, f"its INT8 program for {fpga.target}, in C simulation: exact, and far slower than the board"
        )

    def bind(self, task: str, get: Get) -> None:
        """Nothing to do: every task is in the weight image."""

    def release(self, task: str) -> None:
        """Nothing to do."""

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        """The engine's normalised input goes back to the bytes it came from; other values are rounded and clipped."""
        pixels = np.clip(np.rint(image[0] * self._scale + self._shift), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        maps, seconds = {}, {}
        for task in tasks:
            start = time.perf_counter()
            raw = self.driver.frame(np.ascontiguousarray(pixels), task)
            unit = np.float32(self.driver.program.units[self.driver.program.task(task)])
            maps[task] = np.ascontiguousarray(raw.transpose(2, 0, 1)).astype(np.float32) * unit
            seconds[task] = time.perf_counter() - start
        return Ran(maps, seconds)

    def close(self) -> None:
        self.driver.close()
