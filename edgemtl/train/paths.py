"""Task paths: which experts each task uses, measured by routed weight, then declared.

M3ViT's hooks for usage-based pruning rank experts by mean gate activation but are never called; here the ranking
becomes part of the model's configuration, and training and inference alike mask what is outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import Samples, chunks, spread


@dataclass(frozen=True)
class Usage:
    """What one task's gates did over some images: float64 [MoE blocks, E], by global expert id.

    weight: sum of the scores given to an expert; chosen: tokens that chose it; first: those whose best choice it was;
    tokens: how many there were, per block.
    """

    weight: Tensor
    chosen: Tensor
    first: Tensor
    tokens: int


@torch.no_grad()
def measure_usage(model: MultiTaskViT, data: Samples, *, images: int = 512, batch: int = 16) -> dict[str, Usage]:
    """{task: its usage} over up to `images` evenly spaced images. With one shared gate all tasks have the same."""
    config, device, training = model.config, next(model.parameters()).device, model.training
    blocks, shape = config.moe_blocks, (len(config.moe_blocks), config.experts)
    held = [torch.tensor(ids) for ids in config.held]
    sums = {t: [torch.zeros(shape, dtype=torch.float64) for _ in range(3)] for t in config.task_names}
    indices = spread(data, images)
    model.eval()
    try:
        for part in chunks(indices, batch):
            _, trace = model.trace(data.batch(part)["image"].to(device))
            for (task, block), routing in trace.routings.items():
                which = blocks.index(block)
                ids, score = held[which][routing.expert.cpu()], routing.score.double().cpu()
                for total, index, value in (
                    (sums[task][0], ids, score),
                    (sums[task][1], ids, torch.ones_like(score)),
                    (sums[task][2], ids[:, :1], torch.ones_like(score[:, :1])),
                ):
                    total[which].index_add_(0, index.flatten(), value.flatten())
    finally:
        model.train(training)
    routed = config.task_names if config.gate != "single" or config.paths else config.task_names[:1]
    tokens = len(indices) * config.tokens
    found = {task: Usage(sums[task][0], sums[task][1], sums[task][2], tokens) for task in routed}
    return {task: found.get(task, found[routed[0]]) for task in config.task_names}


def rank_experts(weight: Tensor) -> list[tuple[int, ...]]:
    """Per row of routed weight [MoE blocks, E], the experts by falling weight; ties go to the lower index."""
    order = weight.sort(dim=-1, descending=True, stable=True).indices
    return [tuple(int(e) for e in row) for row in order]


def check_path_size(config: ModelConfig, experts_per_path: int) -> None:
    """Raises ConfigError for a model that can have no paths, and for paths of a size that cannot be."""
    if config.gate == "single":
        raise ConfigError("a model with one shared gate has no task paths to declare; convert it with to_multi_gate")
    if not config.top_k <= experts_per_path <= config.experts:
        raise ConfigError(
            f"{experts_per_path} experts per path do not fit; give {config.top_k} (top_k) to {config.experts}"
        )


def best_paths(config: ModelConfig, usage: dict[str, Usage], experts_per_path: int) -> ModelConfig:
    """The configuration with, per task and MoE block, the `experts_per_path` experts of most routed weight, the
    most used first.

    The weights stay as they are; build a model with the new configuration, load them, and fine-tune. Raises as
    `check_path_size`.
    """
    check_path_size(config, experts_per_path)
    paths = {
        task: tuple(ranked[:experts_per_path] for ranked in rank_experts(usage[task].weight))
        for task in config.task_names
    }
    return ModelConfig(**{**dict(config), "paths": paths})


def draw_width(widths: tuple[int, ...], seed: int, step: int) -> int:
    """How many experts of each path are open in this step of a run: the last of `widths`, the whole path, with
    probability 1/2, else any of the others. A pure function, so that all processes and a resumed run draw alike."""
    *narrow, whole = widths
    rng = np.random.Generator(np.random.PCG64([seed, 2, step]))
    return int(rng.choice(narrow)) if narrow and rng.random() < 0.5 else whole
