"""`edgemtl estimate`: how fast and how large the accelerator would be for a model, without a board or AMD's tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _estimate_text, _text
from edgemtl.errors import ConfigError

if TYPE_CHECKING:
    from edgemtl.config import ModelConfig
    from edgemtl_compiler.fpga.estimate import Point

UNCALIBRATED = (
    "this bundle holds no calibrated integers for the accelerator, so its shape alone is estimated; to make them: "
    "edgemtl compile CHECKPOINT --target BOARD --calibrate FOLDER"
)


def estimate(
    model: Annotated[
        Path | None, typer.Argument(help="A bundle (.edgemtl) or a checkpoint (.safetensors); or use --preset.")
    ] = None,
    board: Annotated[str | None, typer.Option(help="The board, a folder of bitstreams/boards.")] = None,
    task: Annotated[str | None, typer.Option(help="The task; the first one by default.")] = None,
    preset: Annotated[str | None, typer.Option(help="A named shape in place of a file: tiny, edge-moe, micro.")] = None,
    tokens: Annotated[int | None, typer.Option(help="With --preset: patches and the class token, such as 129.")] = None,
    scope: Annotated[str, typer.Option(help="task (head included) or backbone.")] = "task",
    clock: Annotated[float | None, typer.Option(help="MHz; by default the board's.")] = None,
    lanes: Annotated[str, typer.Option(help="ROWS,QUERIES side by side; the compiled ones are 8,4.")] = "8,4",
    routing: Annotated[
        str, typer.Option(help="balanced, or the tokens of each expert of the path, such as 40,30,59.")
    ] = "balanced",
    every_layer: Annotated[
        bool, typer.Option("--layers", help="A line for each layer; equal ones share a line by default.")
    ] = False,
    sweep: Annotated[bool, typer.Option("--sweep", help="Print the Pareto set over parallelism.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Model the accelerator's cycles, DDR traffic, memories and resources for one frame of one task."""
    config, remarks = _config(model, preset, tokens)
    from edgemtl.fpga import board as boards
    from edgemtl_compiler.fpga import estimate as est

    if scope not in ("task", "backbone"):
        raise ConfigError(f"the scope is task or backbone; given {scope!r}")
    found = boards.find(boards.DEFAULT if board is None else board)
    hertz = found.clock.hz if clock is None else found.hertz(clock)
    rows, queries = _numbers("lanes", lanes, 2)
    chosen = task or config.task_names[0]
    queues = None if routing == "balanced" else _numbers("routing", routing)
    options: dict[str, Any] = {"clock_hz": hertz, "scope": scope, "queues": queues}
    if sweep:
        points = est.sweep(config, chosen, found, **options)
        _text.as_json(
            {"origin": "model", "points": [_point(p) for p in points]}
        ) if json else _estimate_text.print_sweep(points)
        return
    report = est.estimate(config, chosen, found, lanes=est.lanes_of(rows, queries), **options)
    report = report.model_copy(update={"notes": report.notes + remarks})
    if json:
        _text.as_json(report.model_dump(mode="json"))
    else:
        _estimate_text.print_report(report, every_layer)


def _config(model: Path | None, preset: str | None, tokens: int | None) -> tuple[ModelConfig, tuple[str, ...]]:
    """The model's shape, from a file or a name, and what is to be said of it."""
    if (model is None) == (preset is None):
        raise ConfigError("name one thing to estimate: a bundle, a checkpoint, or --preset edge-moe")
    if model is None:
        from edgemtl.model.presets import preset as named

        assert preset is not None
        return named(preset, **({} if tokens is None else {"image_size": _image_size(tokens)})), ()
    if tokens is not None:
        raise ConfigError("--tokens goes with --preset; a bundle or checkpoint has its own image size")
    if model.suffix == ".safetensors":
        from edgemtl.bundle.checkpoint import read_info

        return read_info(model).config, ()
    from edgemtl.bundle.reader import Bundle

    with Bundle.open(model) as opened:
        return opened.manifest.model, () if any(p.accelerator for p in opened.manifest.programs) else (UNCALIBRATED,)


MOST_PATCHES = 2047  # twice what any board holds; in one row, if their number is prime, they are an image's width


def _image_size(tokens: int) -> tuple[int, int]:
    """The image, as square as whole patches allow, with so many patches and a class token."""
    patches = tokens - 1
    if not 1 <= patches <= MOST_PATCHES:
        raise ConfigError(f"tokens are one patch and the class token at least: 2 to {MOST_PATCHES + 1}; given {tokens}")
    rows = next(r for r in range(int(patches**0.5), 0, -1) if patches % r == 0)
    return 16 * rows, 16 * patches // rows


def _numbers(what: str, text: str, count: int | None = None) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    plain = all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts)
    if not plain or count not in (None, len(parts)):
        wanted = f"{count} whole numbers" if count else "whole numbers"
        raise ConfigError(f"--{what} takes {wanted} with commas between; given {text!r}")
    return [int(part) for part in parts]


def _point(p: Point) -> dict[str, Any]:
    return {
        "rows": p.lanes.row, "queries": p.lanes.query, "norm": p.lanes.norm, "milliseconds": p.milliseconds,
        "dsp": p.dsp, "lut": list(p.lut), "bram36": p.bram, "fits": p.fits,
    }  # fmt: skip
