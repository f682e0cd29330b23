"""odsF: matching and thinning against other libraries, the meter against a case worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edgemtl[train]'")

from edgemtl.train.boundary import BoundaryMeter, matched, thin


def mask(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def test_thinning_keeps_one_line_of_a_thick_one() -> None:
    thick = np.zeros((9, 20), bool)
    thick[3:6, 2:18] = True
    lines = thin(thick)
    assert set(np.flatnonzero(lines.any(1))) == {4}
    assert lines[4, 4:16].all()
    assert np.array_equal(thin(lines), lines)


def test_a_true_pixel_is_matched_once() -> None:
    truth = mask("....#....")
    assert matched(mask("...###..."), truth, 1.5) == 1  # dilation would count three as right
    assert matched(truth, mask("...###..."), 1.5) == 1
    assert matched(mask(".##......"), truth, 1.5) == 0
    assert matched(mask("........."), truth, 1.5) == 0


def test_matching_is_the_largest_one() -> None:
    """The left prediction reaches both true pixels, the right one only the second: greedy by order would lose one."""
    assert matched(mask("..##..."), mask(".#.#..."), 1.0) == 2
    assert matched(mask("#...", "..#."), mask(".#..", "...#"), 1.0) == 2
    assert matched(mask("#...", "...."), mask("....", ".#.."), 1.0) == 0  # the diagonal is 1.41 away
    assert matched(mask("#...", "...."), mask("....", ".#.."), 1.5) == 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.floats(0.5, 4), density=st.floats(0.02, 0.3))
def test_matching_as_an_assignment(seed: int, radius: float, density: float) -> None:
    """SciPy's assignment with a cost for each pair that is too far apart finds as many pairs."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 9, 14)) < density
    far = cdist(np.argwhere(a), np.argwhere(b)) > radius if a.any() and b.any() else np.ones((0, 0))
    rows, columns = linear_sum_assignment(far)
    assert matched(a, b, radius) == int((~far[rows, columns].astype(bool)).sum())


def test_meter_by_hand() -> None:
    truth = torch.zeros(1, 1, 20, 20)
    truth[..., 5] = 1  # 20 true pixels
    prob = torch.full((1, 1, 20, 20), 0.004)
    prob[0, 0, :10, 6] = 0.9  # half the line, one pixel off
    prob[0, 0, ::4, 15] = 0.5  # five lone pixels, far away
    meter = BoundaryMeter(max_dist=1.5 / np.hypot(20, 20))
    meter.update(prob.logit(), truth)
    meter.update(prob.logit(), torch.full_like(truth, 255))  # no label: counts nowhere
    score = meter.compute()
    assert (score["ods_precision"], score["ods_recall"]) == (1.0, 0.5)
    assert score["ods_f"] == pytest.approx(2 / 3)
    assert 0.5 < score["ods_threshold"] <= 0.9
    strict = BoundaryMeter(max_dist=0.5 / np.hypot(20, 20))
    strict.update(prob.logit(), truth)
    assert strict.compute()["ods_f"] == 0


def test_a_thick_prediction_is_thinned_before_it_is_judged() -> None:
    truth = torch.zeros(1, 1, 21, 41)
    truth[..., 20] = 1
    prob = torch.full_like(truth, 0.004)
    prob[..., 18:23] = 0.7
    meter = BoundaryMeter()
    meter.update(prob.logit(), truth)
    score = meter.compute()
    assert score["ods_precision"] == 1.0  # of five columns one is left
    assert score["ods_recall"] > 0.75  # thinning shortens the line at its ends
