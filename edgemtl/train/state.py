"""A training run's state on disk: weights, averages and optimiser as one safetensors file, the rest in its metadata.

Written atomically: the previous state stays until the new one is whole. No pickle.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model.checkpoint import serialise, write_atomic
from edgemtl.train.config import TrainConfig

FORMAT = "edgemtl-run"
VERSION = 1
FILE = "state.safetensors"
# settings that may change between the parts of a run, because no loss depends on them
FREE = {"data", "out", "device", "log_every", "usage_every", "checkpoint_every", "val_images", "tensorboard", "preload"}


@dataclass
class Position:
    """Where a run stands. `window` holds sum and count of each loss since the last log line."""

    stage: int = 0  # index into the recipe's stages
    step: int = 0  # steps done in this stage
    total: int = 0  # steps done in the run
    seen: int = 0  # images drawn, skipped ends of epochs included
    averaged: int = 0  # updates of the averaged weights in this stage
    log_bytes: int = 0  # length of the log when the state was written
    window: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class RunState:
    """All of a run: `tensors` has keys model/..., average/..., optimiser/KIND/..., class_weight/TASK."""

    position: Position
    model_config: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name`/, without that prefix."""
        return {k[len(name) + 1 :]: v for k, v in self.tensors.items() if k.startswith(name + "/")}


def _comparable(recipe: TrainConfig) -> dict[str, Any]:
    return {k: v for k, v in recipe.model_dump(mode="json").items() if k not in FREE}


def save_state(folder: Path, state: RunState, recipe: TrainConfig) -> None:
    """Replace the run state in `folder`."""
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "position": json.dumps(asdict(state.position)),
        "model": json.dumps(state.model_config),
        "recipe": json.dumps(_comparable(recipe)),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.tensors.items()}
    write_atomic(folder / FILE, serialise(tensors, metadata))


def load_state(folder: Path, recipe: TrainConfig) -> RunState:
    """Read the run state in `folder`.

    Raises CheckpointError if it is missing or damaged, ConfigError if the recipe has changed since.
    """
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} holds no run to resume; leave out --resume to start one")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, str(VERSION)):
                raise CheckpointError(f"{path} is no run state that this edgemtl reads; start again without --resume")
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        position, model = Position(**json.loads(metadata["position"])), json.loads(metadata["model"])
        old = TrainConfig(**json.loads(metadata["recipe"]))  # with today's defaults for new settings
        numbers = [v for k, v in asdict(position).items() if k != "window"]
        if any(not isinstance(n, int) or n < 0 for n in numbers) or position.stage >= len(old.stages):
            raise ValueError("its position is no place in a run")
        if not isinstance(position.window, dict):
            raise ValueError("its window holds no losses")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(f"{path} is damaged ({reason}); start again without --resume in another --out") from None
    before = _comparable(old)
    now = _comparable(recipe)
    changed = sorted(k for k in now.keys() | before.keys() if now.get(k) != before.get(k))
    if changed:
        raise ConfigError(f"{', '.join(changed)} changed since this run began; undo that, or give another --out")
    return RunState(position, model, tensors)
