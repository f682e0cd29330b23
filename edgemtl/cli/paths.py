"""`edgemtl paths`: which experts each task of a checkpoint uses, and what is wrong with that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemtl.cli import _text
from edgemtl.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from edgemtl.train.path_report import PathReport


def paths(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors).")],
    data: Annotated[Path, typer.Option(help="Folder in the NYUD_MT layout; only its images count.")],
    split: Annotated[str, typer.Option(help="Which list of gt_sets/ to measure on.")] = "train",
    images: Annotated[int, typer.Option(min=1, help="How many images, evenly spaced.")] = 512,
    experts: Annotated[
        int, typer.Option(min=0, help="Without declared paths: what paths of so many experts would keep.")
    ] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the report there, as JSON.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report on task paths: weight kept, experts in use, overlap of tasks, collapsed and dead experts."""
    if model.suffix == ".edgemtl":
        raise CheckpointError(f"{model} is a bundle; give the checkpoint (.safetensors) that it was compiled from")
    from edgemtl.model.checkpoint import load_checkpoint
    from edgemtl.train.data import open_data
    from edgemtl.train.path_report import report_on

    network, info = load_checkpoint(model)
    if experts and info.config.paths:
        raise ConfigError(f"{model} has declared paths; leave out --experts")
    if not info.config.moe_blocks:
        raise ConfigError(f"{model} has no block with experts")
    samples = open_data(data, split, info.config)
    with _text.console(stderr=True).status(f"measuring on {min(images, len(samples))} images"):
        report = report_on(network, samples, images=images, experts_per_path=experts)
    if out is not None:
        out.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if json:
        _text.as_json(report.model_dump(mode="json"))
    else:
        _print(report, f"{model.name}, {report.images} images of {data}, {split}, measured")


def _print(report: PathReport, title: str) -> None:
    from rich.table import Table

    from edgemtl.train.path_report import summary

    table = Table("task", "block", "experts it may choose", "in use", "weight kept", "best choice of most", title=title)
    for task, blocks in report.tasks.items():
        for block, path in blocks.items():
            expert = max(range(len(path.first)), key=lambda e: path.first[e])
            kept = "" if path.kept is None else f"{path.kept:.1%}"
            ids = " ".join(map(str, path.experts))
            table.add_row(task, str(block), ids, str(path.in_use), kept, f"{expert} ({path.first[expert]:.1%})")
    console = _text.console()
    console.print(table)
    for line in summary(report):
        console.print(_text.clean(line), soft_wrap=True)
