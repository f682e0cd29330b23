"""`edgemtl train` and `edgemtl eval`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from edgemtl.train.loop import Sets


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped recipe: rooms_tiny, rooms_micro.")],
    data: Annotated[Path | None, typer.Option(help="Folder in the NYUD_MT layout; overrides the recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    init: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None,
) -> None:
    """Train a multi-task model: a shared gate, then a gate per task, then declared task paths."""
    _calm_threads()
    import torch

    from edgemtl.train.config import load_train_config
    from edgemtl.train.loop import Stopped, Trainer
    from edgemtl.train.report import Reporter

    config = load_train_config(recipe)
    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True)
    folder = out or config.out
    sets = _sets(config, data or config.data, console)
    try:
        model = Trainer(config, folder, sets, Reporter(console)).run(resume=resume, init=init)
    except Stopped as e:
        again = f"edgemtl train {recipe}" + (f" --data {data}" if data else "") + (f" --out {out}" if out else "")
        print(f"{e}; go on with: {again} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    typer.echo(str(model))


def _calm_threads() -> None:
    """Let OpenMP threads sleep while they wait: on a shared machine spinning ones cost far more than they gain.

    Read when torch is loaded, so this comes before its import; a value set by the user stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _sets(config: Any, root: Path, console: Console) -> Sets:
    from edgemtl.train.data import open_data
    from edgemtl.train.loop import Sets

    model = config.model_config_for("multi")
    training = open_data(root, "train", model, train=True, seed=config.seed)
    plain = open_data(root, "train", model)
    val = open_data(root, "val", model) if config.val_images else None
    with console.status(f"reading {len(training)} images from {root}"):
        training.preload()  # type: ignore[attr-defined]
    return Sets(training, plain, val)


def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors) or a bundle (.edgemtl).")],
    data: Annotated[Path, typer.Option(help="Folder in the NYUD_MT layout.")],
    split: Annotated[str, typer.Option(help="Which list of gt_sets/ to evaluate.")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only this many, evenly spaced.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    backend: Annotated[str | None, typer.Option(help="Backend of a bundle; the default one otherwise.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Score a model on labelled images, each metric beside that of a trivial prediction."""
    _calm_threads()
    import torch

    from edgemtl.errors import ConfigError
    from edgemtl.model.checkpoint import load_checkpoint
    from edgemtl.train import evaluate as ev
    from edgemtl.train.data import open_data

    if threads is not None:
        torch.set_num_threads(threads)
    if model.suffix == ".edgemtl":
        predictor, config = ev.bundle_predictor(model, backend)
    elif backend is not None:
        raise ConfigError(f"--backend {backend} is for bundles; {model} is run by torch, leave --backend out")
    else:
        network, info = load_checkpoint(model)
        predictor, config = ev.torch_predictor(network), info.config
    samples = open_data(data, split, config)
    console = Console(stderr=True)
    with console.status("reading training labels for the baselines") as status:
        constants = ev.training_constants(open_data(data, "train", config), config)
        results = ev.evaluate(
            predictor,
            samples,
            config,
            limit=limit,
            constants=constants,
            progress=lambda done, of: status.update(f"{done} of {of} images"),
        )
    origin = "synthetic rooms" if (data / "rooms.json").exists() else str(data)
    if json:
        import json as js

        typer.echo(js.dumps({"model": str(model), "data": origin, "split": split, **results}))
        return
    Console().print(_table(results, f"{model.name} on {origin}, {split}, {results['images']['count']} images"))


def _table(results: dict[str, dict[str, Any]], title: str) -> Table:
    from edgemtl.train.evaluate import MAIN

    table = Table("task", "metric", "value", "trivial baseline", title=title)
    for task, score in results.items():
        for key, value in score.items():
            if task == "images" or key.endswith("_baseline") or isinstance(value, dict):
                continue
            name, arrow = MAIN.get(key, (key.replace("_", " "), ""))
            baseline = score.get(f"{key}_baseline")
            shown = "" if baseline is None else f"{baseline:.4f}"
            table.add_row(task, f"{name} {arrow}".strip(), f"{value:.4f}", shown)
        for name, value in score.get("iou", {}).items():
            table.add_row(task, f"IoU {name}", f"{value:.4f}", "")
    return table
