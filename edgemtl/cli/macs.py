"""`edgemtl macs`: what one frame of each task costs, by part, beside M3ViT's decoder-heavy form of the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _text
from edgemtl.errors import ConfigError

if TYPE_CHECKING:
    from edgemtl.config import ModelConfig

PEER = "a dense single-task ViT of the same width and blocks with M3ViT's decoder"
SHORT = {"embedding": "embed", "projections": "qkv+proj", "attention": "attend", "dense": "MLPs"}


def macs(
    model: Annotated[Path | None, typer.Argument(help="A bundle (.edgemtl) or a checkpoint (.safetensors).")] = None,
    preset: Annotated[str | None, typer.Option(help="A named shape instead of a file, such as m3vit-s.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="With paths of so many experts; see `eval --width`.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count multiply-accumulates per task by formula: attention's products, gates and only the routed experts in it."""
    config = _config(model, preset)
    facts = measure(config if width is None else config.at_width(width))
    if json:
        _text.as_json(facts)
        return
    console, parts, peer = _text.console(), list(next(iter(facts["tasks"].values()))["parts"]), facts["peer"]
    rows = [
        (task, *(_millions(n) for n in (*found["parts"].values(), found["total"])), f"{found['fewer'] + 0.0:.1%}")
        for task, found in facts["tasks"].items()
    ]
    columns = ("task", *(SHORT.get(p, p) for p in parts), "total", "fewer *")
    console.print("million multiply-accumulates per frame, counted by formula")
    console.print(_text.table(columns, rows, len(parts) + 2))
    console.print(f"* than {PEER}: {_millions(peer['one'])} M", soft_wrap=True)
    console.print(
        f"all {len(rows)} tasks: {_millions(facts['all_tasks'])} M, what they share counted once; such a model per"
        f" task: {_millions(peer['all'])} M, of which one task here is {facts['of_all']:.1%} at most",
        soft_wrap=True,
    )


def _millions(count: float) -> str:
    return f"{count / 1e6:.0f}" if count >= 1e9 else f"{count / 1e6:.1f}"


def measure(config: ModelConfig) -> dict[str, Any]:
    """The counts of a model. `peer` is the mean over the tasks of one such model, and the sum of one per task."""
    from edgemtl.graph.count import count, prefix

    heavy = decoder_heavy(config)
    works = {t: count(config, t) for t in config.task_names}
    peers = {t: count(heavy, t).total for t in config.task_names}
    tasks = {
        t: {"total": w.total, "parts": w._asdict(), "peer": peers[t], "fewer": 1 - w.total / peers[t]}
        for t, w in works.items()
    }
    shared = prefix(config)
    return {
        "origin": "counted by formula",
        "tasks": tasks,
        "all_tasks": shared + sum(w.total - shared for w in works.values()),
        "peer": {"what": PEER, "one": sum(peers.values()) / len(peers), "all": sum(peers.values())},
        "of_all": max(w.total for w in works.values()) / sum(peers.values()),
    }


def decoder_heavy(config: ModelConfig) -> ModelConfig:
    """The dense model of the same backbone and tasks with M3ViT's decoder."""
    from edgemtl.config import ModelConfig as Config

    heads: dict[str, Any] = {"head": "conv", "head_dim": 256, "head_stride": config.patch // 8, "rays": False}
    if config.stem != "patch":
        heads |= {"stem": "patch", "depth": max(config.depth, 1)}
    return Config(**{**dict(config), "moe": (), "paths": {}, "widths": (), "slots": None, **heads})


def _config(model: Path | None, preset: str | None) -> ModelConfig:
    if (model is None) == (preset is None):
        raise ConfigError("name one thing to count: a bundle, a checkpoint, or --preset tiny")
    if preset is not None:
        from edgemtl.model.presets import preset as named

        return named(preset)
    assert model is not None
    if model.suffix == ".edgemtl":
        from edgemtl.bundle.reader import Bundle

        with Bundle.open(model) as opened:
            return opened.manifest.model
    from edgemtl.bundle.checkpoint import read_info

    return read_info(model).config
