"""How the tasks' losses or gradients become one step: fixed weights, uncertainty, GradNorm, conflict-free gradients.

`fixed`: the recipe's weights. `uncertainty`: each loss divided by a learned variance (Kendall et al., CVPR 2018).
`gradnorm`: weights that keep the tasks' gradients equally long, longer for a task that learns slowly (Chen et al.,
ICML 2018). The rest combine the tasks' gradients so that they do not cancel out, by torchjd: `config` (Liu et al.,
ICLR 2025; the step has the same positive cosine with every task's gradient), `pcgrad` (Yu et al., NeurIPS 2020),
`imtl-g` (Liu et al., ICLR 2021), `aligned-mtl` (Senushkin et al., CVPR 2023). The recipe's weights come first in all
of them. What a balancer learns is part of a run's state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgemtl.errors import ConfigError
from edgemtl.train.config import BalancerConfig

FROM_TORCHJD = {"config": "ConFIG", "pcgrad": "PCGrad", "imtl-g": "IMTLG", "aligned-mtl": "AlignedMTL"}


class Balancer:
    """Fixed weights, and the base of the others."""

    per_task = False  # whether `combine` wants one gradient per task

    def __init__(self, tasks: tuple[str, ...], weights: Mapping[str, float]) -> None:
        self.tasks, self.fixed = tasks, dict(weights)

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by in the next step."""
        return self.fixed

    def combine(self, names: tuple[str, ...], gradients: Tensor, losses: Mapping[str, float]) -> Tensor:
        """One gradient [n] from the gradients [T, n] of the weighted losses of tasks `names`; all rows are nonzero."""
        return gradients.sum(0)

    def update(self, losses: Mapping[str, float]) -> None:
        """Learn from the step's unweighted losses."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Set what `state` gave."""


class Uncertainty(Balancer):
    """loss_t · exp(-s_t) + s_t / 2 with a learned s_t = log σ² per task, from 0, by gradient descent."""

    def __init__(self, tasks: tuple[str, ...], weights: Mapping[str, float], config: BalancerConfig) -> None:
        super().__init__(tasks, weights)
        self.lr = config.lr
        self.log_variance = dict.fromkeys(tasks, 0.0)

    def weights(self) -> dict[str, float]:
        return {t: w * math.exp(-self.log_variance[t]) for t, w in self.fixed.items()}

    def update(self, losses: Mapping[str, float]) -> None:
        weights = self.weights()
        for task, loss in losses.items():
            if loss > 0:  # a task without labels in this batch says nothing about its variance
                self.log_variance[task] -= self.lr * (0.5 - weights[task] * loss)

    def state(self) -> dict[str, Tensor]:
        return {"log_variance": torch.tensor([self.log_variance[t] for t in self.tasks], dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.log_variance = dict(zip(self.tasks, state["log_variance"].tolist(), strict=True))


class GradNorm(Balancer):
    """Weights w_t, of mean 1, by descent in log w_t on Σ |w_t·|g_t| - mean·r_t^α|; r_t is the task's lag in learning.

    The paper takes the gradients' lengths at the last shared layer; here they are those of all parameters.
    """

    per_task = True

    def __init__(self, tasks: tuple[str, ...], weights: Mapping[str, float], config: BalancerConfig) -> None:
        super().__init__(tasks, weights)
        self.lr, self.alpha = config.lr, config.alpha
        self.factor = dict.fromkeys(tasks, 1.0)
        self.start: dict[str, float] = {}

    def combine(self, names: tuple[str, ...], gradients: Tensor, losses: Mapping[str, float]) -> Tensor:
        factor = gradients.new_tensor([self.factor[t] for t in names])
        step = factor @ gradients
        length = dict(zip(names, gradients.norm(dim=1).tolist(), strict=True))
        for task in names:
            self.start.setdefault(task, losses[task])
        ratio = {t: losses[t] / self.start[t] for t in names}
        mean_ratio = sum(ratio.values()) / len(names)
        mean = sum(self.factor[t] * length[t] for t in names) / len(names)
        for t in names:
            target = mean * (ratio[t] / mean_ratio) ** self.alpha
            # descent in log w, relative to the mean: the losses' scale does not matter, and w stays positive
            weighted = self.factor[t] * length[t]
            self.factor[t] *= math.exp(-self.lr * math.copysign(weighted / mean, weighted - target))
        total = sum(self.factor.values())
        self.factor = {t: f * len(self.tasks) / total for t, f in self.factor.items()}
        return step

    def state(self) -> dict[str, Tensor]:
        start = [self.start.get(t, math.nan) for t in self.tasks]
        return {"factor_and_start": torch.tensor([list(self.factor.values()), start], dtype=torch.float64)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        factor, start = state["factor_and_start"].tolist()
        self.factor = dict(zip(self.tasks, factor, strict=True))
        self.start = {t: s for t, s in zip(self.tasks, start, strict=True) if not math.isnan(s)}


class ConflictFree(Balancer):
    """One of torchjd's aggregators of the tasks' gradients."""

    per_task = True

    def __init__(self, tasks: tuple[str, ...], weights: Mapping[str, float], kind: str) -> None:
        super().__init__(tasks, weights)
        try:
            from torchjd import aggregation
        except ImportError:
            raise ConfigError(
                f"balancer {kind} needs torchjd, which is not installed; type: pip install 'edgemtl[train]'"
            ) from None
        self.aggregate: Any = getattr(aggregation, FROM_TORCHJD[kind])()

    def combine(self, names: tuple[str, ...], gradients: Tensor, losses: Mapping[str, float]) -> Tensor:
        return gradients[0] if len(names) == 1 else self.aggregate(gradients)


def make_balancer(config: BalancerConfig, tasks: tuple[str, ...], weights: Mapping[str, float]) -> Balancer:
    """The recipe's balancer for these tasks, whose losses have these weights."""
    if config.kind == "uncertainty":
        return Uncertainty(tasks, weights, config)
    if config.kind == "gradnorm":
        return GradNorm(tasks, weights, config)
    return ConflictFree(tasks, weights, config.kind) if config.kind in FROM_TORCHJD else Balancer(tasks, weights)
