"""Where a frame's time goes, kernel by kernel: calls, milliseconds, arithmetic, bytes of weights, and what bounds each.

The kernels time themselves (kernels/profile.h), within real frames on real weights, so caches are as cold as they are
in use. What is left of the frame is the virtual machine's, Python's and the copies'. The bound compares two times that
nothing can beat: the call's multiply-accumulates at the roof of their kind (FMA, or INT8 dot products), and its weights
at the speed of memory.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from edgemtl.bench import peak, prepare, report
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.media.preprocess import Array, aligned_zeros
from edgemtl.runtime import backends
from edgemtl.runtime.mapping import WeightMap, segments

OUTSIDE = "outside kernels"


@dataclass(frozen=True)
class Line:
    """All calls of one kernel on one amount of work, in one frame."""

    kernel: str
    calls: int
    ms: float  # median over frames
    macs: int  # of all calls
    bytes: int  # of weights, of all calls

    @property
    def gflops(self) -> float:
        """Billions of operations a second, two for a multiply-accumulate: of numbers, or of INT8 codes."""
        return 2e-6 * self.macs / self.ms if self.ms else 0.0

    @property
    def roof(self) -> str:
        """The source of peak.py that bounds its arithmetic."""
        return peak.DOT if self.kernel.endswith("_i8") else peak.FMA


def parse(text: str) -> list[tuple[str, int, int, int]]:
    """(kernel, multiply-accumulates, bytes, nanoseconds) of each recorded call."""
    rows = (line.split() for line in text.splitlines())
    return [(kernel, int(macs), int(size), int(ns)) for kernel, macs, size, ns in rows]


def measure(bundle: Path, task: str, image: Array, *, threads: int, seconds: float) -> tuple[list[Line], float]:
    """Lines in the order of the frame, what is outside kernels last; and the frame's median milliseconds.

    image: the network's input, float32 [1, 3, H, W]. Raises BackendError where the bundle has no program for this CPU.
    """
    from edgemtl.runtime.backends.tvm_cpu import TvmCpu

    with Bundle.open(bundle) as opened:
        kind, choice = backends.usable(TvmCpu.name, opened)
        runner = kind(opened, choice, threads)
        weights = WeightMap(opened)
        weights.map(segments(opened.manifest.model, (task,)))
        try:
            runner.bind(task, weights.get)
            aligned = aligned_zeros(image.shape)
            aligned[...] = image
            frames = _frames(runner, aligned, task, seconds)
        finally:
            runner.close()
            weights.unmap(weights.held)
    return summarise(frames)


def _frames(runner: Any, image: Array, task: str, seconds: float) -> list[tuple[float, str]]:
    """(milliseconds, the calls as text) of each frame, after some to warm up."""
    out: list[tuple[float, str]] = []
    end, warm = time.perf_counter() + seconds, 3
    while len(out) < 5 or time.perf_counter() < end:
        runner.profile(True)
        start = time.perf_counter()
        runner.run(image, [task])
        ms = 1e3 * (time.perf_counter() - start)
        if warm:
            warm -= 1
        else:
            out.append((ms, "".join(runner.calls().values())))
    runner.profile(False)
    return out


def summarise(frames: Sequence[tuple[float, str]]) -> tuple[list[Line], float]:
    """Lines of frames, each (milliseconds, recorded calls); see `measure`."""
    times: dict[tuple[str, int], list[float]] = {}
    calls: dict[tuple[str, int], list[int]] = {}  # bytes of each call, in the first frame
    outside = []
    for ms, text in frames:
        found: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for kernel, macs, size, ns in parse(text):
            found.setdefault((kernel, macs), []).append((size, ns))
        for key, each in found.items():
            times.setdefault(key, []).append(1e-6 * sum(ns for _, ns in each))
            calls.setdefault(key, [size for size, _ in each])
        outside.append(ms - 1e-6 * sum(ns for each in found.values() for _, ns in each))
    lines = [
        Line(kernel, len(sizes), statistics.median(times[kernel, macs]), macs * len(sizes), sum(sizes))
        for (kernel, macs), sizes in calls.items()
    ]
    whole = statistics.median(ms for ms, _ in frames)
    return [*lines, Line(OUTSIDE, 1, statistics.median(outside), 0, 0)], whole


def run(comparison: Comparison, seconds: float, console: Console) -> str:
    """Profile the comparison's engines, edgemtl's own, on every subject; print tables, give them as Markdown."""
    text, told = [], comparison.settings
    peaks_of = {threads: peak.fresh(threads, told.peak_s, told.target) for threads in told.threads}
    for subject, name in product(comparison.subjects, comparison.engines):
        engine = ENGINES[name]
        for threads in told.threads:
            artifacts = comparison.artifacts
            path = artifacts.find(subject, engine.artifact)
            if path is None:
                raise BackendError(f"{subject.name}: {artifacts.reason(subject, engine.artifact)}")
            image = np.load(artifacts.place(subject) / prepare.INPUT)
            lines, whole = measure(Path(path), subject.task, image, threads=threads, seconds=seconds)
            peaks = peaks_of[threads]
            title = f"{subject.name}, {engine.precision}, {threads} thread(s), {whole:.2f} ms a frame (measured)"
            made = table(title, lines, whole, peaks)
            console.print(made.printed(), "")
            text += [f"### {title}", "", f"{peak.sentence(peaks, threads)}.", "", *made.markdown(), ""]
    return "\n".join(text)


def share_of_roof(lines: Sequence[Line], ms: float, peaks: Mapping[str, float]) -> float | None:
    """The part of `ms` that the lines' arithmetic would take at its roofs; None where one was not measured."""
    working = [line for line in lines if line.macs]
    if not working or not ms or not all(peaks.get(line.roof) for line in working):
        return None
    return sum(2e-6 * line.macs / peaks[line.roof] for line in working) / ms


def bound(line: Line, peaks: Mapping[str, float]) -> str:
    """What the line cannot be faster than, and how much of its time that is."""
    if line.kernel == OUTSIDE:
        return "dispatch, allocation, copies"
    limits = {}
    if peaks.get(line.roof):
        limits["arithmetic"] = 2e-6 * line.macs / peaks[line.roof]
    if peaks.get(peak.READ):
        limits["weights from memory"] = 1e-6 * line.bytes / peaks[peak.READ]
    if not limits or line.ms <= 0:
        return "not measured"
    name = max(limits, key=lambda n: limits[n])
    share = limits[name] / line.ms
    return f"{name}, {share:.0%} of its time" if share >= 0.3 else f"neither: {name} would take {share:.0%} of its time"


def table(title: str, lines: Sequence[Line], whole: float, peaks: Mapping[str, float]) -> report.Table:
    """The lines and their sum, with their shares of the roof."""
    total = Line("**whole frame**", sum(x.calls for x in lines) - 1, whole, sum(x.macs for x in lines), 0)
    cells = []
    for line in [*lines, total]:
        parts = lines if line is total else [line]
        cells.append(
            [
                line.kernel,
                f"{line.calls}",
                f"{line.ms:.3f}",
                report.show(line.macs / 1e6 or None, ".1f"),
                report.show(line.gflops or None, ".1f"),
                report.show(share_of_roof(parts, line.ms, peaks), ".0%"),
                "" if line is total else bound(line, peaks),
            ]
        )
    head = ("calls", "ms", "MMAC", "GFLOP/s or GOP/s", "of roof", "bound")
    return report.Table(title, ("kernel",), head, cells)
