"""What INT8 costs each task, and which layers go back to float where it costs too much.

With labels: every task's main metric of the float model and of the INT8 one over the same validation images. Without:
how far the maps agree; without pictures, those of the bundle's goldens. The rule is at most 1 % relative loss of every
metric; where it does not hold, the units that alone move the maps most become float again, as few as make it hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl import tasks
from edgemtl.bundle.checkpoint import State
from edgemtl.bundle.layout import entries
from edgemtl.bundle.manifest import TaskAccuracy
from edgemtl.config import ModelConfig
from edgemtl_compiler.goldens import Outputs
from edgemtl_compiler.precision import pack_int8
from edgemtl_compiler.quantise.calibrate import as_input
from edgemtl_compiler.quantise.cpu import Quantised
from edgemtl_compiler.quantise.fake_int8 import FakeInt8
from edgemtl_compiler.quantise.pictures import is_labelled, pictures

if TYPE_CHECKING:
    from edgemtl.train.evaluate import Predictor

GOAL = 0.01  # relative loss of a task's metric
RANKED_ON = 8  # images for the errors of single units, which settle quickly
AGREEMENT = "agreement"
FAKE = "measured, INT8 reference in NumPy"

Report = Callable[[str], None]
Accuracies = dict[str, TaskAccuracy]


class Judge:
    """Compares INT8 predictors with the float model on up to `limit` images of `folder`: its val split if it is a
    labelled data set, else its pictures. The float model runs in PyTorch, and metrics are those of training.
    """

    def __init__(
        self, config: ModelConfig, state: State, folder: Path, limit: int, report: Report = lambda _: None
    ) -> None:
        from edgemtl.model.checkpoint import model_of
        from edgemtl.train.data import open_data
        from edgemtl.train.evaluate import torch_predictor

        self.config, self.report = config, report
        self.predict = torch_predictor(model_of(config, state))
        self.labelled = is_labelled(folder)
        self._float: Any = None
        if self.labelled:
            self.data = open_data(folder, "val", config)
            self.count = min(limit, len(self.data))
        else:
            self.images = pictures(folder, config, limit).images
            self.count = len(self.images)

    def accuracies(self, predictor: Predictor, origin: str, batch: int = 1) -> Accuracies:
        """Every task's figures; `origin` says what the predictor is."""
        from edgemtl.train.evaluate import losses

        if not self.labelled:
            return self._agreements(predictor, origin)
        if self._float is None:
            self._float = self._score(self.predict, "float", 4)
        found = losses(self._float, self._score(predictor, "INT8", batch))
        return {
            task: TaskAccuracy(
                metric=x.metric, images=self.count, float32=x.before, int8=x.after, loss=x.relative, origin=origin
            )
            for task, x in found.items()
        }

    def few(self) -> Any:
        """Some of the images as a tensor [n, 3, H, W], normalised."""
        from edgemtl.train.data import spread

        if self.labelled:
            return self.data.batch(spread(self.data, min(RANKED_ON, self.count)))["image"]
        return self._tensor(self.images[:RANKED_ON])

    def _tensor(self, images: NDArray[np.uint8]) -> Any:
        import torch

        inputs = np.stack([as_input(image, self.config) for image in images])
        return torch.from_numpy(inputs).permute(0, 3, 1, 2).contiguous()

    def _score(self, predictor: Predictor, what: str, batch: int) -> Any:
        from edgemtl.train.evaluate import evaluate

        def tell(done: int, of: int) -> None:
            self.report(f"scoring {what}: {done} of {of} images")

        return evaluate(predictor, self.data, self.config, limit=self.count, batch=batch, progress=tell)

    def _agreements(self, predictor: Predictor, origin: str) -> Accuracies:
        shares: dict[str, list[float]] = {task.name: [] for task in self.config.tasks}
        for i in range(self.count):
            image = self._tensor(self.images[i : i + 1])
            want, got = self.predict(image), predictor(image)
            for task in self.config.tasks:
                wanted = np.asarray(want[task.name], np.float64)
                found = np.asarray(got[task.name]).reshape(wanted.shape)
                shares[task.name].append(tasks.find(task.kind).agreement(found, wanted))
            self.report(f"comparing maps: {i + 1} of {self.count} images")
        return _agreed(shares, origin)


def of_goldens(config: ModelConfig, found: Outputs, golden: Outputs) -> Accuracies:
    """How far the INT8 reference's maps of the goldens agree with the float ones."""
    shares: dict[str, list[float]] = {}
    for task in config.tasks:
        agreement = tasks.find(task.kind).agreement
        shares[task.name] = [agreement(found[task.name][n], want) for n, want in golden[task.name].items()]
    return _agreed(shares, f"{FAKE}, on the goldens")


def _agreed(shares: Mapping[str, Sequence[float]], origin: str) -> Accuracies:
    out = {}
    for task, values in shares.items():
        mean = float(np.mean(values))
        out[task] = TaskAccuracy(
            metric=AGREEMENT, images=len(values), float32=1, int8=mean, loss=1 - mean, origin=origin
        )
    return out


def beyond(accuracies: Mapping[str, TaskAccuracy]) -> list[str]:
    """Tasks that break the rule; agreement is no metric and breaks none."""
    return [task for task, a in accuracies.items() if a.metric != AGREEMENT and not a.loss <= GOAL]


def fake_predictor(quantised: Quantised, without: Sequence[str]) -> Predictor:
    """The INT8 reference, the units `without` in float."""
    codes = quantised.codes(without)
    fake = FakeInt8(quantised.config, pack_int8(quantised, codes), codes)
    return lambda image: fake(image.numpy())


def rank(judge: Judge, quantised: Quantised) -> list[str]:
    """Units by how far each alone, in INT8, moves the tasks' maps; the worst first."""
    image, names = judge.few(), [u.name for u in quantised.units]
    want = judge.predict(image)
    errors = {}
    for number, name in enumerate(names):
        judge.report(f"ranking layers: {number + 1} of {len(names)}")
        got = fake_predictor(quantised, [n for n in names if n != name])(image)
        errors[name] = max(_distance(np.asarray(got[t]), np.asarray(want[t])) for t in want)
    return sorted(names, key=lambda n: -errors[n])


def _distance(got: NDArray[Any], want: NDArray[Any]) -> float:
    """RMS of the difference, relative to that of `want`."""
    return float(np.sqrt(np.square(got - want).mean() / max(float(np.square(want).mean()), 1e-24)))


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
    """Units that must stay float for the rule to hold, by the INT8 reference."""

    def holds(without: Sequence[str]) -> bool:
        return not beyond(judge.accuracies(fake_predictor(quantised, without), FAKE, 4))

    return fewest(ranking, holds, at_least)


def never(quantised: Quantised) -> tuple[str, ...]:
    """References of the layers that are float in every INT8 bundle of the model."""
    codes = quantised.codes()
    return tuple(e.ref for e in entries(quantised.config) if e.compact and e.ref not in codes)
