"""The hybrid on every backend that runs it: tokens and three maps go from the prefix into each task's function."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.cli import compile as compile_command
from edgemtl.errors import BackendError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.runtime import backends
from edgemtl.runtime.engine import Engine
from edgemtl_compiler import compile_bundle
from edgemtl_compiler.bundle import Built

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = ("depth", "normals")
TOLERANCE = 1e-5  # of the largest value


@pytest.fixture(scope="module")
def hybrid() -> MultiTaskViT:
    """Two blocks, the second with experts; normals read the pixels' rays."""
    shape = {"image_size": (32, 48), "dim": 32, "heads": 2, "depth": 2, "moe": (1,), "head_dim": 16, "rays": True}
    config = preset("hybrid", **shape, experts=6, top_k=2, paths={"depth": ((0, 2, 5),)}, tasks="rooms")
    torch.manual_seed(5)
    model = MultiTaskViT(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "norm" not in name:
                value.mul_(1.5)
    return model


@pytest.fixture(scope="module")
def subject(hybrid: MultiTaskViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    targets = ["torch"]
    if importlib.util.find_spec("tvm") and any(map(shutil.which, ("g++", "clang++"))):
        targets.append("cpu")
    if importlib.util.find_spec("onnx"):
        targets.append("onnx")
    path = tmp_path_factory.mktemp("hybrid") / "hybrid.edgemtl"
    compile_bundle(hybrid, path, targets=targets, tasks=TASKS)
    return path


@pytest.fixture(params=["tvm-cpu", "onnxruntime", "torch"])
def backend(request: pytest.FixtureRequest) -> str:
    if reason := backends.find(str(request.param)).unusable():
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def engine(backend: str, subject: Path) -> Iterator[Engine]:
    try:
        opened = edgemtl.load(subject, backend, tasks=TASKS, threads=2)
    except BackendError as e:
        pytest.skip(str(e))
    yield opened
    opened.close()


def image(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((1, 3, 32, 48), np.float32)


def test_it_gives_the_models_maps(engine: Engine, hybrid: MultiTaskViT) -> None:
    for seed in range(2):
        got = engine.raw(image(seed))
        with torch.no_grad():
            want = hybrid(torch.from_numpy(image(seed)), list(TASKS))
        for task in TASKS:
            expected = want[task][0].numpy()
            assert got[task].shape == expected.shape
            assert float(np.abs(got[task] - expected).max()) < TOLERANCE * float(np.abs(expected).max())


def test_a_switch_changes_no_map(engine: Engine) -> None:
    both = engine.raw(image(3))
    for tasks in (("normals",), ("depth",), ("normals", "depth")):
        engine.activate(*tasks)
        for task, raw in engine.raw(image(3)).items():
            np.testing.assert_array_equal(raw, both[task])


def test_what_has_no_kernel_is_named(cli: Any, subject: Path, capfd: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(cli("inspect", subject, "--json").out)
    found = {p["backend"]: p["fallback"] for p in facts["programs"]}
    if "tvm-cpu" not in found:
        pytest.skip("nothing was compiled for a CPU")
    assert found.pop("onnxruntime", {}) == {}
    tasks = found["tvm-cpu"]
    assert set(tasks["depth"]["nodes"]) == {"pos_embed", "head.wide"}  # a sum and a view: no arithmetic
    assert set(tasks["normals"]["nodes"]) - set(tasks["depth"]["nodes"]) == {"head.rays"}
    assert 0 == tasks["depth"]["share"] < tasks["normals"]["share"] < 0.01
    with Bundle.open(subject) as opened:
        built = Built(subject, opened.size, ("cpu",), manifest=opened.manifest)
    compile_command._print(built)
    report = capfd.readouterr().out
    assert "normals" in report
    assert "head.rays" in report
    said = " ".join(cli("inspect", subject).out.split())
    assert "run on TVM's own code" in said
    assert f"counted: depth {tasks['depth']['share']:.1%}" in said
