"""Comparators: shapes and work are right, and latency is joined with accuracy only where a study has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.bench import alternatives, prepare
from edgemtl.bench.artifacts import Artifacts
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import child
from edgemtl.bench.samples import Settings
from edgemtl.bench.subjects import parse
from edgemtl.errors import ConfigError, DataError


def row(subject: str, engine: str, p50: float | None, precision: str = "fp32") -> dict[str, Any]:
    return {"subject": subject, "engine": engine, "p50": p50, "gmac": 1.0, "threads": 2, "precision": precision}


def study(**changes: Any) -> dict[str, Any]:
    def member(name: str, value: float, seed: int = 0) -> dict[str, Any]:
        metrics = {"depth": {"metric": "rmse", "value": value, "trivial": 1.0}}
        return {"name": name, "seed": seed, "images_seen": 3840, "parameters": 10, "metrics": metrics}

    models = [member("paths", 0.6), member("single-depth", 0.7, 1), member("single-depth", 0.65), member("dense", 0.5)]
    return {
        "format": "edgemtl-study",
        "version": 1,
        "origin": "measured",
        "test_images": 640,
        "models": models,
        **changes,
    }


ROWS = [
    row("rooms:depth", "edgemtl", 9.0),
    row("rooms:depth", "openvino", 8.0),
    row("single:depth", "edgemtl", 7.0),
    row("bisenet:depth", "edgemtl", None),
    row("bisenet:depth", "openvino", 4.0),
    row("bisenet:depth", "openvino-nncf", 2.0, "int8"),
    row("rooms:edge", "edgemtl", 9.0),
    row("vit-tiny:197", "openvino", 1.0),
]


def test_each_kind_by_its_fastest_engine_with_the_accuracy_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(study()))
    found = alternatives.join(ROWS, alternatives.read(tmp_path / "study.json"))
    assert [(a.kind, a.engine, a.p50, a.value) for a in found] == [
        ("rooms", "openvino", 8.0, 0.6),
        ("single", "edgemtl", 7.0, pytest.approx(0.675)),  # the mean of two seeds
        ("bisenet", "openvino", 4.0, None),
    ]  # what only one kind did, has nothing to be compared with
    assert {a.images_seen for a in found} == {3840, None}


def test_without_a_study_or_an_alternative(tmp_path: Path) -> None:
    assert alternatives.read(tmp_path / "none.json") is None
    assert {a.value for a in alternatives.join(ROWS, None)} == {None}
    assert alternatives.join(ROWS[:2], None) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "the file"),
        (json.dumps(study(version=2)), "version"),
        (json.dumps(study(models=[{}])), "models.0.name"),
        (json.dumps({"format": "other"}), "format"),
    ],
)
def test_a_file_that_is_no_study(text: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=rf"no study of version 1 \({where}: "):
        alternatives.read(tmp_path / "s.json")


def test_the_alternatives_have_the_size_of_the_bundles_model(bundle: Path) -> None:
    (sparse,), (single,), (light,) = (parse(f"{kind}:depth", bundle) for kind in ("rooms", "single", "bisenet"))
    assert single.dense
    assert single.vit
    assert (single.config.dim, single.config.depth) == (sparse.config.dim, sparse.config.depth)
    assert single.config.task_names == ("depth",)
    assert light.config.task_names == sparse.config.task_names
    assert not light.vit
    assert len({s.shape for s in (sparse, single, light)}) == 3
    with pytest.raises(ConfigError, match="single is for one of the tasks semseg, depth, normals, edge, not 'speed'"):
        parse("single:speed", bundle)


def test_work_of_a_convolution_network_by_hand() -> None:
    """The stem's first layer, the two pools and one head of the untrained network, against their formulas."""
    import torch

    from edgemtl.train.comparators import BiSeNet

    (light,) = parse("bisenet:depth")
    network = BiSeNet(light.config).eval()
    shapes: dict[Any, int] = {}
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda at, _, out: shapes.__setitem__(at, out.shape[-1] * out.shape[-2]))
    with torch.inference_mode():
        network(torch.zeros(1, 3, *light.config.image_size), ["depth"])
    by_hand = sum(
        pixels * at.in_channels * at.out_channels * at.kernel_size[0] * at.kernel_size[1]
        for at, pixels in shapes.items()
    )
    assert light.work == by_hand
    assert len(shapes) == sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) - 2 * 3  # three heads rest


@pytest.mark.slow
def test_a_convolution_network_runs_on_the_peers(tmp_path: Path) -> None:
    """Exported, its map is torch's; edgemtl says that it compiles no such network."""
    pytest.importorskip("onnxscript")
    (subject,) = parse("bisenet:depth")
    artifacts = Artifacts(tmp_path, Settings(threads=(1,)))
    assert artifacts.candidates(subject, ENGINES["edgemtl"]) == []
    assert "this network is none" in artifacts.reason(subject, ENGINES["edgemtl"])
    place = artifacts.place(subject)
    place.mkdir()
    (line,) = child("edgemtl.bench.prepare", prepare.request(subject, place, ["onnx-plain-18"]), 600)
    artifacts._paths |= {(subject.name, "onnx-plain-18"): json.loads(line)["path"], (subject.name, "torch-plain"): ""}
    image, expected = np.load(place / prepare.INPUT), np.load(place / prepare.EXPECTED)
    for name, artifact in (
        ("onnxruntime-18", "onnx-plain-18"),
        ("openvino", "onnx-plain-18"),
        ("torch", "torch-plain"),
    ):
        if ENGINES[name].missing():
            continue
        assert artifact in artifacts.candidates(subject, ENGINES[name])
        got = ENGINES[name].prepare(artifacts.request(subject, name, artifact, 1, 0), image)()()
        np.testing.assert_allclose(got, expected, atol=1e-4 * float(np.abs(expected).max()))
