"""How the kinds of task are learnt and scored: one file each, of the same name as in `edgemtl/tasks`.

A file ends with `LEARNER = TheLearner()`; there is no list to add it to. Files that begin with an underscore are none.

The recipe is M3ViT's (Liang et al., NeurIPS 2022) after Vandenhende et al. (TPAMI 2021), whose pooling the metrics
follow, too; written from its description. Where other papers define a figure otherwise both are given, under two names,
and `edgemtl.train.protocols` keeps them in separate tables. Losses are float32, at the labels' resolution. 255 marks
invalid pixels throughout; a figure of a set without labels is NaN.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.errors import ConfigError
from edgemtl.tasks import INVALID
from edgemtl.train.config import LossConfig

PROTOCOLS = ("m3vit", "invpt")
Score = dict[str, Any]  # name: number, or a dict of them


class Figure(NamedTuple):
    """A metric's key in the results, how a table calls it, what it is multiplied by there, and its better direction."""

    key: str
    name: str
    scale: float = 1
    lower: bool = False


class Meter(Protocol):
    """Figures accumulated over a whole set."""

    def update(self, pred: Tensor, label: Tensor) -> None:
        """A batch: raw maps [B, C, H, W] at the labels' size, and labels as `edgemtl.tasks.Kind.target` gives them."""

    def compute(self) -> Score:
        """The figures; the main one also of a trivial prediction, as KEY_baseline."""


class Learner(ABC):
    """One kind's loss and metric. Maps are float32 [B, C, H, W], labels as `edgemtl.tasks.Kind.target` gives them."""

    weight = 1.0  # of the loss in the sum of all tasks, unless the recipe gives another
    own: Figure  # what edgemtl itself watches
    papers: Mapping[str, Figure] = {}  # by protocol, where it has another one than `own`
    more: Mapping[str, tuple[str, str]] = {}  # how tables call other figures, and which direction is better
    constant_from_training = False  # whether the trivial prediction is made of training labels, by `sums`, `constant`

    def count(self, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """float64 [n]: what a label gives to the means over a whole step; the first is that of the valid pixels.

        Each is a sum over pixels: those of the parts of a batch, here or in other processes, add up to the whole's.
        """
        return (label != INVALID).all(1).sum().double()[None]

    @abstractmethod
    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        """The unweighted scalar loss. counted: `count` of the whole that this is a part of; weight [C]: of the classes.

        A label without one valid pixel gives 0, and the gradient 0.
        """

    @abstractmethod
    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> Meter:
        """A new meter. constant: what `constant` gave, for the trivial prediction. boundary: the tolerance of outlines
        as a share of the diagonal, where the figures that need one are wanted; they are slow.
        """

    def sums(self, label: Tensor) -> Tensor:
        """What training labels give to `constant`; it is added up."""
        raise NotImplementedError

    def constant(self, sums: Tensor) -> Any:
        """What the trivial prediction says; None where no pixel was labelled."""
        raise NotImplementedError


def mean(total: Tensor, counted: Tensor) -> Tensor:
    """`total` over the first of `counted`, or 0 where that is 0."""
    valid = counted[0].float()
    return total / torch.where(valid > 0, valid, torch.ones_like(valid))


def names() -> tuple[str, ...]:
    """The kinds that can be learnt."""
    return tuple(kind for kind in tasks.names() if importlib.util.find_spec(f"{__name__}.{kind}"))


def find(name: str) -> Learner:
    """How the kind called `name` is learnt. Raises ConfigError."""
    tasks.find(name)
    if name not in names():
        raise ConfigError(f"tasks of kind {name!r} are not trained or scored: edgemtl/train/tasks has no {name}.py")
    learner = importlib.import_module(f"{__name__}.{name}").LEARNER
    assert isinstance(learner, Learner)
    return learner
