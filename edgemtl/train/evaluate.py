"""Evaluation of anything that turns an image into raw maps: a PyTorch model, or a bundle on any backend.

Raw maps are resized bilinearly (pixel centres) to the labels before scoring, as everywhere in edgemtl. Distances are
scored in the metres of each image's own camera.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError
from edgemtl.train.data import Samples, chunks, own_camera, present, spread
from edgemtl.train.losses import resize
from edgemtl.train.tasks import Score, find, names

Predictor = Callable[[Tensor], Mapping[str, Any]]  # float32 [B, 3, H, W], normalised → {task: [B or -, C, h, w]}


def torch_predictor(model: nn.Module) -> Predictor:
    """The model's own maps, in float32; `model(image)` gives {task: raw map}."""
    device = next(model.parameters()).device
    model.eval()

    def predict(image: Tensor) -> Mapping[str, Any]:
        with torch.no_grad():
            return {k: v.cpu() for k, v in model(image.to(device)).items()}

    return predict


def bundle_predictor(path: Path, backend: str | None = None) -> tuple[Predictor, ModelConfig]:
    """The raw maps of a bundle's engine with all its tasks active, one image at a time."""
    import edgemtl

    load: Any = edgemtl.load
    engine = load(str(path)) if backend is None else load(str(path), backend=backend)
    config: ModelConfig = engine.manifest.model
    engine.activate(*config.task_names)

    def predict(image: Tensor) -> Mapping[str, Any]:
        return engine.raw(image.numpy())

    return predict, config


def training_constants(data: Samples, config: ModelConfig, images: int = 500) -> dict[str, Any]:
    """{task: what `Learner.constant` makes of the labels of up to `images` evenly spaced training images}."""
    learners = {t: learner for t in config.tasks if (learner := find(t.kind)).constant_from_training}
    sums: dict[str, Tensor] = {}
    for indices in chunks(spread(data, images) if learners else [], 16):
        batch = data.batch(indices)
        for task, learner in learners.items():
            found = learner.sums(own_camera(task.kind, batch[task.name], batch, config))
            sums[task.name] = sums[task.name] + found if task.name in sums else found
    return {task.name: learner.constant(sums[task.name]) for task, learner in learners.items()}


def evaluate(
    predictor: Predictor,
    data: Samples,
    config: ModelConfig,
    *,
    limit: int | None = None,
    batch: int = 1,
    constants: Mapping[str, Any] | None = None,
    boundary: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """{task: {metric: value}} over `limit` evenly spaced images.

    "images" holds their "count", and in "without_label" how many have no label of a task, where there are any; these
    count nothing for it. `constants` is for the trivial predictions; without it that of depth is the evaluated labels'
    own mean, which is its most favourable. `boundary`: also odsF of edge tasks, with this tolerance as a share of the
    diagonal; slow.
    """
    constants = constants or {}
    meters = {t.name: find(t.kind).meter(t, constants.get(t.name), boundary) for t in config.tasks}
    indices = spread(data, limit or len(data))
    without = dict.fromkeys(meters, 0)
    done = 0
    for part in chunks(indices, batch):
        samples = data.batch(part)
        maps = predictor(samples["image"])
        for name, meter in meters.items():
            label = samples[name]
            raw = torch.as_tensor(maps[name])
            raw = raw if raw.ndim == 4 else raw.unsqueeze(0)
            if not raw.isfinite().all():
                raise CheckpointError(
                    f"the model's {name} map of image {part[0]} holds values that are not finite; its weights are "
                    "damaged or its training diverged: give another checkpoint"
                )
            sized = resize(raw, (label.shape[-2], label.shape[-1]))
            meter.update(*(own_camera(config.task(name).kind, value, samples, config) for value in (sized, label)))
            without[name] += int((~present(samples, name)).sum())
        done += len(part)
        if progress:
            progress(done, len(indices))
    results: dict[str, Score] = {name: meter.compute() for name, meter in meters.items()}
    lacking = {name: count for name, count in without.items() if count}
    return {**results, "images": {"count": len(indices), **({"without_label": lacking} if lacking else {})}}


def main_metrics() -> dict[str, tuple[str, str]]:
    """How each kind's main metric is shown, and which direction is better, by its key in the results."""
    own = (find(kind).own for kind in names())
    return {f.key: (f.name, "↓" if f.lower else "↑") for f in own}


class Loss(NamedTuple):
    """A task's main metric (a key of `main_metrics`) before and after a change; `relative` > 0 is worse."""

    metric: str
    before: float
    after: float
    relative: float


def losses(before: Mapping[str, Score], after: Mapping[str, Score]) -> dict[str, Loss]:
    """How much of every task's main metric a change costs, from two results of `evaluate` on the same images."""
    out = {}
    for task, score in before.items():
        for key, (_, arrow) in main_metrics().items():
            if key in score:
                a, b = float(score[key]), float(after[task][key])
                worse = a - b if arrow == "↑" else b - a
                out[task] = Loss(key, a, b, worse / max(abs(a), 1e-12))
    return out


def summary(results: Mapping[str, Score]) -> str:
    """One line: each task's main metric and, in brackets, its baseline."""
    parts = []
    for task, score in results.items():
        for key, (name, _) in main_metrics().items():
            if key in score:
                parts.append(f"{task} {name} {score[key]:.4g} ({score[key + '_baseline']:.4g})")
    return ", ".join(parts)
