"""The kernel's performance counters: what a frame took, unit by unit, as `contract` lays it out.

Calls, steps and bytes are exact wherever the kernel runs, in C simulation too. Cycles come from a counter in the
programmable logic, or from a Verilated twin; where nothing counts them they are None, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgemtl.fpga.contract import COUNTER_WIDTH, UNITS, WORD

BYTES = len(UNITS) * COUNTER_WIDTH * 4
NOT_MEASURED = "not measured"
FIGURES = ("calls", "steps", "cycles", "stalls", "read_bytes", "written_bytes")
Origin = Literal["measured", "csim"]


@dataclass(frozen=True)
class UnitCount:
    """One unit in one frame. `steps` is the least number of cycles that its loops can take, all weights being there."""

    calls: int
    steps: int
    cycles: int | None
    read_bytes: int
    written_bytes: int

    @property
    def stalls(self) -> int | None:
        """Cycles in which no step began: waits for DDR, pipelines that fill, calls."""
        return None if self.cycles is None else self.cycles - self.steps


@dataclass(frozen=True)
class FrameCount:
    """All units that ran in one frame. `origin` is that of calls, steps and bytes, `cycles_origin` that of cycles."""

    units: dict[str, UnitCount]
    origin: Origin

    @property
    def cycles_origin(self) -> str:
        if all(u.cycles is None for u in self.units.values()):
            return NOT_MEASURED
        return "measured" if self.origin == "measured" else "rtl-sim"

    @property
    def cycles(self) -> int | None:
        """Of the whole frame; None unless every unit's are known."""
        known = [u.cycles for u in self.units.values() if u.cycles is not None]
        return sum(known) if len(known) == len(self.units) else None

    @property
    def read_bytes(self) -> int:
        """From DDR: program, weights, pixels."""
        return sum(u.read_bytes for u in self.units.values())

    @property
    def written_bytes(self) -> int:
        """To DDR: the raw map. The counters themselves are not in it."""
        return sum(u.written_bytes for u in self.units.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON; every figure beside its origin."""
        rows = {
            name: {
                "calls": u.calls,
                "steps": u.steps,
                "cycles": NOT_MEASURED if u.cycles is None else u.cycles,
                "stalls": NOT_MEASURED if u.stalls is None else u.stalls,
                "read_bytes": u.read_bytes,
                "written_bytes": u.written_bytes,
            }
            for name, u in self.units.items()
        }
        return {"origin": self.origin, "cycles_origin": self.cycles_origin, "units": rows}


def read(words: NDArray[Any], origin: Origin) -> FrameCount:
    """The counters from the bytes that the kernel wrote, uint32 [units * 8] or any array of `BYTES` bytes."""
    rows = np.asarray(words).reshape(-1).view(np.uint8).view("<u4").reshape(len(UNITS), COUNTER_WIDTH).tolist()
    units = {}
    for name, (calls, steps, cycles, got, put, *_) in zip(UNITS, rows, strict=True):
        if calls:
            units[name] = UnitCount(calls, steps, cycles or None, got * WORD, put * WORD)
    return FrameCount(units, origin)


def lines(counted: Mapping[str, Any], estimated: Mapping[str, int] | None = None) -> list[str]:
    """A table of what `FrameCount.as_dict` gave, and a line of origins; `estimated`: a model's cycles by unit."""
    head = ["unit", "calls", "steps", "cycles", "stalls", "read", "written"]
    rows = [[unit, *(row[k] for k in FIGURES)] for unit, row in counted["units"].items()]
    if estimated:
        head.append("estimate")
        rows = [[*row, estimated.get(row[0], "-")] for row in rows]
    cells = [head, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    out = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells]
    model = "; estimate: model" if estimated else ""
    return [*out, f"calls, steps, bytes: {counted['origin']}; cycles, stalls: {counted['cycles_origin']}{model}"]


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "-" if value == NOT_MEASURED else str(value)
