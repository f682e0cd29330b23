"""A finished comparison with every kind of result, made up, for what is written and drawn from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemtl.bench import document
from edgemtl.bench.compare import Comparison
from edgemtl.bench.samples import Sample, Settings
from edgemtl.bench.subjects import Subject, parse
from edgemtl.bench.switching import Walk

MACHINE = {"cpu": "a CPU", "cpus": 2, "features": ["avx2"], "load": 0.1, "python": "3.11"}
ENGINES = {"edgemtl": 10.0, "edgemtl-int8": 4.0, "onnxruntime": 15.0, "openvino": 12.0, "openvino-int8-dense": 6.0}
EXPORTS = {"edgemtl": "bundle", "edgemtl-int8": "bundle-int8", "openvino-int8-dense": "nncf-dense"}
MEMORY = {"before": {"resident": 10 << 20}, "after": {"resident": 30 << 20, "peak": 40 << 20}}


def sample(subject: str, engine: str, number: int, factor: float = 1.0) -> Sample:
    precision = "int8" if "int8" in engine else "fp32"
    error = 0.02 if precision == "int8" else 1e-7
    times = [factor * ENGINES[engine] * f for f in (1.0, 1.1, 1.3)]
    found: dict[str, Any] = {"import_s": 0.1, "load_s": 0.02, "first_s": 0.03, "ms": times, "error": error,
                             "precision": precision, "memory": MEMORY, "weights": None}  # fmt: skip
    return Sample(subject, engine, EXPORTS.get(engine, "onnx-sparse"), 2, number, found)


def visits(ms: float, cold: float, warm: float, mb: tuple[float, float], grown: float) -> tuple[dict[str, Any], ...]:
    out = []
    for kind, switch, size in (("cold", cold, mb[0]), ("warm", warm, mb[1])):
        for n, task in enumerate(("depth", "edge")):
            found = {"task": task, "kind": kind, "switch_ms": switch, "penalty_ms": 0.5 * ms, "bytes": int(1e6 * size)}
            found["resident"] = int(1e6 * (30 + (grown if kind == "warm" else grown * n)))
            out.append({**found, "weights": 26_000_000 if grown == 0 else None})
    return tuple(out)


def comparison(folder: Path) -> Comparison:
    """Two tasks of a model, two rounds, three walks of which one failed."""
    (micro,) = parse("micro")
    subjects = [Subject(f"rooms:{t}", micro.config, "depth", "trained", "rooms.edgemtl") for t in ("depth", "edge")]
    subjects += parse("single:depth")
    run = Comparison(subjects, [*ENGINES, "onnxruntime-dense"], Settings(threads=(2,), rounds=2), folder)
    run.samples += [sample(s.name, e, n) for s in subjects[:2] for e in ENGINES for n in (0, 1)]
    run.samples.append(sample("single:depth", "openvino", 0, 0.583))
    run.samples.append(
        Sample("rooms:depth", "onnxruntime-dense", "", 2, 0, failure="killed by signal 11: it printed nothing")
    )
    run.walks += [
        Walk("edgemtl", "active", visits(10, 3, 1, (3.2, 3.2), 0)),
        Walk("openvino", "swap", visits(12, 600, 500, (27, 27), 80)),
        Walk("openvino", "keep", failure="no result after 120 s"),
    ]
    return run


def made(folder: Path) -> dict[str, Any]:
    """The document of `comparison`."""
    return document.make(comparison(folder), MACHINE, ["benchmark.py", "--data", "/somewhere/rooms"], interrupted=False)
