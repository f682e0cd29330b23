"""Pictures: sizes, orders of channels, and the few values that can be foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgemtl.config import TaskConfig
from edgemtl.errors import FrameError
from edgemtl.media import view
from edgemtl.media.palette import SAFE
from edgemtl.runtime.output import TaskOutput

SEMSEG = TaskConfig(
    name="semseg", kind="semseg", channels=2, classes=("wall", "floor"), palette=((10, 20, 30), (40, 50, 60))
)
BARE = TaskConfig(name="s", kind="semseg", channels=40)
DEPTH = TaskConfig(name="depth", kind="depth", channels=1)
NORMALS = TaskConfig(name="normals", kind="normals", channels=3)
EDGE = TaskConfig(name="edge", kind="edge", channels=1)


def test_classes_in_their_palette() -> None:
    ids = np.array([[0, 1], [1, 7]], np.uint8)  # 7 is beyond the palette and must not crash
    np.testing.assert_array_equal(view.colour(SEMSEG, ids)[0], [[10, 20, 30], [40, 50, 60]])
    np.testing.assert_array_equal(view.colour(SEMSEG, ids, color="bgr")[0], [[30, 20, 10], [60, 50, 40]])
    safe = view.colour(SEMSEG, ids, safe=True)[0]
    np.testing.assert_array_equal(safe, SAFE[:2])


def test_depth_limits_and_maps() -> None:
    depth = np.linspace(0, 10, 100, dtype=np.float32).reshape(10, 10)
    near = view.colour(DEPTH, depth, limits=(5, 10))
    assert (near[0, 0] == near[4, 0]).all(), "below the range: one colour"
    assert not (near[6, 0] == near[9, 0]).all()
    for name in view.COLOUR_MAPS:
        assert view.colour(DEPTH, depth, colormap=name).shape == (10, 10, 3)
    with pytest.raises(FrameError, match="no colour map 'jet'; choose one of viridis"):
        view.colour(DEPTH, depth, colormap="jet")


@pytest.mark.parametrize("shape", [(1,), (2,), (7, 5), (100, 3)])
def test_percentiles_are_numpys(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    shares = (0, 2, 50, 98, 100)
    np.testing.assert_allclose(view.percentiles(values, shares), np.percentile(values, shares), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 3.0])
def test_flat_or_broken_depth_is_drawn(value: float) -> None:
    assert view.colour(DEPTH, np.full((4, 4), value, np.float32)).shape == (4, 4, 3)


def test_normals_and_edges() -> None:
    normals = np.zeros((2, 2, 3), np.float32)
    normals[..., 2] = 1
    np.testing.assert_array_equal(view.colour(NORMALS, normals)[0, 0], [128, 128, 255])
    np.testing.assert_array_equal(view.colour(EDGE, np.array([[0, 1]], np.float32))[0], [[0] * 3, [255] * 3])


def test_overlay() -> None:
    frame = np.full((4, 6, 3), 100, np.uint8)
    picture = np.full((4, 6, 3), 200, np.uint8)
    assert (view.overlay(frame, picture, 0) == 100).all()
    assert (view.overlay(frame[::-1, ::-1], picture, 1) == 200).all()
    assert (view.overlay(frame, picture, 0.5) == 150).all()
    with pytest.raises(FrameError, match=r"map of shape \(4, 6\) cannot lie over a frame of shape \(5, 6\)"):
        view.overlay(np.zeros((5, 6, 3), np.uint8), picture)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_outputs_own_overlay(color: Any) -> None:
    frame = np.full((4, 6, 3), 100, np.uint8)
    ids = np.ones((4, 6), np.uint8)
    got = TaskOutput(SEMSEG, ids, np.zeros((2, 1, 2), np.float32), color).overlay(frame, alpha=1.0)
    np.testing.assert_array_equal(got[0, 0], [40, 50, 60] if color == "rgb" else [60, 50, 40])
    edges = np.zeros((4, 6), np.float32)
    edges[0, 0] = 1
    painted = TaskOutput(EDGE, edges, np.zeros((1, 1, 2), np.float32), color).overlay(frame)
    np.testing.assert_array_equal(painted[0, 0], [255, 224, 0] if color == "rgb" else [0, 224, 255])
    assert (painted[1:] == 100).all()
    with pytest.raises(FrameError, match="cannot lie over"):
        TaskOutput(EDGE, edges, np.zeros((1, 1, 2), np.float32)).overlay(frame[1:])


def test_a_ramp_is_the_colour_map() -> None:
    steps = view.ramp("viridis", 256)
    drawn = view.colour(DEPTH, np.linspace(0, 255, 256, dtype=np.float32)[None], limits=(0, 255))
    np.testing.assert_array_equal(steps, drawn[0])


def test_steady_limits_follow_slowly_and_survive_anything() -> None:
    limits = view.SteadyLimits(follow=0.1)
    near = np.linspace(1, 2, 40000, dtype=np.float32).reshape(200, 200)
    low, high = limits(near)
    assert (round(low, 1), round(high, 1)) == (1.0, 2.0)
    assert high < limits(near + 10)[1] < high + 2
    for _ in range(100):
        low, high = limits(near + 10)
    assert (round(low, 1), round(high, 1)) == (11.0, 12.0)
    assert np.isfinite(limits(np.full((8, 8), np.nan, np.float32))).all()
    low, high = view.SteadyLimits()(np.zeros((8, 8), np.float32))
    assert high > low


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_experts_fill_their_patch_in_order(k: int) -> None:
    """Cells of 18x24 pixels, too small for numbers: the first choice in the upper 12 rows, the next ones below."""
    ids = np.random.default_rng(k).integers(0, 16, (3, 5, k))
    picture = view.experts(ids, 16, (3 * 18, 5 * 24))
    for y, x, j in np.ndindex(3, 5, k):
        across = 12 if j == 0 else int((j - 0.5) * 24 / (k - 1))
        found = picture[y * 18 + (6 if j == 0 else 15), x * 24 + across]
        np.testing.assert_array_equal(found, SAFE[ids[y, x, j]])


def test_experts_are_numbered_where_there_is_room() -> None:
    ids = np.zeros((2, 2, 1), int)
    assert len(np.unique(view.experts(ids, 16, (20, 20)).reshape(-1, 3), axis=0)) == 2, "the colour and the lines"
    assert len(np.unique(view.experts(ids, 16, (80, 80)).reshape(-1, 3), axis=0)) > 2


@pytest.mark.parametrize(("shape", "inner"), [((10, 40), (20, 80)), ((40, 10), (60, 15)), ((60, 80), (60, 80))])
def test_fit_keeps_the_shape(shape: tuple[int, int], inner: tuple[int, int]) -> None:
    out = view.fit(np.full((*shape, 3), 200, np.uint8), (60, 80))
    assert out.shape == (60, 80, 3)
    bright = (out == 200).all(-1)
    assert (bright.any(1).sum(), bright.any(0).sum()) == inner


def test_label_and_contact_sheet() -> None:
    a, b = np.full((10, 30, 3), 1, np.uint8), np.full((10, 30, 3), 2, np.uint8)
    assert view.label(a, "depth — Tiefe").shape == (28, 30, 3)
    assert view.contact_sheet([("a", a), ("b", b), ("c", a)]).shape == (56, 60, 3)
    sheet = view.contact_sheet([("a", a), ("b", b)], columns=2)
    assert sheet.shape == (28, 60, 3)
    assert (sheet[18:, :30] == 1).all()
    assert (sheet[18:, 30:] == 2).all()
    for tiles in ([], [("a", a), ("b", b[1:])]):
        with pytest.raises(FrameError, match="one or more pictures of one size"):
            view.contact_sheet(tiles)
