"""The accelerator on a virtual ZCU104: the driver of the board, with the kernels' C simulation behind its registers.

Exact, not fast: what it gives is bit for bit what the board must give; its times say nothing about the board's.
"""

from __future__ import annotations

from edgemtl.bundle.reader import Bundle
from edgemtl.fpga.driver import Board
from edgemtl.fpga.simulation import CSimKernel, obstacle
from edgemtl.fpga.virtual import VirtualBoard
from edgemtl.runtime.backends.fpga import Fpga


class FpgaSim(Fpga):
    name = "fpga-sim"
    packages = ()
    extra = ""
    note = "its INT8 program for {}, in C simulation: exact, and far slower than the board"
    timeout_s = 120.0  # a frame of ViT-S takes seconds in simulation

    def _open(self, bundle: Bundle) -> Board:
        return VirtualBoard(CSimKernel())

    @classmethod
    def unusable(cls) -> str | None:
        return obstacle()
