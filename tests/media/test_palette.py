"""Whether colours stay apart for colour-blind people, by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemtl.config import TaskConfig
from edgemtl.data.rooms.classes import PALETTE
from edgemtl.media.palette import SAFE, class_colours, colours

Matrix = np.ndarray[Any, np.dtype[np.float64]]

# Linear RGB as seen with a kind of vision: Machado, Oliveira and Fernandes (2009), severity 1.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = (0.95047, 1.0, 1.08883)


def lab(rgb: Any, vision: str) -> Matrix:
    """CIELAB [n, 3] of sRGB colours 0..255 as seen with a vision."""
    c = np.asarray(rgb, float) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ VISIONS[vision].T, 0, 1) @ TO_XYZ.T / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


def nearest(rgb: Any, vision: str) -> float:
    """The smallest distance between two of the colours."""
    seen = lab(rgb, vision)
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    return float(apart[np.triu_indices(len(seen), 1)].min())


def test_the_measure_knows_red_from_green() -> None:
    pair = [(200, 60, 60), (92, 110, 40)]
    assert nearest(pair, "normal") > 50
    assert nearest(pair, "deuteranopia") < 20


@pytest.mark.parametrize("vision", VISIONS)
def test_safe_colours_stay_apart(vision: str) -> None:
    assert nearest(SAFE, vision) > 25
    assert nearest(SAFE[:6], vision) > 29


def test_they_are_better_than_the_datas_own() -> None:
    assert min(nearest(PALETTE, v) for v in VISIONS) < 10
    assert min(nearest(SAFE[: len(PALETTE)], v) for v in VISIONS) > 25


def test_many_colours_are_at_least_different() -> None:
    assert len({tuple(c) for c in colours(40)}) == 40
    assert colours(16).tolist() == [list(c) for c in SAFE]


def test_a_bundles_colours_unless_safe_ones_are_asked_for() -> None:
    task = TaskConfig(name="s", kind="semseg", channels=2, classes=("a", "b"), palette=((1, 2, 3), (4, 5, 6)))
    assert class_colours(task).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert class_colours(task, safe=True).tolist() == [list(c) for c in SAFE[:2]]
