"""The tables people read. Every figure names its origin: measured, counted by formula, modelled, or not measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from edgemtl.bench import peak, stats
from edgemtl.bench.alternatives import WORDS, Alternative, join
from edgemtl.bench.compare import Comparison
from edgemtl.bench.devices import Line
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.rows import MB, Row, best_peer, rows
from edgemtl.bench.samples import Sample, of, times
from edgemtl.bench.subjects import Subject
from edgemtl.bench.switching import Walk
from edgemtl.graph.count import weight_bytes

GOALS = {  # kind of model, precision, threads: paired ratio to the best peer
    ("sparse", "fp32", 1): 0.75,
    ("sparse", "fp32", 2): 0.60,
    ("sparse", "int8", 1): 0.65,
    ("sparse", "int8", 2): 0.55,
    ("dense", "fp32", 1): 0.90,
    ("dense", "fp32", 2): 0.80,
}


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
    read = weight_bytes(subject.config, subject.task, touched) / MB if subject.vit else None
    weights = "" if read is None else f" and {read:.1f} MB of weights read"
    title = (
        f"{subject.name}, {found[0].threads} thread(s): {subject.work / 1e9:.3g} GMAC{weights} per frame (counted);"
        f" {subject.origin}; milliseconds measured"
    )
    cells, metric = [], next((r.metric for r in found if r.metric), "")
    for r in found:
        figures = [show(v) for v in (r.p50, r.p95, r.p99)] + [show(r.fps, ".1f"), show(r.ratio), show(r.gmac, ".3g")]
        figures += [show(r.gflops, ".1f"), show(r.share, ".0%"), show(r.roof, ".0%"), show(r.error, ".0e")]
        figures += [show(r.score, ".4g")] if metric else []
        export = r.export.removeprefix("onnx-").removeprefix("torch-")
        cells.append([r.engine, export, f"{r.rounds}", *figures, r.reason])
    head = ["rounds", "p50 ms", "p95", "p99", "frames/s", "to best peer", "GMAC done", "GFLOP/s", "of SGEMM", "of roof"]
    head += ["error", *([metric] if metric else [])]
    return table(title, ("engine", "export"), head, cells, note=True)


def loading(subject: Subject, found: Sequence[Row]) -> Group:
    """Load, memory and energy of the engines that ran."""
    cells = [
        [
            r.engine,
            *(show(v, ".0f") for v in (r.import_ms, r.load_ms, r.first_ms)),
            *(show(v, ".1f") for v in (r.peak_mb, r.resident_mb, r.growth_mb)),
            show(r.weights_mb, ".1f", "not measured"),
            "not measured" if r.joules is None else f"{r.joules:.3f} ({r.energy})",
        ]
        for r in found
        if r.p50 is not None
    ]
    head = ("import ms", "load ms", "first run ms", "peak MB", "resident MB", "growth MB", "weights MB", "J/frame")
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
            goal = GOALS.get((kind, precision, threads)) if subject.vit and subject.config.dim == 192 else None
            verdict = "" if goal is None or ratio is None else "met" if ratio <= goal else "not met"
            errors = {n: _error(s for s in mine if s.engine == n) for n in (own, best) if n}
            if precision == "int8" and best and errors[best] < errors[own]:
                verdict += f" (but {best} errs less)"
            figures = [f"{threads}", show(ratio), show(goal), verdict]
            cells.append([subject.name, best or "–", *figures, *map(show, against.values())])
    head = ("threads", "to best peer", "goal", "", *peers)
    title = f"edgemtl / peer in {precision}, median over rounds of paired ratios: less than 1 means edgemtl is faster"
    return table(title, ("subject", "best peer"), head, cells)


def switches(walks: Sequence[Walk]) -> Group:
    """What a change of the task costs each engine."""
    cells = []
    for w in walks:
        if w.failure:
            cells.append([w.name, f"{w.threads}", *["–"] * 7, w.failure])
            continue
        cold, warm = w.of("cold"), w.of("warm")
        held, weights = [v.resident for v in w.visits], [v.weights for v in w.visits if v.weights is not None]
        cells.append(
            [
                w.name,
                f"{w.threads}",
                *(show(statistics.median(v.switch_ms + v.penalty_ms for v in kind)) for kind in (cold, warm)),
                *(show(statistics.median(v.bytes for v in kind) / MB) for kind in (cold, warm)),
                show(statistics.median(held) / MB, ".1f"),
                show(max(held) / MB, ".1f"),
                show(statistics.median(weights) / MB if weights else None, ".1f", "not measured"),
                "",
            ]
        )
    head = ("threads", "cold ms", "warm ms", "cold MB", "warm MB", "memory MB", "most MB", "weights MB")
    title = "a switch of the task: time with the first frame's extra, bytes mapped or read, memory grown (measured)"
    return table(title, ("engine",), head, cells, note=True)


def alternatives(found: Sequence[Alternative]) -> Group:
    """Simpler models in the place of the sparse one."""
    cells = []
    for a in found:
        score = f"{a.metric} {a.value:.4g}" if a.value is not None else "not measured"
        size = show(4 * a.parameters / MB if a.parameters else None, ".1f")
        figures = [show(a.p50), show(a.gmac, ".3g"), size, score]
        cells.append([a.task, WORDS[a.kind], f"{a.precision}, {a.threads}", a.engine, *figures])
    head = ("p50 ms", "GMAC", "MB of float weights", "accuracy")
    title = "why not something simpler? fastest engine of each (measured), accuracy of docs/results/study.json"
    return table(title, ("task", "model", "precision, threads", "engine"), head, cells)


def devices(lines: Sequence[Line]) -> Group:
    """Figures of devices that are not this CPU, in a block of their own."""
    cells = []
    for x in lines:
        exact = {True: "equal bit for bit", False: "NOT EQUAL", None: "not run"}[x.exact]
        figures = [show(x.ms), f"{x.cycles:,}" if x.cycles else "–", show(x.ddr_mb)]
        switch = "–" if x.switch_bytes is None else f"{x.switch_bytes} B, {show(x.switch_us, '.1f')} us"
        cells.append([x.device, x.task, x.origin, exact, *figures, switch, x.energy, x.absent])
    head = ("ms/frame", "cycles", "MB of DDR", "switch", "J/frame")
    title = "devices: not measured on this machine, so not to be ranked with the engines above"
    return table(title, ("device", "task", "origin", "results"), head, cells, note=True)


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
            found = rows(comparison.samples, subject, threads, peaks, comparison.scores)
            if found:
                console.print()
                console.print(speed(subject, found, comparison.artifacts.touched.get(subject.name)))
                console.print(loading(subject, found))
                every += found
    blocks = [ratios(comparison, p) for p in ("fp32", "int8")] if every else []
    joined = join([asdict(r) for r in every], comparison.study)
    blocks += [alternatives(joined)] if joined else []
    blocks += [switches(comparison.walks)] if comparison.walks else []
    blocks += [devices(comparison.devices)] if comparison.devices else []
    for block in blocks:
        if block is not None:
            console.print()
            console.print(block)
    if every:
        console.print(LEGEND, markup=False)
        console.print("\nhow each engine was run (object to it):", markup=False)
        for name in dict.fromkeys(row.engine for row in every):
            console.print(f"  {name}: {ENGINES[name].how}", markup=False, soft_wrap=True)
    if comparison.scores:
        images = max(s.images for s in comparison.scores.values())
        console.print(f"accuracy: {images} labelled pictures of {comparison.data}, never trained on", markup=False)
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)
    for row in every:
        comparison.record("row", **asdict(row))
    return every


def _error(mine: Iterable[Sample]) -> float:
    """The largest error of an engine's samples."""
    return max((float(s.result["error"]) for s in mine if s.result), default=0.0)


LEGEND = """
rounds: fresh processes; an engine far behind the best peer twice is left out of later rounds. to best peer: median over
rounds of p50 / best peer's p50 in the same round. GMAC done: by the export, counted. GFLOP/s: twice the model's own
multiply-accumulates (counted) by p50, also where a dense export does more; of SGEMM: of the best library's rate, of
roof: of multiply-adds that never leave the registers. error: largest difference from torch eager, relative to the
largest value; of INT8 the root mean square over 8 pictures that no engine was calibrated on, by the float map's
standard deviation. A metric is that of `edgemtl eval`; one fp32 engine's stands for all that agree with torch. import:
Python's modules of the engine. load: opening the model and making it ready; torch-compile loads from its warm cache.
growth: resident memory after the frames minus before loading. weights: mapped weights in memory (smaps). J/frame: with
its source."""
