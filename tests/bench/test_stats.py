"""Percentiles, and ratios that a slow minute of the machine cannot change."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemtl.bench.stats import best, interval, paired, percentile


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentile_ends_and_middle(values: list[float]) -> None:
    assert percentile(values, 0) == min(values)
    assert percentile(values, 1) == max(values)
    assert percentile(values, 0.5) == pytest.approx(statistics.median(values), abs=1e-6)


def test_a_slow_round_does_not_change_a_ratio() -> None:
    """The machine is ten times slower in round 2, and round 3 is missing for one of the two."""
    assert paired({0: 2.0, 1: 20.0, 2: 2.0, 3: 9.0}, {0: 4.0, 1: 40.0, 2: 4.0}) == 0.5
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_the_best_is_best_within_rounds() -> None:
    """`late` has only the machine's fast round, and is slower there."""
    engines = {"steady": {0: 30.0, 1: 30.0, 2: 3.0}, "late": {2: 4.0}, "slow": {0: 60.0, 1: 60.0, 2: 6.0}}
    assert best(engines) == "steady"
    assert best({}) is None
    assert best({"none": {}}) is None


def test_an_interval_holds_the_ratio_and_needs_rounds() -> None:
    rng = np.random.default_rng(1)
    base = {n: 10.0 * (1 + n % 3) for n in range(20)}  # the machine's speed changes; the ratio does not see it
    mine = {n: ms * rng.normal(0.8, 0.05) for n, ms in base.items()}
    low, high = interval(mine, base) or (0, 0)
    assert low < (paired(mine, base) or 0) < high
    assert 0.7 < low < high < 0.9
    assert interval(dict.fromkeys(range(9), 3.0), dict.fromkeys(range(9), 2.0)) == (1.5, 1.5)
    assert interval(dict.fromkeys(range(4), 3.0), base) is None
