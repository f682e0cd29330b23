"""Strips that explain colours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.media import legend, view
from edgemtl.media.palette import SAFE

SEMSEG = TaskConfig(
    name="semseg", kind="semseg", channels=2, classes=("wall", "floor"), palette=((10, 20, 30), (40, 50, 60))
)
BARE = TaskConfig(name="s", kind="semseg", channels=40)
DEPTH = TaskConfig(name="depth", kind="depth", channels=1)


def test_it_names_the_classes_present() -> None:
    strip = legend.classes(SEMSEG, [1], 200)
    assert strip.shape == (18, 200, 3)
    assert (strip == (40, 50, 60)).all(-1).any()
    assert not (strip == (10, 20, 30)).all(-1).any()
    assert legend.classes(BARE, range(40), 100).shape[0] == 18 * 40
    assert legend.classes(SEMSEG, [], 50).shape == (18, 50, 3)
    assert (legend.classes(SEMSEG, [1], 200, color="bgr") == (60, 50, 40)).all(-1).any()
    assert (legend.classes(SEMSEG, [1], 200, safe=True) == SAFE[1]).all(-1).any()


def test_present_leaves_out_specks() -> None:
    ids = np.zeros((100, 100), np.uint8)
    ids[:, 50:] = 3
    ids[0, 0] = 7
    assert tasks.find("semseg").present(ids) == [0, 3]


def test_the_scale_has_the_colour_maps_colours() -> None:
    strip = legend.scale((1.0, 5.0), "m", "viridis", 300)
    ramp = view.ramp("viridis", 300 - 30 - 8)
    np.testing.assert_array_equal(strip[8, 8:270], ramp)
    np.testing.assert_array_equal(legend.scale((1.0, 5.0), "m", "viridis", 300, color="bgr")[8, 8:270], ramp[:, ::-1])


@pytest.mark.parametrize(
    ("limits", "most", "found"),
    [
        ((1.0, 5.0), 6, [1, 2, 3, 4, 5]),
        ((0.4, 2.6), 6, [0.5, 1, 1.5, 2, 2.5]),
        ((0.0, 80.0), 5, [0, 20, 40, 60, 80]),
        ((1.02, 1.13), 4, [1.05, 1.1]),
        ((0.25, 0.375), 2, [0.3]),
    ],
)
def test_ticks(limits: tuple[float, float], most: int, found: list[float]) -> None:
    assert legend.ticks(*limits, most) == found


@given(st.floats(0, 100), st.floats(0.1, 100), st.integers(2, 20))
def test_ticks_are_few_and_within(low: float, span: float, most: int) -> None:
    found = legend.ticks(low, low + span, most)
    assert 1 <= len(found) <= most
    assert all(low - 1e-5 <= t <= low + span + 1e-5 for t in found)


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
@pytest.mark.parametrize("width", [1, 8, 40, 640])
def test_every_task_has_a_strip_of_the_tiles_width(kind: str, width: int) -> None:
    channels = {"semseg": 4, "normals": 3}.get(kind, 1)
    task = TaskConfig(name="t", kind=kind, channels=channels)
    strip = legend.strip(task, np.zeros((8, 8), np.uint8), (0.0, 1.0), "viridis", width, color="bgr")
    assert strip.shape[1] == width
    assert strip.dtype == np.uint8
