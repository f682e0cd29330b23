"""The accelerator on a virtual board: the driver of the board, with a simulation of the kernels behind its registers.

Exact, not fast: what it gives is bit for bit what the board must give; its times say nothing about the board's. The
variable EDGEMTL_FPGA_SIM chooses the simulation: "csim", or "twin", which counts cycles (edgemtl/fpga/simulation.py).
"""

from __future__ import annotations

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BoardError
from edgemtl.fpga import simulation
from edgemtl.fpga.driver import Board
from edgemtl.fpga.virtual import VirtualBoard
from edgemtl.runtime.backends.fpga import Fpga

NOTES = {
    simulation.CSIM: "in C simulation: exact, and far slower than the board",
    simulation.TWIN: "in C simulation with the linear and the attention unit in Verilator: exact, and slower still",
}


class FpgaSim(Fpga):
    name = "fpga-sim"
    runs = Fpga.name
    packages = ()
    extra = ""
    timeout_s = 120.0  # a frame of ViT-S takes seconds in simulation

    def _open(self, bundle: Bundle, name: str) -> Board:
        return VirtualBoard(simulation.kernel())

    @classmethod
    def unusable(cls) -> str | None:
        try:
            return simulation.obstacle(simulation.chosen())
        except BoardError as error:
            return str(error)

    @classmethod
    def here(cls) -> None:
        """Any board's program will do."""

    @classmethod
    def where(cls) -> str:
        return NOTES[simulation.chosen()]
