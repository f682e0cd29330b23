"""Cost against one dimension of the model: experts at fixed top-k, or tokens; a CSV file and a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from edgemtl.bench import stats
from edgemtl.bench.compare import Comparison
from edgemtl.bench.samples import of
from edgemtl.bench.subjects import SIZES, Subject, parse
from edgemtl.graph.count import count, weight_bytes

Dimension = Literal["experts", "tokens"]
EXPERTS = (8, 16, 32, 64, 128)


class Point(NamedTuple):
    """One value of the swept dimension on one engine; without milliseconds the engine gave nothing right."""

    value: int
    engine: str
    threads: int
    p50_ms: float | None
    gmac: float
    gmac_experts: float
    mb_streamed: float
    experts_used: int


def subjects(dimension: Dimension) -> dict[int, Subject]:
    """{value: subject}, Edge-MoE's shape but for the dimension."""
    if dimension == "experts":
        return {n: parse(f"edge-moe:129:e{n}")[0] for n in EXPERTS}
    return {n: parse(f"edge-moe:{n}")[0] for n in SIZES}


def points(comparison: Comparison, values: Mapping[int, Subject]) -> list[Point]:
    """What was measured, with what one frame of each subject costs by formula."""
    out = []
    for threads in comparison.settings.threads:
        for value, subject in values.items():
            touched = comparison.artifacts.touched.get(subject.name)
            work = count(subject.config, subject.task)
            for engine in comparison.engines:
                frames = [
                    t
                    for s in of(comparison.samples, subject.name, threads)
                    if s.engine == engine and s.right and s.result
                    for t in s.result["ms"]
                ]
                out.append(
                    Point(
                        value,
                        engine,
                        threads,
                        stats.percentile(frames, 0.5) if frames else None,
                        work.total / 1e9,
                        work.experts / 1e9,
                        weight_bytes(subject.config, subject.task, touched) / 1e6,
                        sum(touched or ()),
                    )
                )
    return out


def write_csv(path: Path, found: Sequence[Point]) -> None:
    """All points as a table with a header."""
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(Point._fields)
        writer.writerows(found)


def write_plot(path: Path, dimension: Dimension, found: Sequence[Point]) -> None:
    """Two panels over the dimension: milliseconds per engine; megabytes streamed and GMAC per frame."""
    from edgemtl.bench import plots

    times: dict[str, list[tuple[float, float]]] = {}
    for p in found:
        if p.p50_ms is not None:
            times.setdefault(f"{p.engine}, {p.threads} thread(s)", []).append((p.value, p.p50_ms))
    first = {p.value: p for p in found}.values()
    cost = {
        "MB of weights read": [(float(p.value), p.mb_streamed) for p in first],
        "GMAC × 100": [(float(p.value), 100 * p.gmac) for p in first],
    }
    panels = [("p50 ms (measured)", times), ("cost of a frame (counted)", cost)]
    plots.against(path, panels, dimension)
