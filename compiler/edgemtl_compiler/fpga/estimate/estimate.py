"""The whole estimate as a Report, its text, and the sweep over parallelism."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.fpga.board import Facts
from edgemtl_compiler.fpga.estimate import resources
from edgemtl_compiler.fpga.estimate.cycles import Lanes
from edgemtl_compiler.fpga.estimate.frame import Clockwork, bytes_per_cycle
from edgemtl_compiler.fpga.estimate.memory import memory_map
from edgemtl_compiler.fpga.estimate.schema import Clock, Ddr, Report, Switch, Timing
from edgemtl_compiler.fpga.estimate.workload import Scope, Workload, workload

ROWS, QUERIES, NORMS = (2, 4, 6, 8, 12, 16), (1, 2, 4, 6, 8), (8, 16)
AXI_LITE_SECONDS = 0.5e-6  # one register write from the PS through the interconnect, generously


def lanes_of(row: int, query: int) -> Lanes:
    """Raises CompileError for numbers that the units cannot be built with."""
    if row not in ROWS or query not in QUERIES:
        raise CompileError(
            f"lanes are ROWS,QUERIES with {', '.join(map(str, ROWS))} rows and {', '.join(map(str, QUERIES))} queries; "
            f"given {row},{query}"
        )
    return Lanes(row=row, query=query)


def switch(config: ModelConfig) -> Switch:
    """What changes with the task: one 32-bit register, the index into the program's table. Gates and heads of all tasks
    lie in the weight image from the start, and are read where they lie."""
    return Switch(bytes_written=4, microseconds=AXI_LITE_SECONDS * 1e6)


def estimate(
    config: ModelConfig,
    task: str,
    board: Facts,
    *,
    clock_hz: float | None = None,
    lanes: Lanes | None = None,
    scope: Scope = "task",
    queues: Sequence[int] | None = None,
) -> Report:
    """One frame of `task`, modelled; by default at the board's clock.

    Raises CompileError for a model outside the maxima or lanes that do not fit.
    """
    lanes, clock_hz = lanes or Lanes(), clock_hz or board.clock.hz
    if task not in config.task_names:
        raise CompileError(f"there is no task {task!r}; this model has {', '.join(config.task_names)}")
    work = workload(config, task, scope=scope, queues=queues)
    memories = memory_map(lanes, board.memories)
    used = resources.totals(lanes, board, memories)
    resources.check(used, board)
    layers = Clockwork(work, board, clock_hz, lanes).layers()
    total = sum(layer.cycles for layer in layers)
    bound = work.weight_bytes + work.pixel_bytes + work.output_bytes
    notes = [
        "all figures are modelled; nothing here ran on a board or through Vitis HLS",
        f"routing: {'as given, in every block' if queues else 'balanced over the experts of the path of the task'}",
    ]
    notes += [
        f"{r.name} may reach {r.high:.0f}, above the limit of {r.limit:.0f}; the range is yosys' uncertainty"
        for r in used
        if r.limit is not None and r.high > r.limit
    ]
    if lanes != Lanes():
        notes.append("lanes other than the compiled ones: hls/include/limits.h has rows in as many banks as lanes")
    return Report(
        subject=f"{config.name}, {task if scope == 'task' else 'backbone'}",
        part=board.part,
        origin="model",
        tool="edgemtl estimate",
        clock=Clock(requested_hz=clock_hz),
        workload=_facts(work),
        lanes={"row": lanes.row, "in": lanes.inputs, "out": lanes.outputs, "query": lanes.query},
        timing=Timing(cycles=total, milliseconds=1e3 * total / clock_hz),
        layers=layers,
        ddr=Ddr(
            weight_bytes=work.weight_bytes,
            pixel_bytes=work.pixel_bytes,
            output_bytes=work.output_bytes,
            program_bytes=work.program_bytes,
            bound_bytes=bound,
            bytes_per_cycle=bytes_per_cycle(board, clock_hz),
        ),
        switch=switch(config),
        memories=memories,
        units=resources.by_unit(lanes),
        resources=used,
        notes=tuple(notes),
    )


def _facts(work: Workload) -> dict[str, int | float | str | bool | list[int]]:
    config = work.config
    return {
        "model": config.name,
        "task": work.task,
        "scope": work.scope,
        "tokens": config.tokens,
        "macs": work.macs,
        "operations": 2 * work.macs,
        "experts_per_block": len(work.queues[0]) if work.queues else 0,
        "top_k": config.top_k,
        "rows_per_expert": list(work.queues[0]) if work.queues else [],
    }


@dataclass(frozen=True)
class Point:
    """One configuration of the sweep."""

    lanes: Lanes
    milliseconds: float
    dsp: int
    lut: tuple[int, int]
    bram: float
    short: tuple[str, ...]  # resources of which the part has too little

    @property
    def fits(self) -> bool:
        return not self.short


def sweep(
    config: ModelConfig,
    task: str,
    board: Facts,
    *,
    clock_hz: float | None = None,
    scope: Scope = "task",
    queues: Sequence[int] | None = None,
) -> list[Point]:
    """All lanes that fit, or would with more of the part: only those that no other beats in both time and DSPs."""
    work = workload(config, task, scope=scope, queues=queues)
    points = list(_points(work, board, clock_hz or board.clock.hz))
    best = [
        p
        for p in points
        if not any(
            q.milliseconds <= p.milliseconds and q.dsp <= p.dsp and (q.milliseconds, q.dsp) != (p.milliseconds, p.dsp)
            for q in points
            if q.fits or not p.fits
        )
    ]
    return sorted(best, key=lambda p: p.dsp)


def _points(work: Workload, board: Facts, clock_hz: float) -> Iterator[Point]:
    for row, query, norm in product(ROWS, QUERIES, NORMS):
        lanes = replace(Lanes(), row=row, query=query, norm=norm)
        used = {r.name: r for r in resources.totals(lanes, board)}
        cycles = sum(layer.cycles for layer in Clockwork(work, board, clock_hz, lanes).layers())
        yield Point(
            lanes=lanes,
            milliseconds=1e3 * cycles / clock_hz,
            dsp=int(used["DSP48E2"].low),
            lut=(int(used["LUT"].low), int(used["LUT"].high)),
            bram=used["BRAM36"].low,
            short=tuple(r.name for r in resources.over(tuple(used.values()))),
        )
