"""Percentiles, and ratios paired within a round.

Absolute milliseconds drift on a shared machine; a ratio of two engines measured side by side does not, so the ratio
is the result and the milliseconds are its context.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TOLD = (0.5, 0.95, 0.99)  # percentiles of a report
Rounds = Mapping[Any, float]  # round -> median milliseconds of one engine in that round


def percentile(values: Sequence[float], q: float) -> float:
    """The value below which a share `q` (0..1) of `values` lies, by linear interpolation."""
    return float(np.quantile(values, q))


def paired(mine: Rounds, base: Rounds) -> float | None:
    """The median over the rounds that both have of mine / base; None when they share no round."""
    both = sorted(set(mine) & set(base))
    return statistics.median(mine[r] / base[r] for r in both) if both else None


def interval(mine: Rounds, base: Rounds) -> tuple[float, float] | None:
    """The 95 % interval of `paired`: percentiles of medians over rounds drawn with replacement; None under 5 rounds."""
    both = sorted(set(mine) & set(base))
    if len(both) < 5:
        return None
    found = np.array([mine[r] / base[r] for r in both])
    drawn = np.random.default_rng(0).integers(len(found), size=(2000, len(found)))
    low, high = np.quantile(np.median(found[drawn], axis=1), (0.025, 0.975))
    return float(low), float(high)


def best(engines: Mapping[str, Rounds]) -> str | None:
    """The engine whose median ratio to the fastest of each round is lowest; None when there is no engine.

    Rounds are compared, not medians over all of them, so that a slow minute of the machine harms nobody; engines with
    fewer rounds compete in the rounds that they have.
    """
    fastest: dict[Any, float] = {}
    for rounds in engines.values():
        for number, value in rounds.items():
            fastest[number] = min(value, fastest.get(number, value))
    scores = {name: score for name, rounds in engines.items() if (score := paired(rounds, fastest)) is not None}
    return min(scores, key=lambda name: scores[name]) if scores else None
