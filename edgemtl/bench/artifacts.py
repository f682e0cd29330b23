"""What engines open: exports and bundles, made before timing, and kept in a folder for the next run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemtl.bench import prepare
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import ProcessError, child
from edgemtl.bench.samples import Settings
from edgemtl.bench.subjects import Subject

INDEX = "made.json"  # in each subject's folder: which artifacts, and of what
Record = Callable[..., None]  # record(kind, **fields)


@dataclass
class Artifacts:
    """Files per subject under `folder`."""

    folder: Path
    settings: Settings
    pictures: Path | None = None  # what INT8 is calibrated on
    tell: Callable[[str], None] = lambda _: None
    record: Record = lambda *_, **__: None
    touched: dict[str, list[int]] = field(default_factory=dict)  # subject -> experts that got a token, per block
    _paths: dict[tuple[str, str], str] = field(default_factory=dict)  # see `_key`
    _reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def prepare(self, subjects: Sequence[Subject], engines: Sequence[str]) -> None:
        """Make all that is missing, one after the other: compilers and quantisers use every core themselves, and what
        edgemtl runs is made once for all tasks of a bundle. What cannot be made has a reason afterwards.
        """
        for subject in subjects:
            self._prepare(subject, engines)

    def place(self, subject: Subject) -> Path:
        """The subject's folder."""
        return self.folder / subject.name.replace(":", "-")

    def find(self, subject: Subject, artifact: str) -> str | None:
        """The path of an artifact, if it was made."""
        return self._paths.get(self._key(subject, artifact))

    def reason(self, subject: Subject, artifact: str) -> str:
        """Why there is none."""
        key = (subject.name, artifact)
        return self._reasons.get(key) or self._reasons.get((subject.name, ""), "nothing to run")

    def request(self, subject: Subject, engine: str, threads: int, seconds: float) -> dict[str, Any]:
        """What a measuring process is told."""
        opener = ENGINES[engine].prepare
        return {
            "engine": engine,
            "prepare": f"{opener.__module__}:{opener.__qualname__}",
            "path": self.find(subject, ENGINES[engine].opens(subject.dense) or ""),
            "folder": str(self.place(subject)),
            "task": subject.task,
            "precision": ENGINES[engine].precision,
            "threads": threads,
            "target": self.settings.target,
            "warmup": self.settings.warmup,
            "warmup_s": self.settings.warmup_s,
            "frames": self.settings.frames,
            "seconds": seconds,
        }

    def _key(self, subject: Subject, artifact: str) -> tuple[str, str]:
        """edgemtl's bundle holds every task, so it is kept by the bundle that it was made of."""
        return (subject.bundle or subject.name) if artifact.startswith("bundle") else subject.name, artifact

    def _prepare(self, subject: Subject, engines: Sequence[str]) -> None:
        folder = self.place(subject)
        folder.mkdir(parents=True, exist_ok=True)
        usable = [ENGINES[e] for e in engines if ENGINES[e].missing() is None]
        names = list(dict.fromkeys(n for e in usable if (n := e.opens(subject.dense))))
        mark, index = prepare.fingerprint(subject, self.pictures, self.settings.target), folder / INDEX
        known = json.loads(index.read_text()) if index.is_file() else {}
        fresh = known.get("fingerprint") == mark and (folder / prepare.INFO).is_file()
        done = {n: p for n, p in known["made"].items() if Path(p).exists()} if fresh else {}
        missing = [n for n in names if n not in done and self.find(subject, n) is None]
        if missing or not fresh:
            (folder / prepare.INFO).unlink(missing_ok=True)
            self.tell(f"preparing {subject.name}: {', '.join(missing) or 'input'}")
            done |= self._build(subject, folder, missing)
        if (folder / prepare.INFO).is_file():
            self.touched[subject.name] = json.loads((folder / prepare.INFO).read_text())["touched"]
        self._paths |= {self._key(subject, n): p for n, p in done.items()}
        index.write_text(json.dumps({"fingerprint": mark, "made": done}))

    def _build(self, subject: Subject, folder: Path, wanted: Sequence[str]) -> dict[str, str]:
        reason = "preparing gave nothing"
        request = prepare.request(subject, folder, wanted, self.pictures, self.settings.target)
        try:
            lines = child("edgemtl.bench.prepare", request, self.settings.build_timeout)
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
