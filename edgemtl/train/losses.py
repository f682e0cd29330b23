"""Task losses, in float32, at label resolution.

The recipe is M3ViT's (Liang et al., NeurIPS 2022) after Vandenhende et al. (TPAMI 2021): cross-entropy, L1 on depth,
L1 on unit normals, balanced binary cross-entropy on edges with a fixed positive weight, and on saliency with the
batch's own balance. Written from its description. 255 marks invalid pixels throughout.

Two choices for depth: the L1 of its logarithm, and gradient matching (MiDaS, Ranftl et al., TPAMI 2022), which Depth
Anything V2 (Yang et al., NeurIPS 2024) found to sharpen outlines where the labels are precise, as synthetic ones are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.config import TaskConfig

INVALID = 255
EDGE_POSITIVE_WEIGHT = 0.95
NEAREST = 0.5  # metres, below which `log_depth` is a straight line
STEPS = tuple((scale, dim) for scale in (1, 2, 4, 8) for dim in (-1, -2))  # of gradient matching: across, down
DepthLoss = Literal["l1", "log"]
DEFAULT_WEIGHTS: dict[str, float] = {
    "semseg": 1.0,
    "depth": 1.0,
    "normals": 10.0,
    "edge": 50.0,
    "saliency": 5.0,
}


class Count(NamedTuple):
    """What a label gives to the means over a whole step, each a sum over its pixels.

    `valid`: the valid pixels' weights; `positive`: the positive pixels; `pairs` [8]: of depth, the pairs of valid
    neighbours per entry of STEPS. Counts of the parts of a batch add up, so that parts of it, here or in other
    processes, give the loss of the whole.
    """

    valid: Tensor
    positive: Tensor
    pairs: Tensor

    def flat(self) -> Tensor:
        """All of it as float64 [10], to be summed over parts and processes."""
        return torch.cat([part.double().reshape(-1) for part in self])

    @classmethod
    def of(cls, flat: Tensor) -> Count:
        """The float32 Count that `flat` [10] describes."""
        return cls(flat[0].float(), flat[1].float(), flat[2:].float())


def count(kind: str, label: Tensor, class_weight: Tensor | None = None) -> Count:
    """The Count of a label as `task_losses` takes it."""
    valid = (label != INVALID).all(1) if kind == "normals" else label != INVALID
    positive = ((label > 0.5) & valid).sum() if kind in ("edge", "saliency") else valid.new_zeros((), dtype=torch.int64)
    pairs = _count_pairs(valid) if kind == "depth" else valid.new_zeros(len(STEPS), dtype=torch.int64)
    if kind == "semseg" and class_weight is not None:
        return Count(class_weight[label[valid]].sum(), positive, pairs)
    return Count(valid.sum(), positive, pairs)


def _pairs(valid: Tensor, scale: int, dim: int) -> Tensor:
    """Where two neighbours, `scale` pixels apart along `dim`, are both valid."""
    valid = valid[..., ::scale, ::scale]
    size = valid.shape[dim]
    return valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)


def _count_pairs(valid: Tensor) -> Tensor:
    return torch.stack([_pairs(valid, scale, dim).sum() for scale, dim in STEPS])


def _mean(total: Tensor, counted: Count) -> Tensor:
    return total / torch.where(counted.valid > 0, counted.valid, torch.ones_like(counted.valid))


def semseg_loss(
    logits: Tensor, label: Tensor, class_weight: Tensor | None = None, counted: Count | None = None
) -> Tensor:
    """Mean cross-entropy of logits [B, C, H, W] against int64 [B, H, W]; weighted mean with `class_weight` [C]."""
    loss = F.cross_entropy(logits, label, class_weight, ignore_index=INVALID, reduction="sum")
    return _mean(loss, counted or count("semseg", label, class_weight))


def log_depth(metres: Tensor) -> Tensor:
    """ln(metres) down to NEAREST, and below it the tangent there: finite for any finite number.

    A prediction may be anything: it starts around 0 and can fall below. A clamped one would get no gradient and stay
    there; on the tangent it gets the gradient 1 / NEAREST. A tangent nearer to 0 would be so steep that the first steps
    were about nothing else.
    """
    return metres.clamp(min=NEAREST).log() + (metres - NEAREST).clamp(max=0) / NEAREST


def depth_loss(
    pred: Tensor,
    label: Tensor,
    counted: Count | None = None,
    *,
    kind: DepthLoss = "l1",
    gradient: float = 0.0,
) -> Tensor:
    """Mean |R| over valid pixels, and `gradient` times `gradient_loss` of R; pred, label in metres [B, 1, H, W].

    R is pred - label with kind l1, and the difference of their `log_depth` with kind log.
    """
    counted = counted or count("depth", label)
    valid = label != INVALID
    residual = pred - label if kind == "l1" else log_depth(pred) - log_depth(label)
    loss = _mean((residual.abs() * valid).sum(), counted)
    return loss + gradient * gradient_loss(residual, valid, counted.pairs) if gradient else loss


def gradient_loss(residual: Tensor, valid: Tensor, pairs: Tensor | None = None) -> Tensor:
    """Sum over STEPS of the mean |difference of two neighbours| of every 1st, 2nd, 4th and 8th pixel.

    residual: float [B, 1, H, W]; valid: bool of this shape; a pair counts if both of its pixels are valid. pairs [8]:
    what to divide each step's sum by, the pairs of these pixels by default. Zero where residual is constant.
    """
    pairs = _count_pairs(valid) if pairs is None else pairs
    sums = []
    for scale, dim in STEPS:
        difference = residual[..., ::scale, ::scale].diff(dim=dim).abs()
        sums.append((difference * _pairs(valid, scale, dim)).sum())
    return (torch.stack(sums) / pairs.clamp(min=1)).sum()


def normals_loss(pred: Tensor, label: Tensor, counted: Count | None = None) -> Tensor:
    """Mean absolute difference per component between the unit prediction and the label; both [B, 3, H, W]."""
    valid = (label != INVALID).all(1, keepdim=True)
    difference = (F.normalize(pred, dim=1) - label).abs().sum(1, keepdim=True)
    return _mean((difference * valid).sum() / 3, counted or count("normals", label))


def edge_loss(
    logits: Tensor,
    label: Tensor,
    positive_weight: float | Tensor = EDGE_POSITIVE_WEIGHT,
    counted: Count | None = None,
) -> Tensor:
    """Mean over valid pixels of -w·y·log p - (1 - w)·(1 - y)·log(1 - p); both [B, 1, H, W], label 0 or 1."""
    valid = label != INVALID
    y = torch.where(valid, label, torch.zeros_like(label))
    weight = torch.where(y > 0.5, positive_weight, 1 - positive_weight) * valid
    loss = F.binary_cross_entropy_with_logits(logits, y, weight, reduction="sum")
    return _mean(loss, counted or count("edge", label))


def saliency_loss(logits: Tensor, label: Tensor, counted: Count | None = None) -> Tensor:
    """`edge_loss` with w the share of the valid pixels that are 0 (Xie & Tu, ICCV 2015); both [B, 1, H, W]."""
    counted = counted or count("saliency", label)
    return edge_loss(logits, label, 1 - _mean(counted.positive.float(), counted), counted)


def subsample(label: Tensor, stride: int, step: int) -> Tensor:
    """Every `stride`-th pixel of [..., H, W]; the offset walks with `step`, so that no pixel is left out for good."""
    dy, dx = step % stride, step // stride % stride
    return label[..., dy::stride, dx::stride] if stride > 1 else label


def resize(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Raw map [B, C, h, w] in float32, bilinear (pixel centres) to `size`."""
    raw = raw.float()
    return raw if tuple(raw.shape[-2:]) == size else F.interpolate(raw, size, mode="bilinear", align_corners=False)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Float32 [classes]: 1 / ln(1.1 + share of pixels), scaled to mean 1, from int64 labels of any shape."""
    counts = torch.bincount(labels[labels != INVALID].flatten(), minlength=classes).double()
    weight = 1 / torch.log(1.1 + counts / counts.sum().clamp(min=1))
    return (weight / weight.mean()).float()


def task_losses(
    maps: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    tasks: Mapping[str, TaskConfig],
    *,
    stride: int = 1,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
    counted: Mapping[str, Count] | None = None,
    depth: DepthLoss = "l1",
    gradient: float = 0.0,
) -> dict[str, Tensor]:
    """{task: unweighted scalar loss} of raw maps [B, C, h, w] against the labels of the same names in `batch`.

    `depth` and `gradient` are the `kind` and `gradient` of `depth_loss`.
    Means over the batch, or over the whole that `counted` describes, of which the batch then gives its share. A task
    without any valid label has the loss 0 and the gradient 0.
    """
    losses = {}
    for name, raw in maps.items():
        label, whole = subsample(batch[name], stride, step), (counted or {}).get(name)
        pred, kind = resize(raw, (label.shape[-2], label.shape[-1])), tasks[name].kind
        if kind == "semseg":
            losses[name] = semseg_loss(pred, label, (class_weight or {}).get(name), whole)
        elif kind == "depth":
            losses[name] = depth_loss(pred, label, whole, kind=depth, gradient=gradient)
        elif kind == "normals":
            losses[name] = normals_loss(pred, label, whole)
        elif kind == "saliency":
            losses[name] = saliency_loss(pred, label, whole)
        else:
            losses[name] = edge_loss(pred, label, counted=whole)
    return losses


def count_labels(
    batch: Mapping[str, Tensor],
    tasks: Iterable[TaskConfig],
    *,
    stride: int = 1,
    step: int = 0,
    class_weight: Mapping[str, Tensor] | None = None,
) -> dict[str, Count]:
    """{task: Count} of a batch, for `task_losses` over several parts of one step."""
    weights = class_weight or {}
    return {t.name: count(t.kind, subsample(batch[t.name], stride, step), weights.get(t.name)) for t in tasks}
