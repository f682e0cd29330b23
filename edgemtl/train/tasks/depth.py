"""Distances: their losses, and figures, each by the definition that its papers use, beside two trivial predictions.

The loss is L1 of metres or of their logarithm. Gradient matching (MiDaS, Ranftl et al., TPAMI 2022), which Depth
Anything V2 (Yang et al., NeurIPS 2024) found to sharpen outlines where labels are precise, as synthetic ones are, can
be added. The figures are

- pooled over all valid pixels of the set: RMSE (Vandenhende et al., TPAMI 2021), MAE, AbsRel, log10 error and δ1 to δ3,
  the shares of pixels whose ratio to the truth lies below 1.25, 1.25² and 1.25³ (Eigen et al., NeurIPS 2014)
- a mean over images: RMSE of each; the same after one scale per image makes the medians equal (Zhou et al., CVPR 2017);
  the scale-invariant RMSE of the logarithm (Eigen et al.); boundary F1 (Depth Pro, Bochkovskii et al., 2024)

Ratios and logarithms need depth above 0, so a prediction below 1 mm counts as 1 mm there. Without labels a figure is
NaN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgemtl.config import TaskConfig
from edgemtl.tasks import INVALID
from edgemtl.train.config import LossConfig
from edgemtl.train.losses import resize
from edgemtl.train.tasks import PROTOCOLS, Figure, Learner, mean

NEAREST = 0.5  # metres, below which `log_depth` is a straight line
STEPS = tuple((scale, dim) for scale in (1, 2, 4, 8) for dim in (-1, -2))  # of gradient matching: across, down
LEAST = 1e-3  # metres
# Depth Pro's: a contour is a pair of neighbours whose depths have a ratio above 1.05 to 1.25, in ten steps; its weights
# are these ratios, so a strong contour counts a little more.
RATIOS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)
POOLED = ("rmse", "mae", "abs_rel", "log10", "delta1", "delta2", "delta3")
PER_IMAGE = ("rmse_per_image", "rmse_median_scaled", "si_log_rmse")
NAMES = {  # how a table calls them, and which direction is better
    "mae": ("mean absolute error (m)", "↓"),
    "abs_rel": ("AbsRel", "↓"),
    "log10": ("log10 error", "↓"),
    "delta1": ("δ1", "↑"),
    "delta2": ("δ2", "↑"),
    "delta3": ("δ3", "↑"),
    "rmse_per_image": ("RMSE per image (m)", "↓"),
    "rmse_median_scaled": ("RMSE per image, median-scaled (m)", "↓"),
    "si_log_rmse": ("scale-invariant log RMSE", "↓"),
    "boundary_f1": ("boundary F1", "↑"),
}


def log_depth(metres: Tensor) -> Tensor:
    """ln(metres) down to NEAREST, and below it the tangent there: finite for any finite number.

    A prediction may be anything: it starts around 0 and can fall below. A clamped one would get no gradient and stay
    there; on the tangent it gets the gradient 1 / NEAREST. A tangent nearer to 0 would be so steep that the first steps
    were about nothing else.
    """
    return metres.clamp(min=NEAREST).log() + (metres - NEAREST).clamp(max=0) / NEAREST


def _pairs(valid: Tensor, scale: int, dim: int) -> Tensor:
    """Where two neighbours, `scale` pixels apart along `dim`, are both valid."""
    valid = valid[..., ::scale, ::scale]
    size = valid.shape[dim]
    return valid.narrow(dim, 1, size - 1) & valid.narrow(dim, 0, size - 1)


def _count_pairs(valid: Tensor) -> Tensor:
    return torch.stack([_pairs(valid, scale, dim).sum() for scale, dim in STEPS])


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


def boundary_f1(pred: Tensor, label: Tensor) -> float:
    """F1 of occluding contours, from 0 to 1; `pred`, `label` [H, W], metres, label 255 where it is invalid.

    A pair of neighbours, side by side or one above the other, is a contour at ratio r if one is more than r times as
    far away as the other. It is right if the truth has the same contour with the same side in front. Both have all
    pairs pooled, as in the paper's formula; F1 at the ten `RATIOS` is averaged with weights that grow with the ratio.
    No tolerance: the contour must lie between the same two pixels. Ratios at which the truth has no contour are left
    out, and NaN is returned if it has none at all; the released code counts 0 there, and averages four directions.
    """
    valid = label != INVALID
    maps = torch.stack([pred.double(), label.double()]).clamp(min=LEAST).log()
    steps = []
    for axis in (0, 1):
        pairs = valid.shape[axis] - 1
        both = valid.narrow(axis, 0, pairs) & valid.narrow(axis, 1, pairs)
        steps.append(maps.diff(dim=axis + 1)[:, both])
    found, true = torch.cat(steps, 1)
    least = RATIOS.log()[:, None]
    some = (found.abs() > least[0]) | (true.abs() > least[0])  # few pairs are contours at all
    found, true = found[some], true[some]
    seen, there = found.abs() > least, true.abs() > least
    right = (seen & there & (found * true > 0)).sum(1).double()
    # F1 = 2 P R / (P + R) is 2 right / (found + true)
    score = 2 * right / (seen.sum(1) + there.sum(1)).clamp(min=1)
    weight = RATIOS * there.any(1)
    return float((score * weight).sum() / weight.sum()) if there.any() else float("nan")


def errors(pred: Tensor, truth: Tensor) -> dict[str, float]:
    """Sums over pixels of what `POOLED` names; `pred` and `truth` float64 [pixels], metres, without invalid ones."""
    difference = pred - truth
    logarithm = (pred.clamp(min=LEAST) / truth.clamp(min=LEAST)).log10().abs()
    sums = {
        "rmse": difference.square().sum(),
        "mae": difference.abs().sum(),
        "abs_rel": (difference.abs() / truth.clamp(min=LEAST)).sum(),
        "log10": logarithm.sum(),
    }
    limit = torch.tensor(1.25, dtype=torch.float64).log10()
    sums |= {f"delta{n}": (logarithm < n * limit).sum() for n in (1, 2, 3)}
    return {name: float(value) for name, value in sums.items()}


def image_errors(pred: Tensor, truth: Tensor) -> dict[str, float]:
    """What `PER_IMAGE` names, of one image; `pred` and `truth` float64 [pixels], metres, without invalid ones."""
    positive = pred.clamp(min=LEAST)
    scaled = positive * (truth.median() / positive.median())
    ratio = (positive / truth.clamp(min=LEAST)).log()
    return {
        "rmse_per_image": float((pred - truth).square().mean().sqrt()),
        "rmse_median_scaled": float((scaled - truth).square().mean().sqrt()),
        "si_log_rmse": float(ratio.var(correction=0).sqrt()),
    }


class DepthMeter:
    """All depth figures of a set.

    Baselines: `mean`, the training pixels' mean, everywhere; the evaluated labels' own mean without it. `image`, float
    [H, W]: the mean of the training set's depth images, which knows that floors are near and walls far; none without.
    """

    def __init__(self, mean: float | None = None, image: Tensor | None = None) -> None:
        self.mean, self.image, self.count = mean, image, 0
        self.label_sum = self.label_squared = 0.0
        self.sums, self.trivial = dict.fromkeys(POOLED, 0.0), dict.fromkeys(POOLED, 0.0)
        self.images = dict.fromkeys(PER_IMAGE, 0.0)
        self.seen = self.outlined = 0
        self.boundary = 0.0

    def update(self, pred: Tensor, label: Tensor) -> None:
        """pred, label [B, 1, H, W] in metres."""
        for guess, target in zip(pred[:, 0], label[:, 0], strict=True):
            valid = target != INVALID
            if not valid.any():
                continue
            truth, found = target[valid].double(), guess[valid].double()
            self.count += truth.numel()
            self.label_sum += float(truth.sum())
            self.label_squared += float(truth.square().sum())
            _add(self.sums, errors(found, truth))
            if self.image is not None:
                plain = resize(self.image[None, None], (target.shape[0], target.shape[1]))[0, 0]
                _add(self.trivial, errors(plain[valid].double(), truth))
            self.seen += 1
            _add(self.images, image_errors(found, truth))
            outline = boundary_f1(guess, target)
            if outline == outline:
                self.outlined += 1
                self.boundary += outline

    def compute(self) -> dict[str, Any]:
        n, images = self.count or float("nan"), self.seen or float("nan")
        mean = self.label_sum / n if self.mean is None else self.mean
        spread = self.label_squared / n - 2 * mean * self.label_sum / n + mean * mean
        pooled = _means(self.sums, n)
        out = {"rmse": pooled.pop("rmse"), "rmse_baseline": max(spread, 0.0) ** 0.5, **pooled}
        if self.image is not None:
            trivial = _means(self.trivial, n)
            out |= {f"{key}_mean_image_baseline": trivial[key] for key in ("rmse", "abs_rel", "delta1")}
        out |= {name: value / images for name, value in self.images.items()}
        return {**out, "boundary_f1": self.boundary / (self.outlined or float("nan"))}


def _add(sums: dict[str, float], more: dict[str, float]) -> None:
    for name, value in more.items():
        sums[name] += value


def _means(sums: dict[str, float], n: float) -> dict[str, float]:
    return {name: (value / n) ** (0.5 if name == "rmse" else 1) for name, value in sums.items()}


class Depth(Learner):
    own = Figure("rmse", "RMSE (m)", lower=True)
    papers = dict.fromkeys(PROTOCOLS, Figure("rmse", "RMSE", lower=True))
    more = NAMES
    constant_from_training = True

    def count(self, label: Tensor, weight: Tensor | None = None) -> Tensor:
        """The valid pixels, and per entry of STEPS the pairs of valid neighbours: [9]."""
        valid = label != INVALID
        return torch.cat([valid.sum()[None], _count_pairs(valid)]).double()

    def loss(self, pred: Tensor, label: Tensor, counted: Tensor, options: LossConfig, weight: Tensor | None) -> Tensor:
        """Mean |R| over valid pixels, and options.gradient times `gradient_loss` of R.

        R is pred - label in metres with options.depth l1, and the difference of their `log_depth` with log.
        """
        valid = label != INVALID
        residual = pred - label if options.depth == "l1" else log_depth(pred) - log_depth(label)
        loss = mean((residual.abs() * valid).sum(), counted)
        return (
            loss + options.gradient * gradient_loss(residual, valid, counted[1:].float()) if options.gradient else loss
        )

    def meter(self, task: TaskConfig, constant: Any, boundary: float | None) -> DepthMeter:
        return DepthMeter(*(constant or ()))

    def sums(self, label: Tensor) -> Tensor:
        known = label != INVALID
        return torch.stack([(label.double() * known).sum((0, 1)), known.sum((0, 1)).double()])

    def constant(self, sums: Tensor) -> tuple[float, Tensor] | None:
        """The mean of the training pixels, and of the training depth images, float32 [H, W]."""
        total, count = sums
        if not count.any():
            return None
        mean = float(total.sum() / count.sum())
        return mean, torch.where(count > 0, total / count.clamp(min=1), mean).float()


LEARNER = Depth()
