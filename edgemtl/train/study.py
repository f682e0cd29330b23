"""Train the models to be compared, on the same data and budget, and score them: `python -m edgemtl.train.study --help`.

One YAML file names them (configs/study_rooms.yaml): a `base` recipe, and per model what differs from it. Every model
has a folder in the output; run the command again to go on where it stopped. A model may start from another's stage
(`init: open/shared`), which is how the declared paths branch off the open gates.

`study.json`, rewritten after each model:

    {"format": "edgemtl-study", "version": 1, "origin": "measured", "data": str, "commit": str | null,
     "machine": str, "torch": str, "threads": int, "load": float, "train_images": int, "test_images": int,
     "baseline": [names],
     "models": [{"name", "seed", "what": str, "tasks": [str], "network": "vit" | "bisenet" | "bisenet-lite0",
       "parameters": int, "macs": int, "macs_of_task": {task: int}, "images_seen": int, "steps": int, "batch": int,
       "wall_hours": float, "cpu_hours": float, "checkpoint": str, "experts_per_path": int | null,
       "metrics": {task: {"metric": "miou" | "rmse" | "mean_angle" | "edge_f", "value": float, "trivial": float}},
       "delta_m": float | null}]}

`data` says which sets the figures are of, for example "synthetic rooms". `macs` are a frame's multiply-accumulates
with all tasks active, `macs_of_task` with one. `load` is the machine's load average when the file was written.
`delta_m` is in percent against the baseline's single-task models of the same seed, null until those exist. What an
`init` has seen is counted in `images_seen`, `steps` and the hours. The full scores are in NAME-sSEED/scores.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import ValidationError
from rich.console import Console

from edgemtl.errors import ConfigError, EdgeMTLError
from edgemtl.model.checkpoint import write_atomic
from edgemtl.train.comparators import load_network
from edgemtl.train.config import TrainConfig, first_error, shipped
from edgemtl.train.data import open_data
from edgemtl.train.evaluate import evaluate, torch_predictor, training_constants
from edgemtl.train.loop import Sets, Stopped, Trainer
from edgemtl.train.report import Reporter
from edgemtl.train.state import FILE as STATE
from edgemtl.train.state import load_state
from edgemtl.train.study_file import Study
from edgemtl.train.study_report import line, table, write_report


def load_study(path: Path, **folders: Path | None) -> Study:
    """Read a study's YAML file, or a shipped one by name; `data` and `test` override its own where they are given.

    Raises ConfigError in one sentence.
    """
    import yaml

    known = shipped(studies=True)
    file = path if path.is_file() else known.get(str(path))
    if file is None:
        raise ConfigError(f"there is no study {str(path)!r}; give a YAML file or one of {', '.join(known)}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ConfigError(f"{file} must hold a mapping with data, test and models; see {known['study_rooms']}")
        return Study(**{**content, **{k: v for k, v in folders.items() if v}})
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(e).split())}") from None
    except ValidationError as e:
        raise ConfigError(first_error(e, str(file))) from None
    except TypeError as e:
        raise ConfigError(f"{file}: {e}") from None


def run(study: Study, out: Path, console: Console, only: Sequence[str] = ()) -> Path:
    """Train and score every model that is not done yet, or those of `only`; returns study.json.

    Raises Stopped after Ctrl-C, and ConfigError for a name that is no model's and if a model's recipe has changed since
    it was trained.
    """
    names = [m.name for m in study.models]
    for name in only:
        if name not in names:
            raise ConfigError(f"there is no model {name!r} in this study; choose from {', '.join(names)}")
    for seed in study.seeds:
        for member in (m for m in study.models if not only or m.name in only):
            folder = out / f"{member.name}-s{seed}"
            recipe = study.recipe(member, seed)
            if not (folder / "model.safetensors").exists():
                console.print(f"{folder.name}: training")
                init = None
                if member.init:
                    source, stage = member.init.split("/")
                    init = out / f"{source}-s{seed}" / f"{stage}.safetensors"
                    if not init.is_file():
                        raise ConfigError(f"{member.name} starts from {init}, which is missing; train {source} first")
                _train(recipe, folder, study, init, console)
            elif (folder / STATE).exists():
                load_state(folder, recipe)
            if not (folder / "scores.json").exists():
                scores = _score(recipe, folder, study)
                write_atomic(folder / "scores.json", json.dumps(scores).encode())
            path = write_report(study, out)
            console.print(f"{folder.name}: {line(json.loads(path.read_text()), member.name, seed)}")
    return path


def _train(recipe: TrainConfig, folder: Path, study: Study, init: Path | None, console: Console) -> None:
    """Train into `folder`, going on with what is there; the time taken is noted even if it stops."""
    config = recipe.model_config_for("multi")
    training = open_data(recipe.data, study.trained_on, config, train=True, seed=recipe.seed, photo=recipe.photo)
    for report in training.reports():
        console.print(report, highlight=False)
    training.preload()
    sets = Sets(training, training.plain())
    resume = (folder / STATE).exists()
    wall, cpu = time.time(), time.process_time()
    try:
        Trainer(recipe, folder, sets, Reporter(console)).run(resume=resume, init=None if resume else init)
    finally:
        spent = {"wall": time.time() - wall, "cpu": time.process_time() - cpu}
        with open(folder / "times.jsonl", "a") as f:
            f.write(json.dumps(spent) + "\n")


def _score(recipe: TrainConfig, folder: Path, study: Study) -> dict[str, Any]:
    model = load_network(folder / "model.safetensors")
    constants = training_constants(open_data(study.data, study.trained_on, model.config), model.config, 200)
    data = open_data(*study.tested_on, model.config)
    return evaluate(torch_predictor(model), data, model.config, batch=8, constants=constants)


def main(
    config: Annotated[Path, typer.Argument(help="A YAML file, or a shipped study: study_rooms.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the runs and of study.json.")],
    data: Annotated[Path | None, typer.Option(help="Folder to train on; overrides the study.")] = None,
    test: Annotated[Path | None, typer.Option(help="Folder to test on; overrides the study.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A model to train and score; all by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
) -> None:
    """Train and score the models of a study; run it again to go on."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        study = load_study(config, data=data, test=test)
        path = run(study, out, Console(stderr=True), only or ())
    except Stopped as e:
        print(f"{e}; run the same command again to go on", file=sys.stderr)
        raise typer.Exit(130) from None
    except EdgeMTLError as e:
        print(f"error: {e}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(table(json.loads(path.read_text())))


if __name__ == "__main__":
    typer.run(main)
