"""M3ViT's own forms beyond training: an ONNX bundle on two backends, and what refuses them, in one sentence each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgemtl
from edgemtl.errors import CompileError
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
        (CONV, "has the light head alone, and this model's is conv: .* --host-heads"),
        ({"gate": "conditioned"}, "adds no bias, which a task-conditioned gate needs: use --target onnx"),
        ({"router": "dselect_k", "experts": 8}, "has no gate of router dselect_k"),
    ],
)
def test_the_accelerator_refuses(changes: dict[str, Any], message: str) -> None:
    pytest.importorskip("edgemtl_compiler")
    from edgemtl_compiler.quantise.fpga import quantise

    with pytest.raises(CompileError, match=message):
        quantise(made(**changes).config, {}, {})


def test_the_accelerator_runs_the_backbone_of_a_model_with_a_conv_head(cli: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("edgemtl_compiler")
    from edgemtl_compiler.fpga.network import graph_of

    assert graph_of(made(**CONV).config, "depth", host_heads=True).outputs == ("blocks.3.experts",)
    save_checkpoint(tmp_path / "m.safetensors", made(**CONV), dtype="float32")
    said = cli("estimate", tmp_path / "m.safetensors", "--scope", "backbone", "--json")
    assert said.code == 0, said.err
    assert "milliseconds" in said.out
    said = cli("estimate", tmp_path / "m.safetensors")
    assert said.code == 2
    assert "--scope backbone" in said.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": "conditioned"}, "convert it with to_multi_gate"),
        ({"router": "dselect_k", "experts": 8}, "can be trained and evaluated but not compiled"),
    ],
)
def test_the_compiler_refuses(changes: dict[str, Any], message: str) -> None:
    pytest.importorskip("edgemtl_compiler")
    from edgemtl_compiler.export import check_config

    with pytest.raises(CompileError, match=message):
        check_config(preset("micro", **changes))
