"""What engines open: exports and bundles, made before timing, in parallel, and kept in a folder for the next run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemtl.bench import prepare
from edgemtl.bench.engines import ENGINES, Engine
from edgemtl.bench.process import ProcessError, child, environment, stop
from edgemtl.bench.samples import Settings
from edgemtl.bench.subjects import Subject
from edgemtl.graph.count import count

INDEX = "made.json"  # in each subject's folder: of what, which artifacts, and which won the trials
Record = Callable[..., None]  # record(kind, **fields)


@dataclass
class Artifacts:
    """Files per subject under `folder`. `notes` says what was not tried, and why."""

    folder: Path
    settings: Settings
    pictures: Path | None = None  # what INT8 is calibrated on
    tell: Callable[[str], None] = lambda _: None
    record: Record = lambda *_, **__: None
    touched: dict[str, list[int]] = field(default_factory=dict)  # subject -> experts that got a token, per block
    notes: list[str] = field(default_factory=list)
    settled: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # (subject, engine) -> alone worth making
    trials: dict[tuple[str, str, int], tuple[str, float]] = field(default_factory=dict)  # see `settle`
    _paths: dict[tuple[str, str], str] = field(default_factory=dict)  # (subject, artifact) -> path
    _reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def prepare(self, subjects: Sequence[Subject], engines: Sequence[str], *, leading: bool = True) -> None:
        """Make all that is missing; what cannot be made has a reason afterwards.

        leading: these are the first subjects of their shape, for which alone compilers' caches are filled.
        """
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        try:
            waiting = [pool.submit(self._prepare, s, engines, leading) for s in subjects]
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
        finally:
            pool.shutdown()

    def share(self, first: Subject, subject: Subject, engines: Sequence[str]) -> None:
        """Let `subject` use what edgemtl's engines run of `first`, another task of the same bundle."""
        if subject.bundle is None or subject.bundle != first.bundle:
            return
        for name in (a for e in engines if ENGINES[e].own for a in ENGINES[e].artifacts):
            if (first.name, name) in self._paths:
                self._paths[subject.name, name] = self._paths[first.name, name]

    def place(self, subject: Subject) -> Path:
        """The subject's folder."""
        return self.folder / subject.name.replace(":", "-")

    def candidates(self, subject: Subject, engine: Engine) -> list[str]:
        """Artifacts worth trying, given how much more work a dense export does."""
        if (subject.name, engine.name) in self.settled:
            return sorted(self.settled[subject.name, engine.name])
        names = list(engine.candidates(subject.dense))
        if subject.dense:
            return names
        sparse = count(subject.config, subject.task).total
        dense = count(subject.config, subject.task, every_expert=True).total
        if dense > self.settings.doubtful * sparse:
            note = f"{subject.name}: dense exports do {dense / sparse:.1f} times the work and were not tried"
            if note not in self.notes:
                self.notes.append(note)
            names = [n for n in names if "dense" not in n]
        return names

    def ready(self, subject: Subject, engine: Engine) -> list[str]:
        """Those of the candidates that were made."""
        return [n for n in self.candidates(subject, engine) if (subject.name, n) in self._paths]

    def settle(self, subject: Subject, engine: str, threads: int, artifact: str, ms: float) -> None:
        """Keep which export of `subject` won a trial, and its median milliseconds, for the next run in this folder."""
        self.trials[subject.name, engine, threads] = artifact, ms
        index = self.place(subject) / INDEX
        known = json.loads(index.read_text())
        known.setdefault("trials", {})[f"{engine} {threads}"] = [artifact, ms]
        index.write_text(json.dumps(known))

    def path(self, subject: Subject, artifact: str) -> str:
        return self._paths[subject.name, artifact]

    def reason(self, subject: Subject, engine: Engine) -> str:
        """Why nothing is ready."""
        for name in [*self.candidates(subject, engine), ""]:
            if (subject.name, name) in self._reasons:
                return self._reasons[subject.name, name]
        return "nothing to run"

    def request(self, subject: Subject, engine: str, artifact: str, threads: int, seconds: float) -> dict[str, Any]:
        """What a measuring process is told."""
        opener = ENGINES[engine].prepare
        return {
            "engine": engine,
            "prepare": f"{opener.__module__}:{opener.__qualname__}",
            "path": self.path(subject, artifact),
            "folder": str(self.place(subject)),
            "task": subject.task,
            "form": artifact.split("-")[1] if "-" in artifact else "",
            "compile": ENGINES[engine].compiles,
            "precision": ENGINES[engine].precision,
            "threads": threads,
            "warmup": self.settings.warmup,
            "warmup_s": self.settings.warmup_s,
            "frames": self.settings.frames,
            "seconds": seconds,
        }

    def _prepare(self, subject: Subject, engines: Sequence[str], leading: bool) -> None:
        folder = self.place(subject)
        folder.mkdir(parents=True, exist_ok=True)
        usable = [ENGINES[e] for e in engines if ENGINES[e].missing() is None]
        names = list(dict.fromkeys(a for e in usable for a in self.candidates(subject, e)))
        mark, index = prepare.fingerprint(subject, self.pictures), folder / INDEX
        known = json.loads(index.read_text()) if index.is_file() else {}
        fresh = known.get("fingerprint") == mark and (folder / prepare.INFO).is_file()
        done = {n: p for n, p in known["made"].items() if Path(p).exists()} if fresh else {}
        held = {n for s, n in self._paths if s == subject.name}
        wanted = [n for n in names if n not in {*done, *held} and not n.startswith("torch")]
        if wanted or not fresh:
            (folder / prepare.INFO).unlink(missing_ok=True)
            self.tell(f"preparing {subject.name}: {', '.join(wanted) or 'input'}")
            done |= self._build(subject, folder, wanted)
        if (folder / prepare.INFO).is_file():
            self.touched[subject.name] = json.loads((folder / prepare.INFO).read_text())["touched"]
            self._paths |= {(subject.name, n): "" for n in names if n.startswith("torch")}  # run from the weights
        self._paths |= {(subject.name, n): p for n, p in done.items()}
        for engine in [e for e in usable if e.compiles and leading and not subject.alternative]:
            for name in self.ready(subject, engine):
                for threads in self.settings.threads:
                    if f"{name} {threads}" not in done:
                        self._warm(subject, engine, name, threads)
                        done[f"{name} {threads}"] = str(folder)
        trials = known.get("trials", {}) if fresh else {}
        for words, (artifact, ms) in trials.items():
            engine_name, number = words.split()
            self.trials[subject.name, engine_name, int(number)] = artifact, ms
        index.write_text(json.dumps({"fingerprint": mark, "made": done, "trials": trials}))

    def _warm(self, subject: Subject, engine: Engine, artifact: str, threads: int) -> None:
        """Fill the compile cache; a failure shows again, and is reported, when it is measured."""
        self.tell(f"compiling {subject.name} with {engine.name}")
        request = self.request(subject, engine.name, artifact, threads, 0)
        try:
            said = child(
                "edgemtl.bench.worker", request, self.settings.build_timeout, environment(threads, self.folder)
            )
            self.record("compiled", subject=subject.name, artifact=artifact, threads=threads, **json.loads(said[-1]))
        except (ProcessError, ValueError, IndexError) as e:
            self.record("compiled", subject=subject.name, artifact=artifact, threads=threads, failure=str(e))

    def _build(self, subject: Subject, folder: Path, wanted: Sequence[str]) -> dict[str, str]:
        reason = "preparing gave nothing"
        try:
            lines = child(
                "edgemtl.bench.prepare",
                prepare.request(subject, folder, wanted, self.pictures),
                self.settings.build_timeout,
            )
        except ProcessError as e:
            reason, lines = f"preparing failed: {e.reason}", e.said
            self._reasons[subject.name, ""] = reason
        said = {line["artifact"]: line for line in map(json.loads, lines)}
        for name in wanted:
            line = said.get(name, {"artifact": name, "error": reason})
            self.record("prepared", subject=subject.name, **line)
            if "path" not in line:
                self._reasons[subject.name, name] = line["error"]
        return {n: line["path"] for n, line in said.items() if "path" in line}


def leader(subjects: Sequence[Subject], subject: Subject) -> Subject:
    """The first of the subjects that have the same shape as `subject`."""
    return next(s for s in subjects if s.shape == subject.shape)
