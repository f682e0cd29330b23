"""A whole run as one JSON document: what was measured, on what, with which settings, and every figure's origin."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.prepare import versions
from edgemtl.bench.rows import rows
from edgemtl.bench.subjects import Subject
from edgemtl.errors import DataError
from edgemtl.graph.count import weight_bytes

SCHEMA_VERSION = 2


def make(run: Comparison, machine: Mapping[str, Any], command: Sequence[str], *, interrupted: bool) -> dict[str, Any]:
    """The document of what `run` found so far."""
    every = [
        asdict(row) for threads in run.settings.threads for s in run.subjects for row in rows(run.samples, s, threads)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "made": time.strftime("%Y-%m-%d"),
        "command": " ".join(_plain(word) for word in command),
        "interrupted": interrupted,
        "machine": {k: machine[k] for k in ("cpu", "cpus", "features", "load", "python") if k in machine},
        "packages": versions(),
        "settings": asdict(run.settings),
        "engines": {n: {"how": ENGINES[n].how, "precision": ENGINES[n].precision} for n in run.engines},
        "subjects": [
            {"name": s.name, "task": s.task, "weights": s.origin, "gmac": s.work / 1e9, "read_mb": _read(run, s)}
            for s in run.subjects
        ],
        "rows": every,
        "walks": [{**asdict(w), "name": w.name} for w in run.walks],
        "notes": list(run.notes),
    }


def _read(run: Comparison, subject: Subject) -> float:
    """Megabytes of weights that a frame reads at least."""
    return weight_bytes(subject.config, subject.task, run.artifacts.touched.get(subject.name)) / 1e6


def write(path: Path, document: Mapping[str, Any]) -> None:
    """As JSON; numbers that JSON does not know (an infinite error) become null."""
    path.write_text(json.dumps(_finite(document), indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """A document that `write` wrote. Raises DataError for a file that is none."""
    try:
        found = json.loads(path.read_text())
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror or e}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is no JSON; give a file that demos/benchmark.py --json wrote") from None
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION or "rows" not in found:
        raise DataError(f"{path} is no benchmark of version {SCHEMA_VERSION}; make it again: demos/benchmark.py --json")
    return found


def _plain(word: str) -> str:
    """An argument without the folders of this machine."""
    return Path(word).name if Path(word).is_absolute() else word


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
