"""What a run is told (`Settings`) and what it finds (`Sample`, one per fresh process)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgemtl.bench import stats
from edgemtl.bench.process import STALLED

TOLERANCE = 1e-3  # of an output against torch, relative to the largest value of the map
GARBAGE = 0.9  # of an INT8 output: an error like this means that it has nothing to do with the model


@dataclass(frozen=True)
class Settings:
    """How long and how often.
    precise: rounds go on, up to `most`, until the 95 % intervals of edgemtl's ratios reach no farther than this; None:
    `rounds` and no more. minutes: from the start; begin nothing later, but do `least` rounds. timeout: of one
    measuring process; one that stalls is not started again.
    """

    threads: tuple[int, ...] = (2,)
    rounds: int = 7
    least: int = 2
    most: int = 60
    precise: float | None = None
    warmup: int = 3
    warmup_s: float = 0.3
    frames: int = 5
    seconds: float = 0.6
    minutes: float | None = None
    timeout: float = 120.0
    build_timeout: float = 1800.0
    target: str = "cpu"  # what programs are built for and peers held to: a target of the compiler; cpu: all there is
    peak_s: float = 1.0  # of each source of peak.py, for a profile


@dataclass(frozen=True)
class Sample:
    """One fresh process: what it measured, or why not."""

    subject: str
    engine: str
    artifact: str
    threads: int
    round: int
    result: dict[str, Any] | None = None
    failure: str | None = None

    @property
    def right(self) -> bool:
        """Whether there are times, and the output was PyTorch's."""
        return bool(self.result and self.result["ms"] and self.result["error"] <= self.tolerance)

    @property
    def stalled(self) -> bool:
        """Whether its process ran into the time limit."""
        return bool(self.failure and self.failure.startswith(STALLED))

    @property
    def tolerance(self) -> float:
        """What the error may be; for INT8 the error is that over several pictures, root mean square."""
        return GARBAGE if self.result and self.result.get("precision") == "int8" else TOLERANCE

    @property
    def p50(self) -> float:
        assert self.result is not None
        return stats.percentile(self.result["ms"], 0.5)


def of(samples: Iterable[Sample], subject: str, threads: int) -> Iterator[Sample]:
    """The samples of one subject with one thread count."""
    return (s for s in samples if s.subject == subject and s.threads == threads)


def times(samples: Iterable[Sample]) -> dict[int, float]:
    """{round: p50} of the right samples."""
    return {s.round: s.p50 for s in samples if s.right}
