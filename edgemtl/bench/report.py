"""From samples to rows and tables. Every figure names its origin: measured, counted by formula, or not measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from edgemtl.bench import macs, peak, stats
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.samples import TOLERANCE, Sample, of, times
from edgemtl.bench.subjects import Subject

GOALS = {  # kind of model, precision, threads: paired ratio to the best peer
    ("sparse", "fp32", 1): 0.75,
    ("sparse", "fp32", 2): 0.60,
    ("sparse", "int8", 1): 0.65,
    ("sparse", "int8", 2): 0.55,
    ("dense", "fp32", 1): 0.90,
    ("dense", "fp32", 2): 0.80,
}
MB = 1e6


@dataclass(frozen=True)
class Row:
    """One engine on one subject. Without `p50` it gave nothing that may be compared, and `reason` says why."""

    subject: str
    threads: int
    engine: str
    export: str
    rounds: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    fps: float | None = None
    ratio: float | None = None  # to the best peer, median over rounds
    gflops: float | None = None  # of the model's own arithmetic, dense export or not
    share: float | None = None  # of the best SGEMM library
    roof: float | None = None  # of the FMA roof
    error: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None
    peak_mb: float | None = None
    resident_mb: float | None = None
    growth_mb: float | None = None
    weights_mb: float | None = None
    joules: float | None = None
    reason: str = ""


def best_peer(samples: Sequence[Sample], subject: str, threads: int, precision: str = "fp32") -> str | None:
    """The fastest engine of this precision that is not edgemtl's, among those with right results."""
    mine = [s for s in of(samples, subject, threads) if ENGINES[s.engine].precision == precision]
    names = dict.fromkeys(s.engine for s in mine if not ENGINES[s.engine].own)
    return stats.best({n: r for n in names if (r := times(s for s in mine if s.engine == n))})


def rows(
    samples: Sequence[Sample], subject: Subject, threads: int, peaks: Mapping[str, float] | None = None
) -> list[Row]:
    """A row per engine, in the order of the table of engines. peaks: rates by source of peak.py."""
    mine = list(of(samples, subject.name, threads))
    base = {p: best_peer(samples, subject.name, threads, p) for p in ("fp32", "int8")}
    base_times = {p: times(s for s in mine if s.engine == name) for p, name in base.items()}
    names = [n for n in ENGINES if any(s.engine == n for s in mine)]
    work, known = macs.count(subject.config, subject.task).total, peaks or {}

    def row(name: str) -> Row:
        ran = [s for s in mine if s.engine == name]
        return _row(subject, threads, name, ran, base_times[ENGINES[name].precision], work, known)

    return [row(name) for name in names]


def _row(
    subject: Subject,
    threads: int,
    engine: str,
    mine: Sequence[Sample],
    base: Mapping[int, float],
    work: int,
    peaks: Mapping[str, float],
) -> Row:
    ran = [s.result for s in mine if s.result]
    error = max((float(r["error"]) for r in ran), default=None)
    export = next((s.artifact for s in mine if s.artifact), "")
    allowed = next((s.tolerance for s in mine if s.result), TOLERANCE)
    if error is not None and error > allowed:
        reason = f"wrong: differs from torch by {error:.1e} of the largest value, at most {allowed:g} is allowed"
        return Row(subject.name, threads, engine, export, error=error, reason=reason)
    good = [s.result for s in mine if s.right and s.result]
    failures = [s.failure for s in mine if s.failure]
    if not good:
        return Row(subject.name, threads, engine, export, reason=failures[0] if failures else "not measured")
    frames = [t for r in good for t in r["ms"]]
    p = stats.summary(frames)
    gflops = 2e-6 * work / p.p50
    library = peak.best_library(peaks)
    memory = [r["memory"] for r in good if r["memory"]["after"]]
    weights = [r["weights"]["resident"] for r in good if r["weights"] and r["weights"]["resident"] is not None]
    joules = [r["joules"] for r in good if r["joules"] is not None]
    return Row(
        subject.name,
        threads,
        engine,
        export,
        rounds=len(good),
        p50=p.p50,
        p95=p.p95,
        p99=p.p99,
        fps=1e3 * len(frames) / sum(frames),
        ratio=stats.paired(times(mine), base),
        gflops=gflops,
        share=gflops / peaks[library] if library else None,
        roof=gflops / peaks[peak.FMA] if peaks.get(peak.FMA) else None,
        error=error,
        load_ms=1e3 * statistics.median(r["load_s"] for r in good),
        first_ms=1e3 * statistics.median(r["first_s"] for r in good),
        peak_mb=max((m["after"]["peak"] for m in memory), default=0) / MB or None,
        resident_mb=_median(m["after"]["resident"] for m in memory),
        growth_mb=_median(m["after"]["resident"] - m["before"]["resident"] for m in memory),
        weights_mb=_median(weights),
        joules=statistics.median(joules) if joules else None,
        reason=f"{len(failures)} of {len(mine)} processes failed: {failures[0]}" if failures else "",
    )


def _error(mine: Iterable[Sample]) -> float:
    """The largest error of an engine's samples."""
    return max((float(s.result["error"]) for s in mine if s.result), default=0.0)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) / MB if found else None


def show(value: float | None, form: str = ".2f", none: str = "–") -> str:
    """A figure for a cell."""
    return none if value is None else format(value, form)


def table(
    title: str, left: Sequence[str], right: Sequence[str], cells: Iterable[Sequence[str]], *, note: bool = False
) -> Group:
    """A title over a table: text columns, then number columns, then with `note` a column of remarks."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in left:
        out.add_column(name, overflow="fold")
    for name in right:
        out.add_column(name, justify="right")
    if note:
        out.add_column("", overflow="fold")
    for row in cells:
        out.add_row(*(Text(c) for c in row))
    return Group(Text(title, "bold"), out)


def speed(subject: Subject, found: Sequence[Row], touched: Sequence[int] | None) -> Group:
    """Latency of the network alone."""
    work = macs.count(subject.config, subject.task)
    streamed = macs.weight_bytes(subject.config, subject.task, touched)
    title = (
        f"{subject.name}, {found[0].threads} thread(s): {work.total / 1e9:.3g} GMAC and {streamed / MB:.1f} MB of"
        f" weights read per frame (counted); {subject.origin}; milliseconds measured"
    )
    cells = []
    for r in found:
        figures = [show(v) for v in (r.p50, r.p95, r.p99)] + [show(r.fps, ".1f"), show(r.ratio), show(r.gflops, ".1f")]
        figures += [show(r.share, ".0%"), show(r.roof, ".0%"), show(r.error, ".0e")]
        export = r.export.removeprefix("onnx-").removeprefix("torch-")
        cells.append([r.engine, export, f"{r.rounds}", *figures, r.reason])
    head = ("rounds", "p50 ms", "p95", "p99", "frames/s", "to best peer", "GFLOP/s", "of SGEMM", "of roof", "error")
    return table(title, ("engine", "export"), head, cells, note=True)


def loading(subject: Subject, found: Sequence[Row]) -> Group:
    """Load, memory and energy of the engines that ran."""
    cells = [
        [
            r.engine,
            *(show(v, ".0f") for v in (r.load_ms, r.first_ms)),
            *(show(v, ".1f") for v in (r.peak_mb, r.resident_mb, r.growth_mb)),
            show(r.weights_mb, ".1f", "not measured"),
            show(r.joules, ".3f", "not measured"),
        ]
        for r in found
        if r.p50 is not None
    ]
    head = ("load ms", "first run ms", "peak MB", "resident MB", "growth MB", "weights MB", "J/frame")
    return table(f"{subject.name}: load and memory", ("engine",), head, cells)


def ratios(comparison: Comparison, precision: str = "fp32") -> Group | None:
    """edgemtl to every peer of one precision, one line per subject and thread count; None without edgemtl."""
    samples = comparison.samples
    alike = [e for e in ENGINES.values() if e.precision == precision]
    own = next((e.name for e in alike if e.own), None)
    peers = [e.name for e in alike if not e.own and any(s.engine == e.name and s.round >= 0 for s in samples)]
    if own is None or not any(s.engine == own for s in samples):
        return None
    cells = []
    for threads in comparison.settings.threads:
        for subject in comparison.subjects:
            mine = list(of(samples, subject.name, threads))
            ours = times(s for s in mine if s.engine == own)
            against = {n: stats.paired(ours, times(s for s in mine if s.engine == n)) for n in peers}
            best = best_peer(samples, subject.name, threads, precision)
            ratio = against.get(best) if best else None
            kind = "dense" if subject.dense else "sparse"
            goal = GOALS.get((kind, precision, threads)) if subject.config.dim == 192 else None
            verdict = "" if goal is None or ratio is None else "met" if ratio <= goal else "not met"
            errors = {n: _error(s for s in mine if s.engine == n) for n in (own, best) if n}
            if precision == "int8" and best and errors[best] < errors[own]:
                verdict += f" (but {best} errs less)"
            figures = [f"{threads}", show(ratio), show(goal), verdict]
            cells.append([subject.name, best or "–", *figures, *map(show, against.values())])
    head = ("threads", "to best peer", "goal", "", *peers)
    title = f"edgemtl / peer in {precision}, median over rounds of paired ratios: less than 1 means edgemtl is faster"
    return table(title, ("subject", "best peer"), head, cells)


def show_all(comparison: Comparison, machine: Mapping[str, Any], console: Console) -> list[Row]:
    """Print what was measured so far, and give the rows."""
    every: list[Row] = []
    console.print(
        f"{machine['cpu']}, {machine['cpus']} CPU(s), {', '.join(machine['features'])};"
        f" load {machine['load']:.2f} before the run",
        markup=False,
    )
    for threads in comparison.settings.threads:
        peaks = comparison.peaks.get(threads)
        if peaks:
            console.print(peak.sentence(peaks, threads), markup=False)
        for subject in comparison.subjects:
            found = rows(comparison.samples, subject, threads, peaks)
            if found:
                console.print()
                console.print(speed(subject, found, comparison.artifacts.touched.get(subject.name)))
                console.print(loading(subject, found))
                every += found
    for summary in (ratios(comparison, p) for p in ("fp32", "int8")):
        if summary is not None and every:
            console.print()
            console.print(summary)
    if every:
        console.print(LEGEND, markup=False)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)
    for row in every:
        comparison.record("row", **asdict(row))
    return every


LEGEND = """
rounds: fresh processes; an engine far behind the best peer twice is left out of later rounds. to best peer: median over
rounds of p50 / best peer's p50 in the same round. GFLOP/s: twice the model's own multiply-accumulates (counted) by p50,
also where a dense export does more; of SGEMM: of the best library's rate, of roof: of multiply-adds that never leave
the registers. error: largest difference from torch eager, relative to the largest value; of INT8 the root mean square
over 8 pictures that no engine was calibrated on, by the float map's standard deviation. load: opening the model and
making it ready, imports left out; torch.compile loads from its warm cache. growth: resident memory after the frames
minus before loading. weights: mapped weights in memory (smaps). J/frame: RAPL, if readable."""
