"""Cost against one dimension of the model: experts at fixed top-k, or tokens; a CSV file and a drawing (SVG)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from edgemtl.bench import macs, stats
from edgemtl.bench.compare import Comparison
from edgemtl.bench.samples import of
from edgemtl.bench.subjects import SIZES, Subject, parse

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
            work = macs.count(subject.config, subject.task)
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
                        macs.weight_bytes(subject.config, subject.task, touched) / 1e6,
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


def write_svg(path: Path, dimension: Dimension, found: Sequence[Point]) -> None:
    """Two panels over the dimension: milliseconds per engine; megabytes streamed and GMAC per frame."""
    series: dict[str, list[tuple[float, float]]] = {}
    for p in found:
        if p.p50_ms is not None:
            series.setdefault(f"{p.engine}, {p.threads} thread(s)", []).append((p.value, p.p50_ms))
    first = {p.value: p for p in found}.values()
    cost = {
        "MB of weights read": [(float(p.value), p.mb_streamed) for p in first],
        "GMAC × 100": [(float(p.value), 100 * p.gmac) for p in first],
    }
    parts = [_panel(0, f"p50 milliseconds against {dimension}", series), _panel(480, f"cost against {dimension}", cost)]
    style = "font-family='sans-serif' font-size='12'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='960' height='360' {style}>"
    path.write_text(head + "<rect width='960' height='360' fill='white'/>" + "".join(parts) + "</svg>\n", "utf-8")


_COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555")


def _panel(left: int, title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over a logarithmic axis of values, from zero upwards."""
    import math

    every = [point for line in series.values() for point in line]
    out = [f"<text x='{left + 60}' y='20' font-weight='bold'>{escape(title)}</text>"]
    if not every:
        return "".join([*out, f"<text x='{left + 60}' y='60'>nothing measured</text>"])
    low, high = math.log(min(x for x, _ in every)), math.log(max(x for x, _ in every))
    top = max(y for _, y in every) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - low) / (high - low) if high > low else 0.5
        return left + 60 + 390 * across, 310 - 220 * y / top

    out.append(f"<path d='M{left + 60},90V310H{left + 450}' fill='none' stroke='black'/>")
    for x in sorted({x for x, _ in every}):
        out.append(f"<text x='{place(x, 0)[0]:.1f}' y='328' text-anchor='middle'>{x:g}</text>")
    for y in (0, top / 2, top):
        out.append(f"<text x='{left + 54}' y='{place(1, y)[1] + 4:.1f}' text-anchor='end'>{y:.3g}</text>")
    for i, (name, line) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        dots = [place(x, y) for x, y in sorted(line)]
        shape = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        out.append(f"<polyline points='{shape}' fill='none' stroke='{colour}' stroke-width='2'/>")
        out += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in dots]
        out.append(f"<text x='{left + 70}' y='{40 + 14 * i}' fill='{colour}'>{escape(name)}</text>")
    return "".join(out)
