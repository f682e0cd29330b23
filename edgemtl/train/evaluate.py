"""Evaluation of anything that turns an image into raw maps: a PyTorch model, or a bundle on any backend.

Raw maps are resized bilinearly (pixel centres) to the labels before scoring, as everywhere in edgemtl. Depth is scored
in the metres of each image's own camera.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError
from edgemtl.train.boundary import BoundaryMeter
from edgemtl.train.data import Samples, chunks, own_depth, present, spread
from edgemtl.train.losses import INVALID, resize
from edgemtl.train.metrics import Score, make_meter
from edgemtl.train.protocols import OWN

Predictor = Callable[[Tensor], Mapping[str, Any]]  # float32 [B, 3, H, W], normalised → {task: [B or -, C, h, w]}


class Constants(NamedTuple):
    """What the trivial predictions say: the training pixels' mean depth and mean normal [3] everywhere, and the mean of
    the training depth images, float32 [H, W].
    """

    depth: float | None
    normal: Tensor | None
    depth_image: Tensor | None = None


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


def training_constants(data: Samples, config: ModelConfig, images: int = 500) -> Constants:
    """Means over the labelled pixels of up to `images` evenly spaced training images."""
    kinds = {t.kind: t.name for t in config.tasks if t.kind in ("depth", "normals")}
    total: Tensor | float = 0.0
    count: Tensor | float = 0.0
    direction = torch.zeros(3, dtype=torch.float64)
    for indices in chunks(spread(data, images) if kinds else [], 16):
        batch = data.batch(indices)
        if "depth" in kinds:
            depth = own_depth(batch[kinds["depth"]], batch, config)[:, 0].double()
            known = depth != INVALID
            total, count = total + (depth * known).sum(0), count + known.sum(0)
        if "normals" in kinds:
            normals = batch[kinds["normals"]].double()
            direction += (normals * (normals != INVALID)).sum((0, 2, 3))
    normal = F.normalize(direction, dim=0).float() if direction.norm() > 0 else None
    if not isinstance(total, Tensor) or not isinstance(count, Tensor) or not count.any():
        return Constants(None, normal)
    mean = float(total.sum() / count.sum())
    return Constants(mean, normal, torch.where(count > 0, total / count.clamp(min=1), mean).float())


def evaluate(
    predictor: Predictor,
    data: Samples,
    config: ModelConfig,
    *,
    limit: int | None = None,
    batch: int = 1,
    constants: Constants | None = None,
    boundary: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """{task: {metric: value}} over `limit` evenly spaced images.

    "images" holds their "count", and in "without_label" how many have no label of a task, where there are any; these
    count nothing for it. Without `constants` the depth baseline is the evaluated labels' own mean, which is its most
    favourable. `boundary`: also odsF of edge tasks, with this tolerance as a share of the diagonal; slow.
    """
    constants = constants or Constants(None, None)
    meters = {t.name: make_meter(t, constants.depth, constants.normal, constants.depth_image) for t in config.tasks}
    lines = {t.name: BoundaryMeter(boundary) for t in config.tasks if t.kind == "edge" and boundary is not None}
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
            if config.task(name).kind == "depth":
                sized, label = (own_depth(value, samples, config) for value in (sized, label))
            meter.update(sized, label)
            if name in lines:
                lines[name].update(sized, label)
            without[name] += int((~present(samples, name)).sum())
        done += len(part)
        if progress:
            progress(done, len(indices))
    results: dict[str, Score] = {name: meter.compute() for name, meter in meters.items()}
    for name, line in lines.items():
        results[name] |= line.compute()
    lacking = {name: count for name, count in without.items() if count}
    return {**results, "images": {"count": len(indices), **({"without_label": lacking} if lacking else {})}}


MAIN = {f.key: (f.name, "↓" if f.lower else "↑") for f in OWN.values()}  # how a main metric is shown, what is better


class Loss(NamedTuple):
    """A task's main metric (a key of MAIN) before and after a change of the model; `relative` > 0 is worse."""

    metric: str
    before: float
    after: float
    relative: float


def losses(before: Mapping[str, Score], after: Mapping[str, Score]) -> dict[str, Loss]:
    """How much of every task's main metric a change costs, from two results of `evaluate` on the same images."""
    out = {}
    for task, score in before.items():
        for key, (_, arrow) in MAIN.items():
            if key in score:
                a, b = float(score[key]), float(after[task][key])
                worse = a - b if arrow == "↑" else b - a
                out[task] = Loss(key, a, b, worse / max(abs(a), 1e-12))
    return out


def summary(results: Mapping[str, Score]) -> str:
    """One line: each task's main metric and, in brackets, its baseline."""
    parts = []
    for task, score in results.items():
        for key, (name, _) in MAIN.items():
            if key in score:
                parts.append(f"{task} {name} {score[key]:.4g} ({score[key + '_baseline']:.4g})")
    return ", ".join(parts)
