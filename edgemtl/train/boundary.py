"""Boundary quality as odsF: the F-score at the one threshold that is best for the whole set.

The measure of Martin, Fowlkes and Malik ("Learning to Detect Natural Image Boundaries", TPAMI 2004), which SEISM
(Pont-Tuset and Marques, TPAMI 2016) computes for the multi-task papers in MATLAB; written from its description. At each
threshold the prediction is thinned to lines one pixel wide, then its pixels and the true ones are matched one to one,
no farther apart than `max_dist` of the image's diagonal. What is matched counts as right and as found.

Differences that remain: SEISM also suppresses non-maxima of the soft prediction before the threshold, and its
matching prefers short distances among the largest matchings, which does not change their size. Labels are thinned
here too, which leaves those that are one pixel wide as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.tasks import INVALID

MAX_DIST = 0.011  # of the diagonal, as published for NYUD; a data set's layout knows its own
THRESHOLDS = np.arange(1, 100) / 100

Mask = NDArray[np.bool_]


def thin(mask: Mask) -> Mask:
    """Lines one pixel wide with the same connections (Guo and Hall, 1989, as MATLAB's bwmorph does it)."""
    from skimage.morphology import thin as guo_hall

    return np.asarray(guo_hall(mask), bool)


def matched(predicted: Mask, truth: Mask, radius: float) -> int:
    """The most pairs of a predicted and a true pixel at most `radius` pixels apart, each pixel in one pair only."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    rows, columns = np.nonzero(predicted)
    true_pixels = int(truth.sum())
    if not len(rows) or not true_pixels:
        return 0
    reach = int(radius)
    number = np.full(np.add(truth.shape, 2 * reach), -1, np.int32)  # of each true pixel; a rim saves the bounds checks
    number[reach : reach + truth.shape[0], reach : reach + truth.shape[1]][truth] = np.arange(true_pixels)
    pairs = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= radius * radius:
                near = number[rows + reach + dy, columns + reach + dx]
                which = np.flatnonzero(near >= 0)
                pairs.append(np.stack([which, near[which]]))
    left, right = np.concatenate(pairs, 1)
    graph = csr_array((np.ones(len(left), np.uint8), (left, right)), shape=(len(rows), true_pixels))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


class BoundaryMeter:
    """odsF of a set. `max_dist` is the tolerance as a share of the diagonal; slow: seconds per 100 small images."""

    def __init__(self, max_dist: float = MAX_DIST, thresholds: NDArray[np.float64] = THRESHOLDS) -> None:
        self.max_dist, self.thresholds = max_dist, thresholds
        self.images = 0
        self.counts = np.zeros((3, len(thresholds)))  # predicted, matched, true

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits, label [B, 1, H, W]; label 0, 1, or 255 where it is invalid. An image without a label is left out."""
        for raw, truth in zip(logits[:, 0], label[:, 0], strict=True):
            valid = (truth != INVALID).numpy()
            if not valid.any():
                continue
            self.images += 1
            lines = thin((truth.numpy() > 0.5) & valid)
            soft = torch.sigmoid(raw.double()).numpy()
            radius = self.max_dist * float(np.hypot(*lines.shape))
            for i, threshold in enumerate(self.thresholds):
                found = thin((soft >= threshold) & valid)
                self.counts[:, i] += found.sum(), matched(found, lines, radius), lines.sum()

    def compute(self) -> dict[str, Any]:
        predicted, right, true = self.counts
        precision, recall = right / np.maximum(predicted, 1), right / np.maximum(true, 1)
        f = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        f[:] = f if self.images else np.nan
        best = int(f.argmax())
        return {
            "ods_f": float(f[best]),
            "ods_threshold": float(self.thresholds[best]),
            "ods_precision": float(precision[best]),
            "ods_recall": float(recall[best]),
            "max_dist": self.max_dist,
        }
