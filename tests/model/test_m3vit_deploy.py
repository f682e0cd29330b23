"""M3ViT's own forms beyond training: an ONNX bundle on two backends, and what refuses them, in one sentence each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import edgemtl
from edgemtl.errors import EdgeMTLError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint

CONV = {"head": "conv", "head_dim": 16, "head_stride": 2}
PATHS = {"depth": ((0, 2, 3), (1, 4, 5))}


def made(**changes: Any) -> MultiTaskViT:
    """Weights larger than at first, so that routing varies, and batch norms that have seen something."""
    torch.manual_seed(3)
    model = MultiTaskViT(preset("micro", **changes))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "norm" not in name:
                p.mul_(4)
        model.train()(torch.randn(8, 3, 32, 64))
    return model.eval()


@pytest.mark.parametrize(
    ("changes", "targets"),
    [
        ({**CONV, "gate": "conditioned", "paths": PATHS}, {"onnx": "onnxruntime", "cpu": "tvm-cpu"}),
        pytest.param({**CONV, "router": "noisy", "renormalise": True}, {"cpu": "tvm-cpu"}, marks=pytest.mark.slow),
        ({"gate": "single", "dim": 24, "heads": 2}, {"onnx": "onnxruntime"}),
    ],
)
def test_a_bundle_computes_what_the_model_computes(
    tmp_path: Path, changes: dict[str, Any], targets: dict[str, str]
) -> None:
    for package in ("tvm", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    from edgemtl_compiler import compile_bundle

    model, path = made(**changes), tmp_path / "m.edgemtl"
    built = compile_bundle(model, path, targets=list(targets), tasks=["semseg", "depth"])
    assert all(set(errors) == {"semseg", "depth"} for errors in built.errors.values())
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 64), np.float32)
    with torch.no_grad():
        want = model(torch.from_numpy(image))
    for backend in (*targets.values(), "torch"):
        with edgemtl.load(str(path), backend) as engine:
            engine.activate("depth", "semseg")
            for task, raw in engine.raw(image).items():
                assert np.abs(raw - want[task][0].numpy()).max() < 1e-5 * want[task].abs().max()
            frame = np.zeros((40, 50, 3), np.uint8)
            assert engine(frame)["depth"].map.shape == (40, 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (CONV, "no reshape for head.map: it has the light head alone; .* --host-heads"),
        ({"gate_bias": True}, "no route for blocks.1.gate, which adds a bias, .* --target cpu, onnx or torch"),
        ({"gate": "conditioned"}, "convert the model with to_multi_gate"),
        ({"router": "dselect_k", "experts": 8}, "router dselect_k is for training alone"),
    ],
)
def test_the_accelerator_refuses(changes: dict[str, Any], message: str) -> None:
    pytest.importorskip("edgemtl_compiler")
    from edgemtl_compiler.fpga.network import graph_of

    with pytest.raises(EdgeMTLError, match=message):
        graph_of(made(**changes).config, "depth")


def test_the_accelerator_runs_the_backbone_of_a_model_with_a_conv_head(cli: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("edgemtl_compiler")
    save_checkpoint(tmp_path / "m.safetensors", made(**CONV), dtype="float32")
    said = cli("estimate", tmp_path / "m.safetensors", "--scope", "backbone", "--json")
    assert said.code == 0, said.err
    assert "milliseconds" in said.out
    said = cli("estimate", tmp_path / "m.safetensors")
    assert said.code == 2
    assert "--scope backbone" in said.err
    (tmp_path / "photos").mkdir()
    for i in range(32):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), pixels)
    said = cli("quantise", tmp_path / "m.safetensors", "--calibrate", tmp_path / "photos", "--host-heads", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)["tasks"]["depth"]
    assert list(found["layers"])[-1] == "blocks.3.experts"
    assert 0 < found["raw_map_error"] < 0.1
