"""Real processes on micro models: forms agree with the model, engines are right, the command prints and writes."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from edgemtl.bench import document, prepare
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.forms import Dense, Form, export
from edgemtl.bench.process import child
from edgemtl.bench.rows import rows
from edgemtl.bench.samples import Settings
from edgemtl.bench.subjects import parse
from edgemtl.bench.worker import relative
from edgemtl.bundle.manifest import Manifest
from edgemtl.errors import ConfigError
from edgemtl.graph import network
from edgemtl.model import MultiTaskViT

DEMO = Path(__file__).parents[2] / "demos" / "benchmark.py"
needs_onnx = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnxruntime", "onnx"))), reason="onnxruntime, onnx"
)


def whole(form: Form, micro: MultiTaskViT) -> MultiTaskViT:
    """A model that the form is for: the micro one, or a dense one."""
    torch.manual_seed(1)
    return MultiTaskViT(parse("micro-dense")[0].config).eval() if form == "plain" else micro


@pytest.mark.parametrize("form", ["dense", "plain"])
def test_the_dense_form_is_the_model(micro: Any, form: Form) -> None:
    model = whole(form, micro.model)
    image = torch.from_numpy(micro.inputs["0"])
    with torch.inference_mode():
        for task in model.config.task_names:
            wanted = model(image, [task])[task].numpy()
            assert relative(Dense(model, task)(image).numpy(), wanted) < 1e-5


@needs_onnx
@pytest.mark.parametrize("form", get_args(Form))
@pytest.mark.parametrize("opset", [18, 23])
def test_every_form_is_the_model_in_onnx(micro: Any, form: Form, opset: int, tmp_path: Path) -> None:
    model, image = whole(form, micro.model), micro.inputs["0"]
    path = export(model, "depth", form, tmp_path / "x.onnx", opset)
    call = ENGINES["onnxruntime"].prepare({"path": str(path), "threads": 1}, image)()
    with torch.inference_mode():
        assert relative(call(), model(torch.from_numpy(image), ["depth"])["depth"].numpy()) < 1e-5


def test_relative_error() -> None:
    wanted = np.array([[[[1.0, -2.0]]]], np.float32)
    assert relative(wanted, wanted) == 0
    assert relative(wanted[0], wanted) == 0
    assert relative(wanted + 0.5, wanted) == 0.25
    assert relative(wanted[..., :1], wanted) == float("inf")
    assert relative(wanted * np.nan, wanted) == float("inf")


@needs_onnx
def test_micro_end_to_end(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped-model way: weights and input from a bundle; both forms in ONNX agree with PyTorch."""
    monkeypatch.setattr(prepare, "fingerprint", lambda *_: "the same")
    (subject,) = parse("rooms:depth", bundle)
    settings = Settings(threads=(1,), rounds=2, warmup=0, warmup_s=0, frames=2, seconds=1e-6)
    engines = ["edgemtl", "onnxruntime", "onnxruntime-dense"]
    if importlib.util.find_spec("tvm") is None:
        engines.remove("edgemtl")
    comparison = Comparison([subject], engines, settings, tmp_path / "work", tmp_path / "out.jsonl")
    comparison.prepare()
    comparison.measure()
    found = rows(comparison.samples, subject, 1)
    assert [r.engine for r in found] == engines
    for row in found:
        assert row.reason == ""
        assert row.rounds == 2
        assert row.p50 is not None
        assert row.p50 > 0
        assert row.error is not None
        assert row.error < 1e-5
        assert row.growth_mb is not None
        assert (row.weights_mb is not None) == (row.engine == "edgemtl")
    made = (tmp_path / "work" / "rooms-depth" / "made.json").read_bytes()
    again = Comparison([subject], engines, settings, tmp_path / "work")
    again.prepare()  # nothing is made twice
    assert (tmp_path / "work" / "rooms-depth" / "made.json").read_bytes() == made
    expected = tmp_path / "work" / "rooms-depth" / prepare.EXPECTED
    np.save(expected, 2 * np.load(expected))
    again._run(subject, "onnxruntime", 1, 0)
    assert not again.samples[-1].right
    assert rows(again.samples, subject, 1)[-1].reason.startswith("wrong: ")


def test_an_export_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    (subject,) = parse("micro")
    said = child("edgemtl.bench.prepare", prepare.request(subject, tmp_path, ["onnx-plain"]), 120)
    assert "error" in json.loads(said[0])
    assert json.loads((tmp_path / prepare.INFO).read_text())["touched"]


def test_subjects(bundle: Path) -> None:
    assert [s.task for s in parse("rooms", bundle)] == ["semseg", "depth", "normals", "edge"]
    assert parse("vit-s:1025")[0].config.tokens == 1025
    assert parse("vit-s:1025")[0].dense
    assert not parse("edge-moe:129:e64")[0].dense
    assert {node.op for node in network(parse("stem:depth")[0].config, "depth").nodes}.isdisjoint(
        {"attention", "experts"}
    )
    for name in ("rooms:nothing", "edge-moe:130", "vit-s:197:e4", "resnet"):
        with pytest.raises(ConfigError, match="nothing|no benchmark subject"):
            parse(name, bundle)
    with pytest.raises(ConfigError, match="needs a bundle"):
        parse("rooms")


def test_a_bundle_of_another_precision_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Manifest, "precision", "int8")
    with pytest.raises(ConfigError, match=r"micro.edgemtl holds int8 weights; give the float32 bundle"):
        parse("rooms", bundle)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the command finds what an earlier run of it exported."""
    return tmp_path_factory.mktemp("work")


WORDS = ["--subjects", "micro-dense", "--engines", "onnxruntime", "--threads", "1"]


@needs_onnx
def test_the_command(work: Path, tmp_path: Path) -> None:
    files = ["--out", str(tmp_path / "o.jsonl"), "--json", str(tmp_path / "o.json"), "--work", str(work)]
    command = [sys.executable, str(DEMO), "--quick", *WORDS, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "micro-dense, 1 thread(s)" in done.stdout
    assert "onnxruntime: written from the graph, opset 23" in done.stdout
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert kinds.count("sample") == 2
    assert kinds[0] == "machine"
    made = document.read(tmp_path / "o.json")
    assert [r["engine"] for r in made["rows"]] == ["onnxruntime"]
    assert not made["interrupted"]


@needs_onnx
def test_ctrl_c_prints_what_was_measured(work: Path, tmp_path: Path) -> None:
    raw = tmp_path / "o.jsonl"
    files = ["--out", str(raw), "--json", str(tmp_path / "o.json"), "--work", str(work)]
    command = [sys.executable, str(DEMO), *WORDS, *files, "--rounds", "10000", "--seconds", "0.01", "--minutes", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        end = time.monotonic() + 200
        while not (raw.is_file() and '"kind": "sample"' in raw.read_text()) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "micro-dense, 1 thread(s)" in said
    assert "interrupted: the tables hold what was measured until then" in said
    assert "Traceback" not in errors
    made = document.read(tmp_path / "o.json")
    assert made["interrupted"]
    assert made["rows"][0]["rounds"] >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--subjects", "resnet"], "no benchmark subject 'resnet'"),
        (["--engines", "tflite"], "no engine 'tflite'"),
        (["--threads", "many"], "thread counts are whole numbers"),
        (["--prepare-only"], "needs --work FOLDER"),
        (["--precision", "fp8"], "--precision is fp32, int8 or fp32,int8, not 'fp8'"),
        (["--calibrate", "nowhere", "--subjects", "micro"], "--calibrate nowhere is no folder"),
    ],
)
def test_refusals_are_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    import typer

    app = typer.Typer(add_completion=False)
    app.command()(demo.main)
    with pytest.raises(ConfigError, match=said):
        app([*words, "--out", str(tmp_path / "o")], standalone_mode=False)
