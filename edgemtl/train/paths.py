"""Task paths: which experts each task uses, measured by routed weight, then declared.

M3ViT's hooks for usage-based pruning rank experts by mean gate activation but are never called; here the ranking
becomes part of the model's configuration, and training and inference alike mask what is outside.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import Samples, chunks, spread


@torch.no_grad()
def routed_weight(model: MultiTaskViT, data: Samples, *, images: int = 512, batch: int = 16) -> dict[str, Tensor]:
    """{task: float64 [MoE blocks, E]}: sum of the scores that the task's tokens gave each expert of the bank."""
    config, device, training = model.config, model.backbone.cls_token.device, model.training
    blocks = config.moe_blocks
    total = {t: torch.zeros(len(blocks), config.experts, dtype=torch.float64) for t in config.task_names}
    model.eval()
    try:
        for indices in chunks(spread(data, images), batch):
            _, trace = model.trace(data.batch(indices)["image"].to(device))
            for (task, block), routing in trace.routings.items():
                index, score = routing.expert.flatten().cpu(), routing.score.flatten().double().cpu()
                total[task][blocks.index(block)].index_add_(0, index, score)
    finally:
        model.train(training)
    return total


def rank_experts(weight: Tensor) -> list[tuple[int, ...]]:
    """Per row of routed weight [MoE blocks, E], the experts by falling weight; ties go to the lower index."""
    order = weight.sort(dim=-1, descending=True, stable=True).indices
    return [tuple(int(e) for e in row) for row in order]


def declare_paths(
    model: MultiTaskViT, data: Samples, experts_per_path: int = 6, *, images: int = 512, batch: int = 16
) -> ModelConfig:
    """The model's configuration with, per task and MoE block, the `experts_per_path` experts of most routed weight.

    The weights stay as they are; build a model with the new configuration, load them, and fine-tune.
    """
    config = model.config
    if config.gate == "single":
        raise ConfigError("a model with one shared gate has no task paths to declare; convert it with to_multi_gate")
    if not config.top_k <= experts_per_path <= config.experts:
        raise ConfigError(
            f"{experts_per_path} experts per path do not fit; give {config.top_k} (top_k) to {config.experts}"
        )
    weight = routed_weight(model, data, images=images, batch=batch)
    paths = {
        task: tuple(tuple(sorted(ranked[:experts_per_path])) for ranked in rank_experts(weight[task]))
        for task in config.task_names
    }
    return ModelConfig(**{**dict(config), "paths": paths})
