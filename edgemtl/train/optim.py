"""Optimiser, learning-rate schedule and averaged weights.

AdamW (Loshchilov & Hutter, ICLR 2019) as ViTs are trained from scratch, or SGD with momentum under the poly schedule
as M3ViT fine-tunes. The average of the weights (Polyak & Juditsky, 1992) is what gets evaluated and exported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgemtl.train.config import OptimiserConfig, ScheduleConfig


def lr_factor(schedule: ScheduleConfig, step: int, steps: int) -> float:
    """The share of the full learning rate in step `step` (from 0) of a stage of `steps`."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    t = (step - schedule.warmup) / max(1, steps - schedule.warmup)
    if schedule.kind == "poly":
        return (1 - t) ** schedule.power
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * t))


def build_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """Two groups: weight matrices, which decay, and biases, norms and embeddings, which do not."""
    decay: list[nn.Parameter] = []
    keep: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        plain = p.ndim < 2 or name.endswith(("bias", "cls_token", "pos_embed"))
        (keep if plain else decay).append(p)
    groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": keep, "weight_decay": 0.0}]
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


def optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as {"exp_avg/PARAMETER": tensor, ...}."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    return {f"{k}/{names[p]}": v for p, state in optimiser.state.items() for k, v in state.items()}


def restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Set the state that `optimiser_tensors` gave, in each parameter's own memory layout."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        p = parameters[name]
        if value.shape == p.shape:
            value = torch.empty_like(p, requires_grad=False).copy_(value)
        optimiser.state[p][kind] = value.to(p.device)


class Average:
    """Exponential moving average of a model's parameters, with a ramp so that early steps count less."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.parameters = list(model.parameters())
        self.names = [name for name, _ in model.named_parameters()]
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))

    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        self.updates = updates
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(state[name])
