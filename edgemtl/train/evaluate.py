"""Evaluation of anything that turns an image into raw maps: a PyTorch model, or a bundle on any backend.

Raw maps are resized bilinearly (pixel centres) to the labels before scoring, as everywhere in edgemtl.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import ModelConfig
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import Samples, chunks, spread
from edgemtl.train.losses import INVALID, resize
from edgemtl.train.metrics import Score, make_meter

Predictor = Callable[[Tensor], Mapping[str, Any]]  # float32 [B, 3, H, W], normalised → {task: [B or -, C, h, w]}


class Constants(NamedTuple):
    """What the trivial predictions say everywhere: the training pixels' mean depth, and mean normal [3]."""

    depth: float | None
    normal: Tensor | None


def torch_predictor(model: MultiTaskViT) -> Predictor:
    """The model's own maps, in float32."""
    device = model.backbone.cls_token.device
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
    total, count = 0.0, 0
    direction = torch.zeros(3, dtype=torch.float64)
    for indices in chunks(spread(data, images) if kinds else [], 16):
        batch = data.batch(indices)
        if "depth" in kinds:
            depth = batch[kinds["depth"]]
            depth = depth[depth != INVALID].double()
            total, count = total + float(depth.sum()), count + depth.numel()
        if "normals" in kinds:
            normals = batch[kinds["normals"]].double()
            direction += (normals * (normals != INVALID)).sum((0, 2, 3))
    normal = F.normalize(direction, dim=0).float() if direction.norm() > 0 else None
    return Constants(total / count if count else None, normal)


def evaluate(
    predictor: Predictor,
    data: Samples,
    config: ModelConfig,
    *,
    limit: int | None = None,
    batch: int = 1,
    constants: Constants | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """{task: {metric: value}} over `limit` evenly spaced images; "images" is the count.

    Without `constants` the depth baseline is the evaluated labels' own mean, which is its most favourable.
    """
    constants = constants or Constants(None, None)
    meters = {t.name: make_meter(t, constants.depth, constants.normal) for t in config.tasks}
    indices = spread(data, limit or len(data))
    done = 0
    for part in chunks(indices, batch):
        samples = data.batch(part)
        maps = predictor(samples["image"])
        for name, meter in meters.items():
            label = samples[name]
            raw = torch.as_tensor(maps[name])
            raw = raw if raw.ndim == 4 else raw.unsqueeze(0)
            meter.update(resize(raw, (label.shape[-2], label.shape[-1])), label)
        done += len(part)
        if progress:
            progress(done, len(indices))
    return {**{name: meter.compute() for name, meter in meters.items()}, "images": {"count": len(indices)}}


MAIN = {  # each task's main metric: how it is shown, and which way is better
    "miou": ("mIoU", "↑"),
    "rmse": ("RMSE (m)", "↓"),
    "mean_angle": ("mean angle (°)", "↓"),
    "edge_f": ("F", "↑"),
}


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
