"""The ONNX files: equal to the graph whatever it holds and however the tokens are routed, sparse, and complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from configurations import configs
from hypothesis import given, settings
from hypothesis import strategies as st
from single import Single

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
from onnx.numpy_helper import from_array, to_array

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import Graph, from_state, network, ops, run
from edgemtl.graph.run import Values
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.onnx import export as onnx_export
from edgemtl_compiler.onnx import ops as emitters


def exported(model: MultiTaskViT, task: str, path: Path, **options: Any) -> Path:
    return onnx_export.export(*graph(model, task), path, **options).path


def graph(model: MultiTaskViT, task: str) -> tuple[Graph, Values]:
    state = {key: value.numpy() for key, value in model.state_dict().items()}
    return network(model.config, task).whole, from_state(state)


def result(path: Path, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (out,) = onnx_export.OnnxRunner(path)([image])
    return out


def near(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> bool:
    assert got.shape == want.shape
    return float(np.abs(got - want).max()) <= 2e-6 * float(np.abs(want).max())


@pytest.fixture(scope="module")
def depth(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(micro.model, "depth", tmp_path_factory.mktemp("onnx") / "depth.onnx")


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_the_file_equals_pytorch(micro: Any, opset: int, tmp_path: Path) -> None:
    path = exported(micro.model, "depth", tmp_path / "x.onnx", opset=opset)
    assert [one.version for one in onnx.load(path).opset_import] == [opset]
    assert all(near(result(path, image)[0], micro.outputs["depth"][n]) for n, image in micro.inputs.items())


@settings(max_examples=12, deadline=None)
@given(config=configs(), task=st.sampled_from(["depth", "normals"]), opset=st.sampled_from([18, 20, 23]))
def test_a_file_of_any_network_equals_the_graph(
    config: ModelConfig, task: str, opset: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    model = MultiTaskViT(config).eval()
    whole, values = graph(model, task)
    image = np.random.default_rng(1).standard_normal((*config.image_size, 3), np.float32)
    (want,) = run(whole, {"image": image}, values).values()
    path = onnx_export.export(whole, values, tmp_path_factory.mktemp("any") / "x.onnx", opset=opset).path
    got = result(path, image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": (5, 3), "padding": ((2, 3), (0, 2)), "stride": (1, 3)},
        {"kernel": (2, 3), "groups": 3, "outputs": 9, "activation": "relu6"},
        {"kernel": (3, 3), "padding": ((0, 1), (0, 1)), "stride": (2, 2), "activation": "gelu", "bias": False},
    ],
)
def test_a_convolution_of_any_kind(changes: dict[str, Any], tmp_path: Path) -> None:
    usual = {"outputs": 4, "kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}
    one = Single("convolution", (7, 9, 6), **{**usual, "activation": "none", "bias": True, **changes})
    x = one.inputs[0].astype(np.float32)
    values = {ref: [a.astype(np.float32) for a in arrays] for ref, arrays in one.weights.items()}
    built = onnx_export.export(one.graph, lambda w: values[w.ref], tmp_path / "x.onnx")
    assert built.function.inputs == ((1, 6, 7, 9),)
    got = result(built.path, x.transpose(2, 0, 1)[None])
    np.testing.assert_allclose(got[0].transpose(1, 2, 0), one.run(), rtol=1e-4, atol=1e-5)


def test_every_op_has_a_file_and_another_one_is_refused() -> None:
    assert all(callable(emitters.find(name)) for name in ops.names())
    with pytest.raises(CompileError, match="target onnx cannot say the op 'wavelet': there is no compiler/"):
        emitters.find("wavelet")


def test_the_file_is_sparse_and_names_no_machine(depth: Path) -> None:
    """Every expert has its own rows to find; no product over all tokens and experts."""
    found = [node.op_type for node in onnx.load(depth).graph.node]
    assert found.count("NonZero") == found.count("ScatterND") == 6
    assert found.count("Transpose") < 80
    assert "Einsum" not in found
    assert str(Path.cwd()).encode() not in depth.read_bytes()
    assert b"site-packages" not in depth.read_bytes()


def test_maps_stay_as_convolutions_want_them(tmp_path: Path) -> None:
    """A turn of a map for nothing would cost a peer time; tokens alone need them, once each way."""
    torch.manual_seed(0)
    changes = {"image_size": (32, 32), "head_norm": False}
    counts = []
    for number in (0, 1):
        model = MultiTaskViT(preset("hybrid", depth=number, moe=(), **changes)).eval()
        path = exported(model, "depth", tmp_path / "x.onnx", opset=23)
        counts.append([node.op_type for node in onnx.load(path).graph.node].count("Transpose"))
    assert counts == [0, 2]  # to tokens and back


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
    assert near(result(exported(model, "depth", tmp_path / "x.onnx"), image), want["depth"].numpy())


def test_a_missing_expert_is_noticed(micro: Any, depth: Path) -> None:
    """Both ways: its computation is gone, or it computes with other weights."""
    given = graph(micro.model, "depth")
    model = onnx.load(depth)
    onnx_export.check(model, *given)
    changed = onnx.load(depth)
    names = [tensor.name for tensor in changed.graph.initializer]
    at, name = max((i, name) for i, name in enumerate(names) if "blocks.3.mlp.experts.h4toh.weight" in name)
    changed.graph.initializer[at].CopyFrom(from_array(2 * to_array(changed.graph.initializer[at]), name))
    with pytest.raises(CompileError, match=re.escape(f"lacks {name}")):
        onnx_export.check(changed, *given)
    (*_, last) = (node for node in model.graph.node if node.op_type == "NonZero")
    model.graph.node.remove(last)
    with pytest.raises(CompileError, match="has 5 x NonZero, one for each of 6 experts"):
        onnx_export.check(model, *given)
