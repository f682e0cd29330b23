"""From samples to rows: one engine on one subject with one thread count, all its rounds together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgemtl.bench import stats
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.samples import TOLERANCE, Sample, of, times
from edgemtl.bench.subjects import Subject
from edgemtl.graph.count import count

MB = 1e6


@dataclass(frozen=True)
class Row:
    """One engine on one subject. Without `p50` it gave nothing that may be compared, and `reason` says why."""

    subject: str
    threads: int
    engine: str
    export: str
    precision: str = "fp32"
    rounds: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    fps: float | None = None
    ratio: float | None = None  # to the best peer, median over rounds
    low: float | None = None  # its 95 % interval
    high: float | None = None
    gmac: float | None = None  # done, which a dense export does more of
    error: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    resident_mb: float | None = None
    growth_mb: float | None = None
    weights_mb: float | None = None
    reason: str = ""

    @property
    def reach(self) -> float | None:
        """How far the interval goes from the ratio; None without one."""
        if self.ratio is None or self.low is None or self.high is None:
            return None
        return max(self.ratio - self.low, self.high - self.ratio)


def rows(samples: Sequence[Sample], subject: Subject, threads: int) -> list[Row]:
    """A row per engine, in the order of the table of engines."""
    mine = list(of(samples, subject.name, threads))
    ran = {n: [s for s in mine if s.engine == n] for n in ENGINES}
    base: dict[str, Mapping[int, float]] = {}  # of each precision the best peer's rounds
    for precision in ("fp32", "int8"):
        peers = {n: times(r) for n, r in ran.items() if ENGINES[n].precision == precision and not ENGINES[n].own}
        best = stats.best({n: r for n, r in peers.items() if r})
        base[precision] = peers[best] if best else {}
    return [_row(subject, threads, n, r, base[ENGINES[n].precision]) for n, r in ran.items() if r]


def _row(subject: Subject, threads: int, engine: str, mine: Sequence[Sample], base: Mapping[int, float]) -> Row:
    ran = [s.result for s in mine if s.result]
    error = max((float(r["error"]) for r in ran), default=None)
    export = next((s.artifact for s in mine if s.artifact), "")
    start = Row(subject.name, threads, engine, export, ENGINES[engine].precision)
    allowed = next((s.tolerance for s in mine if s.result), TOLERANCE)
    if error is not None and error > allowed:
        reason = f"wrong: differs from torch by {error:.1e} of the largest value, at most {allowed:g} is allowed"
        return replace(start, error=error, reason=reason)
    good = [s.result for s in mine if s.right and s.result]
    failures = [s.failure for s in mine if s.failure]
    if not good:
        return replace(start, reason=failures[0] if failures else "not measured")
    frames = [t for r in good for t in r["ms"]]
    p50, p95, p99 = (stats.percentile(frames, q) for q in stats.TOLD)
    memory = [r["memory"] for r in good if r["memory"]["after"]]
    weights = [r["weights"] for r in good if r["weights"] is not None]
    low, high = stats.interval(times(mine), base) or (None, None)
    return replace(
        start,
        rounds=len(good),
        p50=p50,
        p95=p95,
        p99=p99,
        fps=1e3 * len(frames) / sum(frames),
        ratio=stats.paired(times(mine), base),
        low=low,
        high=high,
        gmac=count(subject.config, subject.task, every_expert="-dense" in export).total / 1e9,
        error=error,
        import_ms=1e3 * statistics.median(r["import_s"] for r in good),
        load_ms=1e3 * statistics.median(r["load_s"] for r in good),
        first_ms=1e3 * statistics.median(r["first_s"] for r in good),
        resident_mb=_median(m["after"]["resident"] for m in memory),
        growth_mb=_median(m["after"]["resident"] - m["before"]["resident"] for m in memory),
        weights_mb=_median(weights),
        reason=f"{len(failures)} of {len(mine)} processes failed: {failures[0]}" if failures else "",
    )


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) / MB if found else None
