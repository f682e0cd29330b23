"""Boards that an estimate knows: what the part has and what the DDR brings. bitstreams/zcu104.json agrees (a test)."""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.errors import CompileError


@dataclass(frozen=True)
class Board:
    """`share` of each resource may be used; `ddr_share` of the peak is planned (Manev, Vaishnav, Koch, FPT 2019)."""

    name: str
    part: str
    resources: dict[str, int]
    ddr_bytes_per_second: float
    clock_hz: tuple[float, float]  # what the model's pipeline depths may be believed for
    share: float = 0.8
    ddr_share: float = 0.75

    def limit(self, resource: str) -> int:
        return int(self.share * self.resources[resource])


BOARDS = {
    "zcu104": Board(
        name="zcu104",
        part="xczu7ev-ffvc1156-2-e",
        resources={"LUT": 230_400, "FF": 460_800, "DSP48E2": 1728, "BRAM36": 312, "URAM288": 96},
        ddr_bytes_per_second=17.07e9,  # DDR4-2133, 64 bit: PYNQ's base design
        clock_hz=(50e6, 333e6),
    )
}


def board(name: str) -> Board:
    """Raises CompileError for a board that is not known."""
    if name not in BOARDS:
        raise CompileError(f"there is no board {name!r}; choose one of {', '.join(BOARDS)}")
    return BOARDS[name]


def clock(found: Board, mhz: float) -> float:
    """The clock in Hz; raises CompileError outside the board's range."""
    low, high = (hz / 1e6 for hz in found.clock_hz)
    if not low <= mhz <= high:
        raise CompileError(f"the clock of {found.name} may be {low:.0f} to {high:.0f} MHz; given {mhz:g}")
    return mhz * 1e6
