"""What `edgemtl estimate` prints: tables of layers, units, memories and resources, and the totals last."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

from edgemtl.cli import _text
from edgemtl.errors import ConfigError

if TYPE_CHECKING:
    from edgemtl_compiler.fpga.estimate import Point, Report
    from edgemtl_compiler.fpga.estimate.schema import Layer

BLOCK = re.compile(r"block(\d+)\.(.+)")


def grouped(layers: Iterable[Layer]) -> list[tuple[str, int, Layer]]:
    """Name, number and one of the layers that are equal but for their block, in order of the first of them."""
    found: dict[tuple[object, ...], list[tuple[int | None, Layer]]] = {}
    for layer in layers:
        match = BLOCK.fullmatch(layer.name)
        part, block = (match[2], int(match[1])) if match else (layer.name, None)
        key = (part, block is None, *layer.model_dump(exclude={"name"}).values())
        found.setdefault(key, []).append((block, layer))
    out = []
    for (part, *_), members in found.items():
        blocks = [block for block, _ in members if block is not None]
        out.append((f"block{_blocks(blocks)}.{part}" if blocks else str(part), len(members), members[0][1]))
    return out


def _blocks(blocks: list[int]) -> str:
    """0..11 for all, 1,3..11 for every second one, else one by one."""
    for step, start in ((1, 1), (2, 2)):
        if len(blocks) > start and blocks == list(range(blocks[0], blocks[-1] + 1, step)):
            return f"{','.join(map(str, blocks[:start]))}..{blocks[-1]}"
    return ",".join(map(str, blocks))


def print_report(report: Report, every_layer: bool = False) -> None:
    """All of an estimate; equal layers of several blocks share a line unless `every_layer`."""
    timing, ddr, clock, switch = report.timing, report.ddr, report.clock, report.switch
    if not (timing and ddr and clock and switch):  # an estimate has them all
        raise ConfigError("this report is no estimate: it lacks its timing, DDR, clock or switch")
    console, total = _text.console(), max(timing.cycles, 1)
    shown = [(layer.name, 1, layer) for layer in report.layers] if every_layer else grouped(report.layers)
    columns = ("layer", "n", "rows", "MMAC", "DDR KB", "compute", "DDR", "cycles", "sum")
    rows = [
        (
            name, n, one.rows or "", f"{one.macs / 1e6:.1f}" if one.macs else "", f"{one.ddr_bytes / 1e3:.1f}",
            f"{one.compute_cycles:,}", f"{one.ddr_cycles:,}", f"{one.cycles:,}", f"{n * one.cycles:,}",
        )
        for name, n, one in shown
    ]  # fmt: skip
    console.print(_text.table(columns, rows, numbers=8))
    console.print("compute, DDR: cycles of each alone; cycles: what the layer adds to the frame")
    console.print()

    units = []
    for unit, members in groupby(sorted(report.layers, key=lambda layer: layer.unit), lambda layer: layer.unit):
        spent = [layer.cycles for layer in members]
        units.append((unit, len(spent), f"{sum(spent):,}", f"{sum(spent) / total:.1%}", sum(spent)))
    units.sort(key=lambda row: -row[-1])
    console.print(_text.table(("unit", "layers", "cycles", "of frame"), [row[:-1] for row in units], numbers=3))
    console.print()

    memories = [(m.name, m.kind, m.copies, m.depth, m.width, f"{m.blocks:g}") for m in report.memories]
    console.print(_text.table(("memory", "kind", "copies", "depth", "bits", "blocks"), memories, numbers=4))
    console.print("blocks of LUTRAM are LUTs")
    console.print()

    used = []
    for r in report.resources:
        limit, available = r.limit or 0, r.available or 0
        amount = f"{r.low:,.0f}" if r.low == r.high else f"{r.low:,.0f} to {r.high:,.0f}"
        fits = "yes" if r.high <= limit else "no at the top" if r.low <= limit else "no"
        used.append((r.name, fits, amount, f"{limit:,.0f}", f"{available:,.0f}"))
    console.print(_text.table(("resource", "fits", "used", "limit (80 %)", "part"), used, numbers=3))
    for source in dict.fromkeys(r.source for r in report.resources):
        names = ", ".join(r.name for r in report.resources if r.source == source)
        console.print(f"{names}: {source}", soft_wrap=True)
    console.print()
    for note in report.notes:
        console.print(f"note: {_text.clean(note)}", soft_wrap=True)
    console.print()
    _print_totals(report)


def _print_totals(report: Report) -> None:
    console = _text.console()
    facts, timing, ddr, clock, switch = report.workload, report.timing, report.ddr, report.clock, report.switch
    assert timing
    assert ddr
    assert clock
    assert switch
    giga, mega = float(str(facts["operations"])) / 1e9, float(str(facts["macs"])) / 1e6
    moved = ddr.weight_bytes + ddr.pixel_bytes + ddr.output_bytes
    lines = [
        ("frame", f"{timing.milliseconds:.3f} ms (origin: model), {timing.cycles:,} cycles"),
        ("work", f"{facts['tokens']} tokens, {giga:.3f} GOP ({mega:.1f} M multiply-accumulates)"),
        (
            "DDR",
            f"{moved / 1e6:.3f} MB, each byte once (weights {ddr.weight_bytes / 1e6:.3f}, pixels "
            f"{ddr.pixel_bytes / 1e6:.3f}, output {ddr.output_bytes / 1e6:.3f}),",
        ),
        ("", f"and the program's {ddr.program_bytes} bytes, at up to {ddr.bytes_per_cycle:.1f} bytes per cycle"),
        ("switch", f"{switch.bytes_written} bytes written, {switch.microseconds:g} us"),
    ]
    if facts["experts_per_block"]:
        each = facts["rows_per_expert"]
        queues = sorted(each, reverse=True) if isinstance(each, list) else []
        counts = ", ".join(f"{len(list(same))} x {rows}" for rows, same in groupby(queues))
        text = f"{facts['experts_per_block']} reachable per block, top-{facts['top_k']}, tokens each: {counts}"
        lines.insert(2, ("experts", text))
    console.print(f"{_text.clean(report.subject)} on {report.part} at {clock.requested_hz / 1e6:g} MHz", soft_wrap=True)
    for name, text in lines:
        console.print(f"  {name:8}{text}", soft_wrap=True)


def print_sweep(points: list[Point]) -> None:
    """The Pareto set, fastest last."""
    columns = ("lanes", "over 80 % in", "norm", "ms (model)", "DSP", "LUT (thousand)", "BRAM36")
    rows = [
        (
            f"{p.lanes.row},{p.lanes.query}", ", ".join(p.short) or "fits", p.lanes.norm, f"{p.milliseconds:.3f}",
            p.dsp, f"{p.lut[0] / 1e3:.0f} to {p.lut[1] / 1e3:.0f}", f"{p.bram:g}",
        )
        for p in points
    ]  # fmt: skip
    console = _text.console()
    console.print(_text.table(columns, rows, numbers=5))
    fitting = [p for p in points if p.fits]
    console.print()
    for line in (
        "lanes: rows of the linear unit, queries of the attention (--lanes); norm: values of LayerNorm per cycle.",
        "No other configuration is both faster and smaller in DSPs. LUT is a range, judged by its low end.",
    ):
        console.print(line, soft_wrap=True)
    if fitting:
        best = min(fitting, key=lambda p: p.milliseconds)
        console.print(
            f"fastest that fits: {best.lanes.row},{best.lanes.query} with {best.milliseconds:.3f} ms (origin: model)",
            soft_wrap=True,
        )
