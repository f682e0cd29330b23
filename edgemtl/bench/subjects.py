"""What is measured: the shipped model per task, and random-weight models of published shapes.

| name | model |
|---|---|
| `rooms`, `rooms:TASK` | the given bundle, all tasks or one |
| `single:TASK` | a dense ViT of the bundle's size, for this task alone |
| `stem:TASK` | the hybrid without blocks, for this task alone: a light convolution network |
| `edge-moe:TOKENS`, `edge-moe:TOKENS:eN` | Edge-MoE's shape (192 wide, top-2, hidden 384), 16 or N experts |
| `vit-tiny:TOKENS`, `vit-s:TOKENS` | dense ViTs |
| `micro`, `micro-dense` | for tests |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import ConfigError
from edgemtl.graph.count import count

SIZES = {129: (128, 256), 197: (224, 224), 257: (256, 256), 513: (256, 512), 577: (384, 384), 1025: (512, 512)}
SHAPES: dict[str, dict[str, Any]] = {
    "edge-moe": {"dim": 192, "depth": 12, "heads": 3, "experts": 16, "top_k": 2, "expert_ratio": 2.0},
    "vit-tiny": {"dim": 192, "depth": 12, "heads": 3, "moe": ()},
    "vit-s": {"dim": 384, "depth": 12, "heads": 6, "moe": ()},
}
MICRO: dict[str, Any] = {"dim": 32, "depth": 4, "heads": 2, "image_size": (32, 64), "head_dim": 16}
DEFAULT = ("rooms", "edge-moe:129", "edge-moe:197", "vit-tiny:197", "vit-s:1025")
ALTERNATIVES = ("single", "stem")
RANDOM = "random weights, seed 0"
_TASK = TaskConfig(name="depth", kind="depth", channels=1)


@dataclass(frozen=True)
class Subject:
    """One model and one task of it. `bundle` says where its weights are; without it: random."""

    name: str
    config: ModelConfig
    task: str
    origin: str = RANDOM
    bundle: str | None = None

    @property
    def work(self) -> int:
        """Multiply-accumulates of one frame, experts sparse."""
        return count(self.config, self.task).total

    @property
    def dense(self) -> bool:
        """Whether it has no choice of experts."""
        return not self.config.moe_blocks


def parse(name: str, bundle: Path | None = None) -> list[Subject]:
    """The subjects that `name` stands for. Raises ConfigError for an unknown name, BundleError for a bad bundle."""
    first, *rest = name.split(":")
    if first == "rooms" and len(rest) <= 1:
        return _rooms(rest, bundle)
    if first in ALTERNATIVES and len(rest) == 1:
        return [_alternative(first, rest[0], bundle)]
    if name in ("micro", "micro-dense"):
        banks: dict[str, Any] = {"experts": 6, "top_k": 2, "expert_ratio": 1.0}
        banks = {"moe": ()} if name == "micro-dense" else banks
        return [Subject(name, ModelConfig(name=name, tasks=(_TASK,), **MICRO, **banks), "depth")]
    found = re.fullmatch(r"(\d+)(?::e(\d+))?", ":".join(rest))
    if first not in SHAPES or not found or int(found[1]) not in SIZES or (found[2] and first != "edge-moe"):
        raise ConfigError(
            f"there is no benchmark subject {name!r}; choose rooms, rooms:TASK, single:TASK, stem:TASK,"
            " edge-moe:TOKENS, edge-moe:TOKENS:eN, vit-tiny:TOKENS or vit-s:TOKENS, with"
            f" {', '.join(map(str, SIZES))} tokens"
        )
    shape = SHAPES[first] | ({"experts": int(found[2])} if found[2] else {})
    config = ModelConfig(name=first, image_size=SIZES[int(found[1])], tasks=(_TASK,), **shape)
    return [Subject(name, config, "depth")]


def _rooms(tasks: list[str], bundle: Path | None) -> list[Subject]:
    from edgemtl.bundle.reader import Bundle

    if bundle is None:
        raise ConfigError("the subject 'rooms' needs a bundle: --bundle build/rooms.edgemtl (`make demo` builds it)")
    with Bundle.open(bundle) as opened:
        if opened.manifest.precision != "f32":
            raise ConfigError(
                f"{bundle.name} holds {opened.manifest.precision} weights; give the float32 bundle, of which"
                " --precision int8 makes INT8 for edgemtl and for peers"
            )
        config, origin = opened.manifest.model, opened.manifest.origin or "shipped weights"
    for task in tasks:
        if task not in config.task_names:
            raise ConfigError(f"{bundle.name} has no task {task!r}; it has {', '.join(config.task_names)}")
    return [Subject(f"rooms:{t}", config, t, origin, str(bundle)) for t in tasks or config.task_names]


def _alternative(kind: str, task: str, bundle: Path | None) -> Subject:
    """What one might take in place of the sparse model, of the size of the bundle's; or of the shipped one's."""
    from edgemtl.bundle.reader import Bundle
    from edgemtl.model.presets import preset

    config = preset("tiny")
    if bundle is not None and bundle.is_file():
        with Bundle.open(bundle) as opened:
            config = opened.manifest.model
    if task not in config.task_names:
        raise ConfigError(f"{kind} is for one of the tasks {', '.join(config.task_names)}, not {task!r}")
    if kind == "stem":
        fields = {"image_size": config.image_size, "tasks": (config.task(task),), "depth": 0, "head_norm": False}
        return Subject(f"stem:{task}", preset("hybrid", **fields), task)
    fields = {**dict(config.alone(task)), "moe": (), "slots": None, "name": "single"}
    return Subject(f"single:{task}", ModelConfig(**fields), task)
