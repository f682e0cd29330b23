"""`edgemtl train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from edgemtl.train.loop import Sets


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or a shipped recipe, for example rooms_tiny.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the data set; overrides the recipe.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; overrides the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    init: Annotated[Path | None, typer.Option(help="Start from this checkpoint's weights.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files to OUT/tensorboard.")] = False,
) -> None:
    """Train a multi-task model: a shared gate, then a gate per task, then declared task paths.

    On several GPUs or machines: torchrun --nproc-per-node N -m edgemtl train RECIPE; the batch is divided among them.
    """
    calm_threads()
    import torch

    from edgemtl.train.config import load_train_config
    from edgemtl.train.loop import Stopped, Trainer
    from edgemtl.train.parallel import Group
    from edgemtl.train.report import Reporter

    config = load_train_config(recipe)
    if threads is not None:
        torch.set_num_threads(threads)
    if tensorboard:
        config = config.model_copy(update={"tensorboard": True})
    cuda = config.device != "cpu" and torch.cuda.is_available()
    group = Group.from_environment("cuda" if cuda else "cpu")
    console = Console(stderr=True, quiet=not group.first)
    folder = out or config.out
    sets = _sets(config, data or config.data, console)
    try:
        model = Trainer(config, folder, sets, Reporter(console), group).run(resume=resume, init=init)
    except Stopped as e:
        if not group.first:
            raise typer.Exit(130) from None
        again = f"edgemtl train {recipe}" + (f" --data {data}" if data else "") + (f" --out {out}" if out else "")
        again += f" --threads {threads}" if threads else ""  # another number gives other last bits
        print(f"{e}; go on with: {again} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        group.close()
    if group.first:
        typer.echo(str(model))


def calm_threads() -> None:
    """Let OpenMP threads sleep while they wait: on a shared machine spinning ones cost far more than they gain.

    Read when torch is loaded, so this comes before its import; a value set by the user stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _sets(config: Any, root: Path, console: Console) -> Sets:
    from edgemtl.train.data import open_data
    from edgemtl.train.loop import Sets
    from edgemtl.train.mixed import Mixed

    model = config.model_config_for("multi")
    fit, watched = ("train:fit", "train:hold") if config.holdout else ("train", "val")
    augmented: dict[str, Any] = {"train": True, "seed": config.seed, "photo": config.photo}
    training = open_data(root, fit, model, **augmented)
    val = open_data(root, watched, model) if config.val_images else None
    if config.preload:
        with console.status(f"reading {len(training)} images from {root}"):
            training.preload()
    mixed = None if config.mix is None else open_data(config.mix.data, "train", model, **augmented)
    for line in (*training.reports(), *(mixed.reports() if mixed else ()), *(val.reports() if val else ())):
        console.print(line, highlight=False)
    whole = Mixed(training, mixed, config.mix.share, config.seed) if config.mix and mixed else training
    return Sets(whole, training.plain(), val)
