"""`edgemtl estimate`: how fast and how large the accelerator would be for a model, without a board or AMD's tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _text
from edgemtl.errors import ConfigError

if TYPE_CHECKING:
    from edgemtl.config import ModelConfig
    from edgemtl_compiler.hls.estimate import Point, Report


def estimate(
    model: Annotated[
        Path | None, typer.Argument(help="A bundle (.edgemtl) or a checkpoint (.safetensors); or use --preset.")
    ] = None,
    board: Annotated[str, typer.Option(help="The board.")] = "zcu104",
    task: Annotated[str | None, typer.Option(help="The task; the first one by default.")] = None,
    preset: Annotated[str | None, typer.Option(help="A named shape in place of a file: tiny, edge-moe, micro.")] = None,
    tokens: Annotated[int | None, typer.Option(help="With --preset: patches and the class token, such as 129.")] = None,
    scope: Annotated[str, typer.Option(help="task (head included) or backbone.")] = "task",
    clock: Annotated[float, typer.Option(help="MHz.")] = 300.0,
    lanes: Annotated[str, typer.Option(help="ROWS,QUERIES side by side; the compiled ones are 8,4.")] = "8,4",
    routing: Annotated[
        str, typer.Option(help="balanced, or the tokens of each expert of the path, such as 40,30,59.")
    ] = "balanced",
    sweep: Annotated[bool, typer.Option("--sweep", help="Print the Pareto set over parallelism.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Model the accelerator's cycles, DDR traffic, memories and resources for one frame of one task."""
    config = _config(model, preset, tokens)
    from edgemtl_compiler.hls import estimate as est

    if scope not in ("task", "backbone"):
        raise ConfigError(f"the scope is task or backbone; given {scope!r}")
    found = est.board(board)
    hertz = est.clock(found, clock)
    rows, queries = _numbers("lanes", lanes, 2)
    chosen = task or config.task_names[0]
    queues = None if routing == "balanced" else _numbers("routing", routing)
    options: dict[str, Any] = {"clock_hz": hertz, "scope": scope, "queues": queues}
    if sweep:
        points = est.sweep(config, chosen, found, **options)
        _text.as_json({"origin": "model", "points": [_point(p) for p in points]}) if json else _print_sweep(points)
        return
    report = est.estimate(config, chosen, found, lanes=est.lanes_of(rows, queries), **options)
    if json:
        _text.as_json(report.model_dump(mode="json"))
    else:
        _print(report)


def _config(model: Path | None, preset: str | None, tokens: int | None) -> ModelConfig:
    """The model's shape, from a file or a name."""
    if (model is None) == (preset is None):
        raise ConfigError("name one thing to estimate: a bundle, a checkpoint, or --preset edge-moe")
    if model is None:
        from edgemtl.model.presets import preset as named

        assert preset is not None
        return named(preset, **({} if tokens is None else {"image_size": _image_size(tokens)}))
    if tokens is not None:
        raise ConfigError("--tokens goes with --preset; a bundle or checkpoint has its own image size")
    if model.suffix == ".safetensors":
        from edgemtl.model.checkpoint import load_checkpoint

        return load_checkpoint(model)[1].config
    from edgemtl.bundle.reader import Bundle

    with Bundle.open(model) as opened:
        return opened.manifest.model


def _image_size(tokens: int) -> tuple[int, int]:
    """The image, as square as whole patches allow, with so many patches and a class token."""
    patches = tokens - 1
    if not 1 <= patches <= 1 << 16:
        raise ConfigError(f"tokens are one patch and the class token at least: 2 or more; given {tokens}")
    rows = next(r for r in range(int(patches**0.5), 0, -1) if patches % r == 0)
    return 16 * rows, 16 * patches // rows


def _numbers(what: str, text: str, count: int | None = None) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    plain = all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts)
    if not plain or count not in (None, len(parts)):
        wanted = f"{count} whole numbers" if count else "whole numbers"
        raise ConfigError(f"--{what} takes {wanted} with commas between; given {text!r}")
    return [int(part) for part in parts]


def _print(report: Report) -> None:
    console = _text.console()
    facts, timing, ddr, clock, switch = report.workload, report.timing, report.ddr, report.clock, report.switch
    if not (timing and ddr and clock and switch):  # an estimate has them all
        raise ConfigError("this report is no estimate: it lacks its timing, DDR, clock or switch")
    console.print(
        f"{_text.clean(report.subject)} on {report.part} at {clock.requested_hz / 1e6:g} MHz: "
        f"{timing.milliseconds:.3f} ms per frame (origin: model), {timing.cycles:,} cycles",
        soft_wrap=True,
    )
    giga, mega = float(str(facts["operations"])) / 1e9, float(str(facts["macs"])) / 1e6
    console.print(
        f"{facts['tokens']} tokens, {giga:.3f} GOP ({mega:.1f} M multiply-accumulates); "
        f"experts: {facts['experts_per_block']} reachable per block, top-{facts['top_k']}, "
        f"rows each {facts['rows_per_expert']}",
        soft_wrap=True,
    )
    total = ddr.weight_bytes + ddr.pixel_bytes + ddr.output_bytes
    console.print(
        f"DDR: {total / 1e6:.3f} MB per frame (weights once {ddr.weight_bytes / 1e6:.3f}, pixels "
        f"{ddr.pixel_bytes / 1e6:.3f}, output {ddr.output_bytes / 1e6:.3f}), and the program's {ddr.program_bytes} "
        f"bytes, at {ddr.bytes_per_cycle:.1f} bytes per cycle; task switch: {switch.bytes_written} bytes, "
        f"{switch.microseconds:g} us (origin: model)",
        soft_wrap=True,
    )
    console.print()
    columns = ("layer", "unit", "bound by", "rows", "MMAC", "DDR KB", "compute", "DDR", "cycles")
    rows = [
        (
            layer.name, layer.unit, layer.bound, layer.rows or "", f"{layer.macs / 1e6:.1f}" if layer.macs else "",
            f"{layer.ddr_bytes / 1e3:.1f}", f"{layer.compute_cycles:,}", f"{layer.ddr_cycles:,}", f"{layer.cycles:,}",
        )
        for layer in report.layers
    ]  # fmt: skip
    console.print(_text.table(columns, rows, numbers=6))
    console.print()
    memories = [(m.name, m.kind, m.copies, m.depth, m.width, f"{m.blocks:g}") for m in report.memories]
    titles = ("memory", "kind", "copies", "depth", "bits", "blocks (LUTRAM: LUTs)")
    console.print(_text.table(titles, memories, numbers=4))
    console.print()
    used = []
    for r in report.resources:
        limit, available = r.limit or 0, r.available or 0
        amount = f"{r.low:,.0f}" if r.low == r.high else f"{r.low:,.0f} to {r.high:,.0f}"
        used.append((r.name, amount, f"{limit:,.0f}", f"{available:,.0f}", f"{r.origin}: {r.source}"))
    console.print(_text.table(("resource", "used", "limit (80 %)", "part", "origin"), used))
    console.print()
    for note in report.notes:
        console.print(f"note: {_text.clean(note)}", soft_wrap=True)


def _point(p: Point) -> dict[str, Any]:
    return {
        "rows": p.lanes.row, "queries": p.lanes.query, "norm": p.lanes.norm, "milliseconds": p.milliseconds,
        "dsp": p.dsp, "lut": list(p.lut), "bram36": p.bram, "fits": p.fits,
    }  # fmt: skip


def _print_sweep(points: list[Point]) -> None:
    columns = ("rows", "queries", "norm lanes", "fits 80 %", "ms (model)", "DSP", "LUT", "BRAM36")
    rows = [
        (
            p.lanes.row, p.lanes.query, p.lanes.norm, "yes" if p.fits else "no", f"{p.milliseconds:.3f}", p.dsp,
            f"{p.lut[0]:,} to {p.lut[1]:,}", f"{p.bram:g}",
        )
        for p in points
    ]  # fmt: skip
    _text.console().print(_text.table(columns, rows, numbers=4))
