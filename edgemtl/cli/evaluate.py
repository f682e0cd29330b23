"""`edgemtl eval`: scores of a checkpoint or bundle on labelled images, as a table, JSON and a picture sheet."""

from __future__ import annotations

import json as js
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgemtl.cli.train import calm_threads
from edgemtl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from edgemtl.config import ModelConfig


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors) or a bundle (.edgemtl).")],
    data: Annotated[Path, typer.Option(help="Folder of a data set; `edgemtl data check` lists the layouts.")],
    split: Annotated[str, typer.Option(help="Which list of images, or a part of one: train:hold.")] = "val",
    width: Annotated[
        int | None, typer.Option(min=1, help="Open only the first so many experts of every path of a checkpoint.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only this many, evenly spaced.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw frame, truth and prediction of some images to F.png.")
    ] = None,
    sheet_images: Annotated[int, typer.Option(min=1, max=64, help="How many images the sheet shows.")] = 4,
    protocol: Annotated[str | None, typer.Option(help="The figures of a paper's table, m3vit or invpt; slow.")] = None,
    against: Annotated[Path | None, typer.Option(help="JSON of another model: the gain over it, as Δm.")] = None,
    backend: Annotated[str | None, typer.Option(help="Backend of a bundle; the default one otherwise.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Score a model on labelled images, each metric beside that of a trivial prediction."""
    calm_threads()
    import torch

    from edgemtl.model.vit import MultiTaskViT
    from edgemtl.train import evaluate as ev
    from edgemtl.train import protocols
    from edgemtl.train.comparators import load_network
    from edgemtl.train.data import open_data
    from edgemtl.train.sheet import write_sheet

    if threads is not None:
        torch.set_num_threads(threads)
    protocols.check(protocol)
    if width is not None and model.suffix == ".edgemtl":
        raise ConfigError(f"--width is for checkpoints; {model} is a bundle, which runs whole paths: leave --width out")
    other = None if against is None else _read_json(against)
    if model.suffix == ".edgemtl":
        predictor, config = ev.bundle_predictor(model, backend)
    elif backend is not None:
        raise ConfigError(f"--backend {backend} is for bundles; {model} is run by torch, leave --backend out")
    else:
        network = load_network(model)
        if width is not None:
            network.config.at_width(width)  # refuses one that it was not trained at
            assert isinstance(network, MultiTaskViT)
            network.open_paths(width)
        predictor, config = ev.torch_predictor(network), network.config
    samples = open_data(data, split, config)
    console = Console(stderr=True)
    for line in samples.reports():
        console.print(line, highlight=False)
    with console.status("reading training labels for the baselines") as status:
        try:
            seen = "train:fit" if split == "train:hold" else "train"
            constants = ev.training_constants(open_data(data, seen, config), config)
        except DataError as error:  # a set to test on need not have one
            console.print(f"baselines are the evaluated labels' own means: {error}", highlight=False)
            constants = None
        results = ev.evaluate(
            predictor,
            samples,
            config,
            limit=limit,
            constants=constants,
            boundary=None if protocol is None else samples.layout.max_dist,
            progress=lambda done, of: status.update(f"{done} of {of} images"),
        )
    if sheet is not None:
        write_sheet(sheet, predictor, samples, config, sheet_images)
        console.print(f"{sheet}: {min(sheet_images, len(samples))} images", highlight=False)
    described = protocols.describe(samples, config, results["images"]["count"], protocol)
    gain = None if other is None else protocols.gain(results, other, config, protocol)
    if json:
        head = {"model": str(model), "data": described["set"], "split": split, "protocol": described}
        head |= {} if width is None else {"width": width}
        tail = {} if gain is None else {"delta_m": gain, "against": str(against)}
        typer.echo(js.dumps(_without_nan({**head, **results, **tail})))
        return
    paths = "" if width is None else f", paths of {width} experts,"
    title = Text(f"{model.name}{paths} on {described['text']}")  # a set's title is no markup
    Console().print(_table(results, title) if protocol is None else _paper_table(results, config, protocol, title))
    if gain is not None:
        typer.echo(f"Δm against {against}: {gain:+.2f} %")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = js.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} is no result ({error}); write one with `edgemtl eval MODEL ... --json > FILE`"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is no result; write one with `edgemtl eval MODEL ... --json > FILE`")
    return found


def _without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: a figure without labels is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float, digits: int = 4) -> str:
    return "no labels" if math.isnan(value) else f"{value:.{digits}f}"


def _table(results: dict[str, dict[str, Any]], title: Text) -> Table:
    from edgemtl.train import tasks
    from edgemtl.train.evaluate import main_metrics

    names = main_metrics()
    for kind in tasks.names():
        names |= tasks.find(kind).more

    table = Table("task", "metric", "value", "trivial baseline", title=title)
    for task, score in results.items():
        for key, value in score.items():
            if task == "images" or key.endswith("_baseline") or isinstance(value, dict):
                continue
            name, arrow = names.get(key) or (key.replace("_", " "), "")
            found = [
                (score.get(f"{key}{end}_baseline"), what) for end, what in (("", ""), ("_mean_image", "mean image "))
            ]
            shown = ", ".join(what + _number(value) for value, what in found if value is not None)
            table.add_row(task, f"{name} {arrow}".strip(), _number(value), shown)
        for name, value in score.get("iou", {}).items():
            table.add_row(task, f"IoU {name}", _number(value), "")
    return table


def _paper_table(results: dict[str, dict[str, Any]], config: ModelConfig, protocol: str, title: Text) -> Table:
    from edgemtl.train.protocols import table_row

    table = Table("task", "metric", "value", title=title)
    for task, (figure, value) in table_row(results, config, protocol).items():
        digits = 2 if figure.scale == 100 or figure.key == "mean_angle" else 4
        table.add_row(task, f"{figure.name} {'↓' if figure.lower else '↑'}", _number(value, digits))
    return table
