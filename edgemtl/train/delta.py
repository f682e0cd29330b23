"""Multi-task performance Δm (Maninis et al., "Attentive Single-Tasking of Multiple Tasks", CVPR 2019)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgemtl.errors import ConfigError


def delta_m(scores: Mapping[str, float], baseline: Mapping[str, float], lower_is_better: Collection[str]) -> float:
    """Mean over the tasks of `baseline` of the relative gain over it, in percent; above 0 is better.

    Both are {task: its one metric}; the metric of a task in `lower_is_better` is an error. Raises ConfigError for a
    task that is missing, or a baseline of 0.
    """
    if set(scores) != set(baseline) or not baseline:
        raise ConfigError(f"Δm needs the same tasks in both results, not {sorted(scores)} and {sorted(baseline)}")
    if not all(baseline.values()):
        raise ConfigError(f"Δm divides by the baseline's scores, and one is 0: {dict(baseline)}")
    gains = [(scores[t] - b) / b * (-1 if t in lower_is_better else 1) for t, b in baseline.items()]
    return 100 * sum(gains) / len(gains)
