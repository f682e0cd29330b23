"""What is known of each board: one folder per board, found by its name, with its facts in board.toml.

The folders are bitstreams/boards in a checkout, and lie beside this module in a wheel. EDGEMTL_BOARDS names a folder
with more of them, or with others of the same names. `DEFAULT` is the board where none is named.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from edgemtl.config import Strict
from edgemtl.errors import BoardError

DEFAULT = "zcu104"
VARIABLE, FACTS = "EDGEMTL_BOARDS", "board.toml"
OWN = Path(__file__).parent / "boards"
Block = Literal["BRAM36", "URAM288"]


class Resources(Strict):
    """What the part has."""

    LUT: int = Field(ge=0)
    FF: int = Field(ge=0)
    DSP48E2: int = Field(ge=0)
    BRAM36: int = Field(ge=0)
    URAM288: int = Field(ge=0)


class Memories(Strict):
    """The kind of block that each big array of the kernels takes: hls/include/memories.h."""

    stream: Block
    pool: Block
    rows: Block


class Ddr(Strict):
    """The board's memory at its peak, and the share of it that is planned."""

    bytes_per_second: float = Field(gt=0)
    share: float = Field(gt=0, le=1)


class Clock(Strict):
    """The kernels' clock, and between which clocks the estimate may be believed."""

    mhz: float = Field(gt=0)
    low_mhz: float = Field(gt=0)
    high_mhz: float = Field(gt=0)

    @property
    def hz(self) -> float:
        return self.mhz * 1e6


class Registers(Strict):
    """Where the kernel's registers lie for the processor."""

    base: int = Field(ge=0, lt=1 << 40)


class Facts(Strict):
    """One board. `vivado`: its name in Vivado's board store; `rails`: whose power pynq tells; `share`: of each resource
    that may be used.
    """

    name: str
    title: str
    part: str = Field(pattern=r"^\w+-\w+-\w+-\w+$")
    vivado: str
    rails: tuple[str, ...]
    share: float = Field(0.8, gt=0, le=1)
    resources: Resources
    memories: Memories
    ddr: Ddr
    clock: Clock
    registers: Registers

    def available(self, resource: str) -> int:
        """Of a resource by its name in `Resources`."""
        return int(getattr(self.resources, resource))

    def limit(self, resource: str) -> int:
        """How much of it may be used."""
        return int(self.share * self.available(resource))

    def hertz(self, mhz: float) -> float:
        """A clock in Hz; raises BoardError outside the board's range."""
        low, high = self.clock.low_mhz, self.clock.high_mhz
        if not low <= mhz <= high:
            raise BoardError(f"the clock of {self.name} may be {low:.0f} to {high:.0f} MHz; given {mhz:g}")
        return mhz * 1e6


def folders() -> dict[str, Path]:
    """Every board's folder by the board's name."""
    roots = [OWN, *(Path(given) for given in [os.environ.get(VARIABLE)] if given)]
    found = {path.parent.name: path.parent for root in roots for path in root.glob(f"*/{FACTS}")}
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Of all boards."""
    return tuple(folders())


def find(name: str = DEFAULT) -> Facts:
    """The facts of the board `name`; raises BoardError for a board without a folder, or one that says too little."""
    known = folders()
    if name not in known:
        raise BoardError(f"there is no board {name!r}; choose one of {', '.join(known)}")
    path = known[name] / FACTS
    try:
        return Facts(name=name, **tomllib.loads(path.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BoardError(f"{path}: does not describe a board: {where}: {first['msg']}") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BoardError(f"{path}: cannot be read: {error}") from None
