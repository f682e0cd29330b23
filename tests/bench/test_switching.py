"""Switches: what a peer and edgemtl read and hold, in real processes."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgemtl.bench import prepare, switching
from edgemtl.bench.artifacts import Artifacts
from edgemtl.bench.compare import Comparison
from edgemtl.bench.process import child
from edgemtl.bench.samples import Sample, Settings
from edgemtl.bench.subjects import parse
from edgemtl.bundle.reader import Bundle
from edgemtl.runtime.mapping import segments, sizes

TASKS = ("depth", "semseg")
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnxruntime", "onnx"))), reason="onnxruntime, onnx"
)


def run(engine: str, policy: switching.Policy, models: list[dict[str, Any]]) -> switching.Walk:
    want = {"policy": policy, "threads": 1, "models": models}
    (said,) = child("edgemtl.bench.switching", want, 300)
    return switching.Walk(engine, policy, json.loads(said))


@needs_onnx
def test_a_peer_reads_a_model_or_holds_all(tmp_path: Path) -> None:
    """One export stands for both tasks; how often its file is read is what counts."""
    (subject,) = parse("micro")
    artifacts = Artifacts(tmp_path, Settings(threads=(1,)))
    place = artifacts.place(subject)
    place.mkdir()
    (line,) = child("edgemtl.bench.prepare", prepare.request(subject, place, ["onnx-sparse"]), 300)
    artifacts._paths[subject.name, "onnx-sparse"] = json.loads(line)["path"]
    size = Path(json.loads(line)["path"]).stat().st_size
    models = [{**artifacts.request(subject, "onnxruntime", 1, 0), "task": t} for t in TASKS]
    swap, keep = (run("onnxruntime", policy, models) for policy in ("swap", "keep"))
    assert [v["task"] for v in swap.visits] == [*TASKS, *TASKS]
    assert [v["kind"] for v in swap.visits] == ["cold", "cold", "warm", "warm"]
    assert [v["bytes"] for v in swap.visits] == [size] * 4
    assert [v["bytes"] for v in keep.visits] == [size, size, 0, 0]
    assert all(v["weights"] is None for v in (*swap.visits, *keep.visits))
    assert max(v["switch_ms"] for v in keep.visits[2:]) < min(v["switch_ms"] for v in swap.visits[2:])
    assert keep.name == "onnxruntime, all models open"


def test_edgemtl_maps_what_the_task_lacks(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    if not shutil.which("g++"):
        pytest.skip("needs: apt-get install g++")
    subjects = [s for s in parse("rooms", bundle) if s.task in TASKS]
    artifacts = Artifacts(tmp_path, Settings(threads=(1,)))
    with Bundle.open(bundle) as opened:
        config = opened.manifest.model
        held = {t: segments(config, [t]) for t in TASKS}
        (tmp_path / "rooms-depth").mkdir()
        image = opened.golden()[0]["0"]
        import numpy as np

        np.save(tmp_path / "rooms-depth" / prepare.INPUT, image)
        more = {
            t: sum(sizes(opened, held[t] - held[other]).values()) for t, other in zip(TASKS, TASKS[::-1], strict=True)
        }
        whole = sum(sizes(opened, held["depth"]).values())
    artifacts._paths[str(bundle), "bundle"] = str(bundle)
    by_task = {s.task: artifacts.request(s, "edgemtl", 1, 0) for s in subjects}
    for request in by_task.values():
        request["folder"] = str(tmp_path / "rooms-depth")
    found = run("edgemtl", "active", [by_task[t] for t in TASKS])
    assert [v["bytes"] for v in found.visits] == [whole, more["semseg"], more["depth"], more["semseg"]]
    assert all(v["weights"] is not None and 0 < v["weights"] <= whole + max(more.values()) for v in found.visits)
    assert found.name == "edgemtl"


def test_the_best_peer_of_each_kind_walks(tmp_path: Path) -> None:
    """Of ONNX Runtime's forms the faster one, and edgemtl is always in."""
    comparison = Comparison(parse("micro"), [], Settings(threads=(1,)), tmp_path)
    speed = {"onnxruntime": 3.0, "onnxruntime-dense": 2.0, "openvino": 9.0}
    comparison.samples += [Sample("micro", e, "", 1, 0, {"ms": [ms], "error": 0.0}) for e, ms in speed.items()]
    engines = ["edgemtl", *speed, "onnxruntime-int8"]
    assert switching._best(comparison, engines) == ["edgemtl", "onnxruntime-dense", "openvino", "onnxruntime-int8"]
