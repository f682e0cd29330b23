"""What is where: a class per pixel, of rooms, of streets, of parts of people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemtl.tasks import INVALID, Array, Kind, resized

LEAST = 0.002  # share of a map that a class must cover to be named


class Semseg(Kind):
    """Labels are stored with 0 for none and class c as c + 1."""

    channels = None
    dtype = np.uint8
    shows = "what is where"
    none = 0

    def result(self, raw: Sequence[Array] | Array, size: tuple[int, int], out: Array | None = None) -> Array:
        """The class with the largest logit, the lower one where they are equal; plane by plane, in little memory.

        Logits are resized, then compared, so that borders are smooth.
        """
        import cv2

        out = np.empty(size, np.uint8) if out is None else out
        best = np.full(size, -np.inf, np.float32)
        sized, wins, number = np.empty_like(best), np.empty_like(out), np.empty_like(out)
        out.fill(0)
        for c, plane in enumerate(raw):
            resized(plane, size, sized)
            cv2.compare(sized, best, cv2.CMP_GT, dst=wins)  # 255 where this class wins
            cv2.max(sized, best, dst=best)
            number.fill(c)  # a plane: OpenCV takes small images for scalars when the other side is one
            cv2.min(wins, number, dst=wins)  # its number there, 0 elsewhere
            cv2.max(out, wins, dst=out)  # numbers ascend, so the newest winner's is the largest
        return out

    def present(self, result: Array) -> list[int]:
        counts = np.bincount(result[::2, ::2].reshape(-1))
        return np.flatnonzero(counts >= max(1.0, LEAST * counts.sum())).tolist()

    def agreement(self, got: Array, want: Array) -> float:
        """The share of pixels with the same class."""
        return float((got.argmax(-3) == want.argmax(-3)).mean())

    def target(self, label: Array) -> Array:
        """int64 [B, H, W]."""
        return np.where(label == 0, INVALID, label.astype(np.int64) - 1)

    def truth(self, target: Array) -> tuple[Array, Array]:
        return np.where(target == INVALID, 0, target).astype(np.uint8), target != INVALID


KIND = Semseg()
