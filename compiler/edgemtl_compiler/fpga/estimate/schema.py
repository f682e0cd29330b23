"""What an estimate, a tool's report or a simulation says of the accelerator: one schema for all, as JSON.

`edgemtl estimate --json` writes it with the origin "model"; a parser of a tool's report fills what that report knows
and names the tool. A figure never stands without its origin.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgemtl.config import Strict

Origin = Literal["model", "csim", "rtl-sim", "yosys", "vitis-hls csynth", "vitis-hls cosim", "vivado", "board"]
SCHEMA_VERSION = 1


class Resource(Strict):
    """Use of one kind of resource: `low` to `high` (equal when certain); `limit` is the share that may be used."""

    name: str  # DSP48E2, LUT, FF, BRAM36, URAM288
    low: float = Field(ge=0)
    high: float = Field(ge=0)
    limit: float | None = None
    available: float | None = None
    origin: Origin = "model"
    source: str = ""


class Unit(Strict):
    """Resources of one unit (a function of the HLS sources, or a module)."""

    name: str
    resources: tuple[Resource, ...]


class Memory(Strict):
    """One array on chip: `copies` of `depth` words of `width` bits in one kind of memory, `blocks` of it in all."""

    name: str
    copies: int = Field(ge=1)
    depth: int = Field(ge=1)
    width: int = Field(ge=1)
    kind: Literal["BRAM36", "URAM288", "LUTRAM"]
    blocks: float = Field(ge=0)
    origin: Origin = "model"


class Layer(Strict):
    """One step of the program: `cycles` is what it adds to the frame, what compute and DDR do not hide of each other.

    `own_cycles` are those of the unit that it names, the rest the linear unit's; `rows` token rows computed, groups'
    padding included; `bound` says which of compute and DDR takes longer.
    """

    name: str
    unit: str
    cycles: int = Field(ge=0)
    own_cycles: int = Field(0, ge=0)
    compute_cycles: int = Field(ge=0)
    ddr_cycles: int = Field(ge=0)
    ddr_bytes: int = Field(ge=0)
    macs: int = Field(0, ge=0)
    rows: int = Field(0, ge=0)
    bound: Literal["compute", "ddr"] = "compute"
    origin: Origin = "model"


class Loop(Strict):
    """One loop of a tool's report: latency in cycles, initiation interval, iteration latency, trip count."""

    name: str
    latency: int | None = None
    interval: int | None = None
    iteration_latency: int | None = None
    trip_count: int | None = None
    origin: Origin = "model"


class Clock(Strict):
    """Requested frequency, and the period that a tool estimates or achieves."""

    requested_hz: float = Field(gt=0)
    estimated_period_ns: float | None = None
    slack_ns: float | None = None
    origin: Origin = "model"


class Ddr(Strict):
    """Traffic of one frame. `bound_bytes` is the least possible: what the task needs, each byte once."""

    weight_bytes: int = Field(ge=0)
    pixel_bytes: int = Field(ge=0)
    output_bytes: int = Field(ge=0)
    program_bytes: int = Field(ge=0)
    bound_bytes: int = Field(ge=0)
    bytes_per_cycle: float = Field(gt=0)
    origin: Origin = "model"


class Switch(Strict):
    """What the host writes to change the task, and how long it takes."""

    bytes_written: int = Field(ge=0)
    microseconds: float = Field(ge=0)
    origin: Origin = "model"


class Timing(Strict):
    """A frame, or a unit, in cycles and milliseconds."""

    cycles: int = Field(ge=0)
    milliseconds: float = Field(ge=0)
    interval_cycles: int | None = None
    origin: Origin = "model"


class Power(Strict):
    """Watts, of which dynamic."""

    total_w: float
    dynamic_w: float | None = None
    origin: Origin


class Report(Strict):
    """Everything known of one configuration; a source leaves empty what it cannot know."""

    schema_version: int = SCHEMA_VERSION
    subject: str
    part: str
    origin: Origin
    tool: str = ""
    clock: Clock | None = None
    workload: dict[str, int | float | str | bool | list[int]] = Field(default_factory=dict)
    lanes: dict[str, int] = Field(default_factory=dict)
    timing: Timing | None = None
    layers: tuple[Layer, ...] = ()
    loops: tuple[Loop, ...] = ()
    ddr: Ddr | None = None
    switch: Switch | None = None
    memories: tuple[Memory, ...] = ()
    units: tuple[Unit, ...] = ()
    resources: tuple[Resource, ...] = ()
    power: Power | None = None
    notes: tuple[str, ...] = ()
