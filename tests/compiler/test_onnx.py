"""The ONNX files: equal to PyTorch whatever the routing does, sparse, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx
from onnx.numpy_helper import from_array, to_array

from edgemtl.errors import CompileError
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.onnx import export as onnx_export


def run(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (out,) = onnx_export.OnnxRunner(path)([image])
    return out


@pytest.fixture(scope="module")
def depth(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_export.export_onnx(micro.model.slice("depth"), tmp_path_factory.mktemp("onnx") / "depth.onnx").path


def test_the_file_equals_pytorch(micro: Any, depth: Path) -> None:
    for number, image in micro.inputs.items():
        got, want = run(depth, image)[0], micro.outputs["depth"][number]
        assert got.shape == want.shape
        assert np.abs(got - want).max() / np.abs(want).max() < 2e-6


def test_the_file_is_sparse_and_names_no_machine(depth: Path) -> None:
    """Every expert has its own rows to find; no product over all tokens and experts."""
    model = onnx.load(depth)
    found = [node.op_type for node in model.graph.node]
    assert found.count("NonZero") == found.count("ScatterND") == 6
    assert "Einsum" not in found
    assert str(Path.cwd()).encode() not in depth.read_bytes()
    assert b"site-packages" not in depth.read_bytes()


def adversarial(kind: str) -> MultiTaskViT:
    """A micro model whose gates go to an extreme."""
    torch.manual_seed(1)
    model = MultiTaskViT(preset("micro", paths={"depth": ((0, 2, 3), (1, 3, 5))}, renormalise=kind == "renormalised"))
    with torch.no_grad():
        for block in (1, 3):
            gate = model.backbone.blocks[block].mlp.gate["depth"].w_gate
            norm = model.backbone.blocks[block].norm2
            if kind == "ties":
                gate.copy_(gate[:, :1].expand_as(gate))
            elif kind == "some experts get no token":  # the same two win for every token
                norm.weight.zero_()
                norm.bias.fill_(1.0)
    return model.eval()


@pytest.mark.parametrize("kind", ["ties", "some experts get no token", "renormalised"])
def test_extreme_routing(kind: str, tmp_path: Path) -> None:
    model = adversarial(kind)
    image = np.random.default_rng(0).standard_normal((1, 3, *model.config.image_size), np.float32)
    with torch.inference_mode():
        want, trace = model.trace(torch.from_numpy(image), ["depth"])
    counts = [torch.bincount(routing[0].flatten(), minlength=6) for routing in trace.routings.values()]
    if kind != "renormalised":
        assert all(int((c > 0).sum()) == 2 for c in counts)  # of a path of three
    got = run(onnx_export.export_onnx(model.slice("depth"), tmp_path / "x.onnx").path, image)
    assert np.abs(got - want["depth"].numpy()).max() / float(want["depth"].abs().max()) < 2e-6


def test_a_missing_expert_is_noticed(micro: Any, depth: Path) -> None:
    """Both ways: its computation is gone, or it computes with other weights."""
    piece = micro.model.slice("depth")
    model = onnx.load(depth)
    onnx_export.check(model, piece)
    changed = onnx.load(depth)
    wanted = piece.state_dict()["backbone.blocks.3.mlp.experts.h4toh.weight"][2].numpy()
    (at,) = (i for i, t in enumerate(changed.graph.initializer) if np.array_equal(to_array(t), wanted))
    changed.graph.initializer[at].CopyFrom(from_array(wanted * 2, changed.graph.initializer[at].name))
    with pytest.raises(CompileError, match=r"lacks backbone.blocks.3.mlp.experts.h4toh.weight\[2\]"):
        onnx_export.check(changed, piece)
    (*_, last) = (node for node in model.graph.node if node.op_type == "NonZero")
    model.graph.node.remove(last)
    with pytest.raises(CompileError, match="5 x NonZero instead of 6"):
        onnx_export.check(model, piece)
