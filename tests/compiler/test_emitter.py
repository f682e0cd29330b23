"""Which kernels a graph becomes on a CPU, what is fused, and what is left to TVM; nothing is compiled here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from single import node

from edgemtl.bundle.layout import entries
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import Graph, Node, network
from edgemtl.graph import ops as graph_ops
from edgemtl.graph.builder import Builder as GraphBuilder
from edgemtl.model import preset
from edgemtl_compiler.cpu import ops
from edgemtl_compiler.cpu.emitter import Emitter
from edgemtl_compiler.cpu.tvm_adapter import Builder

Emit = Callable[..., tuple[list[str], Emitter]]


@pytest.fixture
def emit(monkeypatch: pytest.MonkeyPatch) -> Emit:
    """The kernels that a graph calls, in order."""
    called: list[str] = []
    right = Builder.call

    def call(self: Builder, kernel: str, args: Any, outs: Any) -> Any:
        called.append(kernel)
        return right(self, kernel, args, outs)

    monkeypatch.setattr(Builder, "call", call)

    def run(graph: Graph, types: Mapping[str, str] | None = None) -> tuple[list[str], Emitter]:
        called.clear()
        emitter = Emitter(graph, types or {})
        assert set(emitter.finish()) == {w.ref for w in graph.weights}
        return list(called), emitter

    return run


def int8(config: ModelConfig, *without: str) -> dict[str, str]:
    """Linear layers and experts in INT8, but for those whose name ends with one of `without`, and the head."""
    kept = ("head", *without)
    small = [e.ref for e in entries(config) if e.kind in ("linear", "expert")]
    return {ref: "uint8" for ref in small if ":head" not in ref and not ref.endswith(kept)}


ATTENTION = ["layernorm", "linear", "attention", "linear_residual"]
DENSE, SPARSE = ["layernorm", "linear_gelu", "linear_residual"], ["layernorm", "route", "experts"]
HEAD = ["layernorm", "linear_gelu", "separable_step", "separable_step", "to_map"]


def test_a_layer_is_a_kernel(emit: Emit) -> None:
    parts = network(preset("micro"), "depth")
    assert emit(parts.prefix)[0] == ["patch_embed", *ATTENTION, *DENSE, *ATTENTION]
    called, emitter = emit(parts.task)
    assert called == [*SPARSE, *ATTENTION, *DENSE, *ATTENTION, *SPARSE, *HEAD]
    assert not emitter.by_tvm


def test_int8_kernels_take_what_lies_between(emit: Emit) -> None:
    config = preset("micro")
    parts, types = network(config, "depth"), int8(config)
    block = ["norm_linear_i8", "attention_linear_i8"]
    assert emit(parts.prefix, types)[0] == ["patch_embed_i8", *block, "layernorm", "mlp_i8", *block]
    sparse = ["layernorm", "route", "experts_i8"]
    assert emit(parts.task, types)[0] == [*sparse, *block, "layernorm", "mlp_i8", *block, *sparse, *HEAD]


@pytest.mark.parametrize(
    ("without", "attention", "dense"),
    [
        ("attn.qkv", ["layernorm", "linear", "attention", "linear_residual_i8"], ["layernorm", "mlp_i8"]),
        ("attn.proj", ["norm_linear_i8", "attention_i8", "linear_residual"], ["layernorm", "mlp_i8"]),
        (
            "mlp.fc1",
            ["norm_linear_i8", "attention_linear_i8"],
            ["layernorm", "linear_gelu", "linear_residual_i8"],
        ),
        (
            "mlp.fc2",
            ["norm_linear_i8", "attention_linear_i8"],
            ["layernorm", "linear_gelu_i8", "linear_residual"],
        ),
    ],
)
def test_a_float_layer_breaks_a_fusion(emit: Emit, without: str, attention: list[str], dense: list[str]) -> None:
    config = preset("micro")
    called, _ = emit(network(config, "depth").prefix, int8(config, without))
    assert called == ["patch_embed_i8", *attention, *dense, *attention]


def test_a_value_that_others_read_is_not_taken(emit: Emit) -> None:
    """The norm before an INT8 layer is, unless its value is the graph's as well."""
    norm = node("layernorm", (8, 32), name="norm", eps=1e-6, skip=0)
    layer = node("linear", (8, 32), name="wide", inputs=("norm",), outputs=96, activation="none")
    layer = Node(layer.name, layer.op, layer.inputs, layer.attributes, _renamed(layer, "wide"), layer.shape)
    types = {"trunk:wide": "uint8"}
    for outputs, want in (("wide",), ["norm_linear_i8"]), (("wide", "norm"), ["layernorm", "linear_i8"]):
        graph = Graph("prefix", {"x0": (8, 32)}, (norm, layer), outputs)
        assert emit(graph, types)[0] == want


def _renamed(one: Node, tensor: str) -> tuple[Any, ...]:
    return tuple(type(w)(w.part, tensor, w.kind, w.sources) for w in one.weights)


def test_the_conv_head_doubles_within_its_convolutions(emit: Emit) -> None:
    config = preset("micro", head="conv", patch=8, head_stride=1, head_norm=False)
    called, emitter = emit(network(config, "depth").task)
    assert called[-6:] == ["layernorm", *["conv_relu"] * 4, "to_map"]
    assert not emitter.by_tvm


def test_the_hybrid_has_kernels(emit: Emit) -> None:
    parts = network(preset("hybrid", head_norm=False, rays=True), "normals")
    called, emitter = emit(parts.prefix)
    assert called[:3] == ["convolution", "separable_block", "inverted_residual"]  # the first block has no expansion
    assert called.count("inverted_residual") == 10
    assert called[-4:] == ["layernorm", "linear", "attention", "linear_residual"]
    assert set(emitter.by_tvm) == {"pos_embed"}
    called, emitter = emit(parts.task)
    assert "experts" in called
    assert called[-6:] == ["doubled_sum", "separable_step"] * 2 + ["separable_step", "to_map"]
    assert set(emitter.by_tvm) == {"head.wide", "head.rays"}


def test_an_inverted_residual_in_int8(emit: Emit) -> None:
    """Both 1x1 steps or none: of one alone there is no kernel, and TVM's depthwise step stands between them."""
    prefix = network(preset("hybrid", head_norm=False), "depth").prefix
    block = prefix["stem.blocks.1"]
    expand, _, project = (w.ref for w in block.weights)
    called, emitter = emit(prefix, {expand: "uint8", project: "uint8"})
    assert called[:3] == ["convolution", "separable_block", "inverted_residual_i8"]
    assert "stem.blocks.1" not in emitter.by_tvm
    called, emitter = emit(prefix, {project: "uint8"})
    assert called[2:4] == ["linear", "linear_i8"]
    assert "stem.blocks.1" in emitter.by_tvm


def test_what_tvm_computes_is_counted(emit: Emit) -> None:
    """Channels that no kernel takes, a map that somebody else reads as well, and groups."""
    b = GraphBuilder({"image": (8, 12, 3)})
    usual = {"kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
    x = b("wide", "convolution", "image", **usual, outputs=20, groups=1, activation="relu6", bias=True)
    x = b("block", "inverted_residual", x, **usual, middle=20, outputs=20, expand=True, shortcut=True)
    x = b("mixed", "convolution", x, **usual, outputs=20, groups=5, activation="gelu", bias=True)
    x = b("double", "upsample", x)
    b("sum", "add", x, x)
    graph = b.graph("prefix", "sum")
    called, emitter = emit(graph)
    assert called == ["convolution", "linear", "linear_residual"]
    mixed = graph.macs(graph["mixed"])
    assert emitter.by_tvm == {"block": 8 * 12 * 20 * 9, "mixed": mixed, "double": 0, "sum": 0}


def test_there_is_code_for_every_op() -> None:
    for name in graph_ops.names():
        ops.find(name)
    with pytest.raises(CompileError, match="op 'deconvolution' has no code for CPUs"):
        ops.find("deconvolution")


def test_experts_are_kernels_or_an_error(emit: Emit) -> None:
    config = preset("micro")
    types = {e.ref: "uint8" for e in entries(config) if e.ref == "experts.1:0"}
    with pytest.raises(CompileError, match=r"blocks.1.experts \(experts\) has no kernel for a CPU in this form"):
        emit(network(config, "depth").task, types)


def test_int8_needs_a_kernel(emit: Emit) -> None:
    graph = Graph("depth", {"x0": (8, 8, 16)}, (node("convolution", (8, 8, 16), **STRIDED),), ("y",))
    with pytest.raises(CompileError, match="trunk:w0 is INT8, for which this op has no kernel"):
        emit(graph, {"trunk:w0": "uint8"})


STRIDED = {
    **{"outputs": 8, "kernel": (3, 3), "stride": (2, 2), "padding": ((0, 1), (0, 1))},
    **{"groups": 1, "activation": "relu6", "bias": True},
}
