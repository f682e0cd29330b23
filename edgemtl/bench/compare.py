"""Compare engines: a fresh process for every measurement, interleaved rounds, every sample written down as it comes.

The order within a round is rotated, so that no engine always follows the same neighbour. A subject's engines run one
right after the other; only their ratios within a round are compared (`stats.paired`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from edgemtl.bench import held
from edgemtl.bench.artifacts import Artifacts
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import ProcessError, child, environment
from edgemtl.bench.rows import rows
from edgemtl.bench.samples import Sample, Settings, of
from edgemtl.bench.subjects import Subject


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
    tell: Callable[[str], None] = lambda _: None
    samples: list[Sample] = field(default_factory=list)
    ready: dict[str, list[str]] = field(default_factory=dict)  # subject -> engines that have what they open
    walks: list[Any] = field(default_factory=list)  # of switching.py
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.artifacts = Artifacts(self.folder, self.settings, self.pictures, self.tell, self.record)
        self._began = time.monotonic()
        self._held: dict[str, str] = {}

    def prepare(self) -> None:
        """Export and compile all that is missing from the folder."""
        self._held = held.variables(self.settings.target, self.folder)
        self.artifacts.prepare(self.subjects, self.engines)
        for subject in self.subjects:
            self.ready[subject.name] = []
            for name in self.engines:
                engine = ENGINES[name]
                artifact = engine.opens(subject.dense)
                if artifact is None:
                    continue
                unusable = engine.missing()
                if self.artifacts.find(subject, artifact) and unusable is None:
                    self.ready[subject.name].append(name)
                    continue
                reason = unusable or self.artifacts.reason(subject, artifact)
                for threads in self.settings.threads:
                    self.add(Sample(subject.name, name, "", threads, 0, failure=reason))

    def measure(self) -> None:
        """Rounds over all subjects until `rounds` are done and ratios `precise`, or `minutes` over.

        An interrupt passes through; what was measured is in `samples`.
        """
        for number, threads, subject in self._steps():
            late = time.monotonic() - self._began > 60 * (self.settings.minutes or math.inf)
            if late and number >= self.settings.least:
                left = f"{number} of {self.settings.rounds} rounds ({subject.name} is the first without the next)"
                self.notes.append(f"stopped after {left}: {self.settings.minutes:g} minutes are over")
                break
            for engine in order(self._keen(subject, threads), number):
                self.tell(f"round {number + 1}/{self.settings.rounds}: {subject.name} on {engine}, {threads} thread(s)")
                self._run(subject, engine, threads, number)
        for threads, subject in product(self.settings.threads, self.subjects):
            if wide := self._wide(subject, threads):
                self.notes.append(
                    f"{subject.name}, {threads} thread(s): the ratio of {' and '.join(wide)} is not known to within"
                    f" ±{self.settings.precise:g}; give more --minutes, or a quieter machine"
                )

    def _steps(self) -> Iterator[tuple[int, int, Subject]]:
        """Round, threads and subject of all that is to be measured; whether a round is needed is asked before it."""
        for number in range(self.settings.rounds if self.settings.precise is None else self.settings.most):
            for threads, subject in product(self.settings.threads, self.subjects):
                if number < self.settings.rounds or self._wide(subject, threads):
                    yield number, threads, subject

    def _wide(self, subject: Subject, threads: int) -> list[str]:
        """edgemtl's engines whose ratio to the best peer has a 95 % interval wider than asked for."""
        most = self.settings.precise
        own = [r for r in rows(self.samples, subject, threads) if ENGINES[r.engine].own and r.ratio is not None]
        return [r.engine for r in own if most is not None and (r.reach is None or r.reach > most)]

    def environment(self, threads: int) -> dict[str, str]:
        """Variables of a process that measures."""
        return environment(threads) | self._held

    def record(self, kind: str, **fields: Any) -> None:
        """Append one line to the file of raw samples."""
        if self.out is not None:
            with open(self.out, "a") as f:
                f.write(json.dumps({"kind": kind, "at": time.time(), **fields}) + "\n")

    def _run(self, subject: Subject, engine: str, threads: int, number: int) -> None:
        request = self.artifacts.request(subject, engine, threads, self.settings.seconds)
        artifact = ENGINES[engine].opens(subject.dense) or ""
        sample = Sample(subject.name, engine, artifact, threads, number)
        try:
            lines = child("edgemtl.bench.worker", request, self.settings.timeout, self.environment(threads))
            sample = replace(sample, result=json.loads(lines[-1]))
        except ProcessError as e:
            sample = replace(sample, failure=e.reason)
        except (ValueError, IndexError):
            sample = replace(sample, failure="its output is not a result")
        self.add(sample)

    def _keen(self, subject: Subject, threads: int) -> list[str]:
        """Engines still worth a process: those that have not failed twice nor stalled."""
        failed = dict.fromkeys(self.ready[subject.name], 0)
        for sample in of(self.samples, subject.name, threads):
            if sample.engine in failed and not sample.right:
                failed[sample.engine] += 2 if sample.stalled else 1
        return [engine for engine, times in failed.items() if times < 2]

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.record("sample", **asdict(sample))
