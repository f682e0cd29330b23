"""Compare engines: a fresh process for every measurement, interleaved rounds, every sample written down as it comes.

The order within a round is rotated, so that no engine always follows the same neighbour. A subject's engines run one
right after the other; only their ratios within a round are compared (`stats.paired`). Of several subjects of one shape
(the shipped model's tasks) the first decides which export each peer gets and which peers are too slow to go on with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgemtl.bench import peak, stats
from edgemtl.bench.accuracy import Scored
from edgemtl.bench.artifacts import Artifacts, leader
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import ProcessError, child, environment
from edgemtl.bench.samples import Sample, Settings, of, times
from edgemtl.bench.subjects import Subject
from edgemtl.bench.switching import Walk

TRIAL = -1  # the round of a sample that chose an export


def order(engines: Sequence[str], number: int) -> list[str]:
    """The engines in the order of round `number`: rotated by one each time."""
    start = number % len(engines) if engines else 0
    return [*engines[start:], *engines[:start]]


@dataclass
class Comparison:
    """A run of the benchmark: prepare, then measure. `samples` holds all that was measured so far, at any moment."""

    subjects: Sequence[Subject]
    engines: Sequence[str]
    settings: Settings
    folder: Path
    out: Path | None = None
    pictures: Path | None = None  # what INT8 is calibrated on
    data: Path | None = None  # labelled, for accuracy
    tell: Callable[[str], None] = lambda _: None
    samples: list[Sample] = field(default_factory=list)
    peaks: dict[int, dict[str, float]] = field(default_factory=dict)  # threads -> source of peak.py -> rate
    scores: dict[tuple[str, str], Scored] = field(default_factory=dict)  # (subject, INT8 engine or "fp32")
    chosen: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)  # (subject, threads) -> engine: export
    walks: list[Walk] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.artifacts = Artifacts(self.folder, self.settings, self.pictures, self.tell, self.record, notes=self.notes)
        self._began, self._reserve = time.monotonic(), 0.0  # seconds; the second for the peaks at the end

    def prepare(self) -> None:
        """Export and compile all that is missing from the folder, and choose each peer's export by trials.

        Of subjects of one shape the first gets every export, the others those alone that won.
        """
        first = [s for s in self.subjects if leader(self.subjects, s) == s]
        self.artifacts.prepare(first, self.engines)
        self._choose_all(first)
        later = [s for s in self.subjects if s not in first]
        for subject in later:
            for found in (self.chosen[leader(self.subjects, subject).name, t] for t in self.settings.threads):
                for engine, export in found.items():
                    self.artifacts.settled.setdefault((subject.name, engine), set()).add(export)
            self.artifacts.share(leader(self.subjects, subject), subject, self.engines)
        if later:
            self.artifacts.prepare(later, self.engines, leading=False)
            self._choose_all(later)

    def measure(self) -> None:
        """Rounds over all subjects until `rounds` or `minutes` are done; the machine's peaks before and
        after.

        An interrupt passes through; what was measured is in `samples`.
        """
        start = time.monotonic()
        self.measure_peaks()
        self._reserve = time.monotonic() - start
        steps = [(n, t, s) for n in range(self.settings.rounds) for t in self.settings.threads for s in self.subjects]
        for number, threads, subject in steps:
            if number >= self.settings.least and self._late():
                left = f"{number} of {self.settings.rounds} rounds ({subject.name} is the first without the next)"
                self.notes.append(f"stopped after {left}: {self.settings.minutes:g} minutes are over")
                break
            found = self.chosen[subject.name, threads]
            for engine in order(self._keen(subject, threads, list(found)), number):
                self.tell(f"round {number + 1}/{self.settings.rounds}: {subject.name} on {engine}, {threads} thread(s)")
                self._run(subject, engine, found[engine], threads, number)
        self.measure_peaks()

    def record(self, kind: str, **fields: Any) -> None:
        """Append one line to the file of raw samples."""
        if self.out is not None:
            with open(self.out, "a") as f:
                f.write(json.dumps({"kind": kind, "at": time.time(), **fields}) + "\n")

    def _choose_all(self, subjects: Sequence[Subject]) -> None:
        self.chosen |= {(s.name, t): self._choose(s, t) for t in self.settings.threads for s in subjects}

    def _choose(self, subject: Subject, threads: int) -> dict[str, str]:
        """{engine: its best artifact}; engines that can run nothing get their reason as a sample."""
        found = {}
        first = leader(self.subjects, subject)
        for name in self.engines:
            engine = ENGINES[name]
            ready = self.artifacts.ready(subject, engine)
            reason = engine.missing() or (None if ready else self.artifacts.reason(subject, engine))
            if reason is None and engine.compiles and first != subject:
                reason = f"compiles for long, so measured on {first.name} alone, which has the same shape"
            if engine.compiles and subject.alternative:
                reason = "compiles for long, so not measured on alternatives"
            if reason is not None:
                self.add(Sample(subject.name, name, "", threads, 0, failure=reason))
            else:
                found[name] = ready[0] if len(ready) == 1 else self._best(subject, first, name, ready, threads)
        return found

    def _best(self, subject: Subject, first: Subject, engine: str, ready: Sequence[str], threads: int) -> str:
        """The fastest right artifact in a short trial. The choice for one subject holds for others of its shape, and
        for later runs that find the same exports in the folder.
        """

        known = self.artifacts.trials.get((first.name, engine, threads))
        if known is not None and known[0] in ready:
            return known[0]
        if first != subject:
            return ready[0]
        tried = []
        for name in ready:
            self.tell(f"trying {subject.name} on {engine} as {name}")
            self._run(subject, engine, name, threads, TRIAL)
            tried.append(self.samples[-1])
        right = [s for s in tried if s.right]
        if not right:
            return ready[0]
        best = min(right, key=lambda s: s.p50)
        self.artifacts.settle(subject, engine, threads, best.artifact, best.p50)
        return best.artifact

    def _run(self, subject: Subject, engine: str, artifact: str, threads: int, number: int) -> None:
        seconds = self.settings.seconds / 2 if number == TRIAL else self.settings.seconds
        request = self.artifacts.request(subject, engine, artifact, threads, seconds)
        sample = Sample(subject.name, engine, artifact, threads, number)
        try:
            lines = child("edgemtl.bench.worker", request, self.settings.timeout, environment(threads, self.folder))
            sample = replace(sample, result=json.loads(lines[-1]))
        except ProcessError as e:
            sample = replace(sample, failure=e.reason)
        except (ValueError, IndexError):
            sample = replace(sample, failure="its output is not a result")
        self.add(sample)

    def _keen(self, subject: Subject, threads: int, engines: Sequence[str]) -> list[str]:
        """Engines still worth a process: not failed twice nor stalled, not far behind the best twice; or edgemtl."""
        first = leader(self.subjects, subject)
        mine, theirs = (list(of(self.samples, s.name, threads)) for s in (subject, first))
        kept = []
        for e in engines:
            failed = sum(2 if s.stalled else not s.right for s in mine if s.engine == e)
            behind, rounds = self._behind(mine, e)
            if ENGINES[e].own:
                kept.append(e)
            elif failed >= 2 or (rounds >= 2 and behind > self.settings.lag):
                continue
            elif not rounds and first != subject and (slow := self._behind(theirs, e)[0]) > self.settings.lag:
                reason = f"left out: {slow:.1f} times slower than the best on {first.name}, which has the same shape"
                if not any(s.engine == e for s in mine):
                    self.add(Sample(subject.name, e, "", threads, 0, failure=reason))
            else:
                kept.append(e)
        return kept

    def _behind(self, mine: Sequence[Sample], engine: str) -> tuple[float, int]:
        """The engine's ratio to the best peer so far (0: none), and its right rounds."""
        precision = ENGINES[engine].precision
        alike = {s.engine for s in mine if ENGINES[s.engine].precision == precision}
        found = {e: times(s for s in mine if s.engine == e) for e in alike}
        best = stats.best({e: r for e, r in found.items() if r and not ENGINES[e].own})
        rounds = found.get(engine, {})
        return (stats.paired(rounds, found[best]) or 0.0) if best else 0.0, len(rounds)

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.record("sample", **asdict(sample))

    def measure_peaks(self) -> None:
        """Every source's best of this run, per thread count; measured again at the end, the higher one counts."""
        for threads in self.settings.threads if self.settings.peak_s > 0 else ():
            for source in peak.SOURCES:
                self.tell(f"measuring the machine's peak with {threads} thread(s): {source}")
                request = {"peak": source, "threads": threads, "seconds": self.settings.peak_s}
                try:
                    lines = child("edgemtl.bench.worker", request, 120, environment(threads, self.folder))
                    rate = float(json.loads(lines[-1])["rate"])
                except (ProcessError, ValueError, IndexError):
                    continue  # the library is not installed, or there is no compiler
                known = self.peaks.setdefault(threads, {})
                known[source] = max(rate, known.get(source, 0))
                self.record("peak", threads=threads, source=source, rate=rate)

    def _late(self) -> bool:
        limit = self.settings.minutes
        return limit is not None and time.monotonic() + self._reserve - self._began > 60 * limit
