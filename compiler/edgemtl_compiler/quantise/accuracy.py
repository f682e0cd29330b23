"""What INT8 costs each task, and which layers go back to float where it costs too much.

With labels: every task's main metric of the float model and of the INT8 one over the same validation images. Without:
how far the maps agree. The rule is at most 1 % relative loss of every metric; where it does not hold, the units that
alone move the maps most become float again, as few as make it hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from edgemtl import tasks
from edgemtl.bundle.manifest import TaskAccuracy
from edgemtl.config import ModelConfig
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import chunks, open_data, spread
from edgemtl.train.evaluate import Predictor, evaluate, losses, torch_predictor
from edgemtl_compiler.precision import pack_int8
from edgemtl_compiler.quantise.calibrate import normalised
from edgemtl_compiler.quantise.cpu import Quantised
from edgemtl_compiler.quantise.fake_int8 import fake_model
from edgemtl_compiler.quantise.pictures import is_labelled, pictures

GOAL = 0.01  # relative loss of a task's metric
RANKED_ON = 8  # images for the errors of single units, which settle quickly
AGREEMENT = "agreement"
FAKE = "measured, fake-quantised PyTorch model"

Report = Callable[[str], None]
Accuracies = dict[str, TaskAccuracy]


class Judge:
    """Compares INT8 predictors with the float model on up to `limit` images of `folder`: its val split if it is a
    labelled data set, else its pictures.
    """

    def __init__(self, model: MultiTaskViT, folder: Path, limit: int, report: Report = lambda _: None) -> None:
        self.model, self.config, self.report = model, model.config, report
        self.labelled = is_labelled(folder)
        self._float: Any = None
        if self.labelled:
            self.data = open_data(folder, "val", model.config)
            self.count = min(limit, len(self.data))
        else:
            self.images = pictures(folder, model.config, limit).images
            self.count = len(self.images)

    def accuracies(self, predictor: Predictor, origin: str, batch: int = 1) -> Accuracies:
        """Every task's figures; `origin` says what the predictor is."""
        if not self.labelled:
            return self._agreements(predictor, origin)
        if self._float is None:
            self._float = self._score(torch_predictor(self.model), "float", 4)
        found = losses(self._float, self._score(predictor, "INT8", batch))
        return {
            task: TaskAccuracy(
                metric=x.metric, images=self.count, float32=x.before, int8=x.after, loss=x.relative, origin=origin
            )
            for task, x in found.items()
        }

    def few(self) -> Tensor:
        """Some of the images [n, 3, H, W], normalised."""
        if self.labelled:
            return self.data.batch(spread(self.data, min(RANKED_ON, self.count)))["image"]
        return normalised(self.images[:RANKED_ON], self.config)

    def _score(self, predictor: Predictor, what: str, batch: int) -> Any:
        def tell(done: int, of: int) -> None:
            self.report(f"scoring {what}: {done} of {of} images")

        return evaluate(predictor, self.data, self.config, limit=self.count, batch=batch, progress=tell)

    def _agreements(self, predictor: Predictor, origin: str) -> Accuracies:
        shares: dict[str, list[float]] = {task.name: [] for task in self.config.tasks}
        for part in chunks(list(range(self.count)), 1):
            image = normalised(self.images[part], self.config)
            want, got = torch_predictor(self.model)(image), predictor(image)
            for task in self.config.tasks:
                wanted = np.asarray(want[task.name], np.float64)
                found = np.asarray(got[task.name]).reshape(wanted.shape)
                shares[task.name].append(tasks.find(task.kind).agreement(found, wanted))
            self.report(f"comparing maps: {part[-1] + 1} of {self.count} images")
        means = {task: float(np.mean(values)) for task, values in shares.items()}
        return {
            task: TaskAccuracy(metric=AGREEMENT, images=self.count, float32=1, int8=m, loss=1 - m, origin=origin)
            for task, m in means.items()
        }


def beyond(accuracies: Mapping[str, TaskAccuracy]) -> list[str]:
    """Tasks that break the rule; agreement is no metric and breaks none."""
    return [task for task, a in accuracies.items() if a.metric != AGREEMENT and not a.loss <= GOAL]


def fake_predictor(quantised: Quantised, without: Sequence[str]) -> Predictor:
    """The INT8 model in PyTorch, the units `without` in float."""
    codes = quantised.codes(without)
    return torch_predictor(fake_model(quantised.config, pack_int8(quantised, codes), codes))


def rank(judge: Judge, quantised: Quantised) -> list[str]:
    """Units by how far each alone, in INT8, moves the tasks' maps; the worst first."""
    image, names = judge.few(), [u.name for u in quantised.units]
    want = torch_predictor(judge.model)(image)
    errors = {}
    for number, name in enumerate(names):
        judge.report(f"ranking layers: {number + 1} of {len(names)}")
        got = fake_predictor(quantised, [n for n in names if n != name])(image)
        errors[name] = max(_distance(got[t], want[t]) for t in want)
    return sorted(names, key=lambda n: -errors[n])


def _distance(got: Tensor, want: Tensor) -> float:
    return float((got - want).square().mean().sqrt() / want.square().mean().sqrt().clamp(min=1e-12))


def fewest(ranking: Sequence[str], holds: Callable[[Sequence[str]], bool], at_least: int = 1) -> list[str]:
    """The shortest beginning of `ranking`, of `at_least` names, for which `holds`, by bisection; all if none does."""
    low, high = min(at_least, len(ranking)), len(ranking)
    while low < high:
        middle = (low + high) // 2
        if holds(ranking[:middle]):
            high = middle
        else:
            low = middle + 1
    return list(ranking[:low])


def float_units(judge: Judge, quantised: Quantised, ranking: Sequence[str], at_least: int) -> list[str]:
    """Units that must stay float for the rule to hold, by the fake-quantised model."""

    def holds(without: Sequence[str]) -> bool:
        return not beyond(judge.accuracies(fake_predictor(quantised, without), FAKE, 4))

    return fewest(ranking, holds, at_least)


def never(config: ModelConfig) -> tuple[tuple[str, ...], str]:
    """References of the linear layers that are float in every INT8 bundle, and the reason."""
    steps = ("step0.pointwise", "step1.pointwise", "out")
    refs = tuple(f"task.{task.name}:head.{step}" for task in config.tasks for step in steps)
    return refs, f"{config.head_dim} channels only; there is no INT8 kernel for it"
