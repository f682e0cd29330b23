"""Depth figures, each by the definition that its papers use, beside two trivial predictions.

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

from edgemtl.train.losses import INVALID, resize

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
