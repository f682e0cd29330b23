"""Programs compiled from graphs equal the graphs' reference: random small models, and each op in odd forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from configurations import configs, model
from hypothesis import HealthCheck, given, settings
from single import Single

from edgemtl.bundle.layout import Entry, pack_state
from edgemtl.config import ModelConfig
from edgemtl.graph import Graph, from_state, network, run
from edgemtl_compiler.cpu import program, targets

CPU = targets.resolve("cpu")
Arrays = dict[str, np.ndarray[Any, Any]]


def compiled(graph: Graph, inputs: list[Any], packed: Arrays, folder: Path) -> list[np.ndarray[Any, Any]]:
    """The outputs of the graph as a program, of `inputs` as the program takes them."""
    types = {ref: str(array.dtype) for ref, array in packed.items()}
    built = program.build(graph, CPU, folder / "x.so", types)
    assert set(built.function.params) == {w.ref for w in graph.weights}
    assert tuple(i.shape for i in inputs) == built.function.inputs
    arrays = [*inputs, *(packed[ref] for ref in built.function.params)]
    outs = program.load_function(built.path)([np.ascontiguousarray(a) for a in arrays])
    assert tuple(o.shape for o in outs) == built.function.outputs
    return outs


def close(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], tolerance: float = 1e-5) -> None:
    assert got.shape == want.shape
    assert float(np.abs(got - want).max()) <= tolerance * max(float(np.abs(want).max()), 1e-3)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs())
def test_random_models(tmp_path: Path, config: ModelConfig) -> None:
    """Many have shapes that no kernel covers."""
    state = {k: v.numpy().astype(np.float32) for k, v in model(config).state_dict().items()}
    parts = network(config, "normals")
    packed = {f"{p}:{t}": a for p, held in pack_state(config, state).items() for t, a in held.items()}
    image = np.random.default_rng(0).standard_normal((*config.image_size, 3)).astype(np.float32)
    values = from_state(state)
    want = run(parts.prefix, {"image": image}, values)
    shared = compiled(parts.prefix, [image.transpose(2, 0, 1)[None]], packed, tmp_path)
    for name, got in zip(parts.prefix.outputs, shared, strict=True):
        close(got[0], want[name])
    (end,) = run(parts.task, {n: got[0] for n, got in zip(parts.prefix.outputs, shared, strict=True)}, values).values()
    (got,) = compiled(parts.task, shared, packed, tmp_path)
    close(got[0].transpose(1, 2, 0), end)


CONVOLUTION = {
    **{"outputs": 8, "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))},
    **{"groups": 1, "activation": "none", "bias": True},
}
RESIDUAL = {
    **{"middle": 12, "outputs": 6, "kernel": (5, 5), "stride": (2, 2), "padding": ((1, 2), (2, 2))},
    **{"expand": True, "shortcut": False},
}
ODD = {
    "wide kernel": ("convolution", ((6, 9, 16),), {"kernel": (5, 3), "padding": ((2, 2), (1, 1))}),
    "strided": ("convolution", ((7, 9, 3),), {"stride": (2, 3), "padding": ((0, 1), (1, 0)), "activation": "relu6"}),
    "groups": ("convolution", ((5, 6, 8),), {"groups": 4, "outputs": 20, "activation": "gelu"}),
    "depthwise": ("convolution", ((5, 6, 20),), {"groups": 20, "outputs": 20, "activation": "relu"}),
    "no bias": ("convolution", ((5, 6, 4),), {"bias": False}),
    "relu of few": ("convolution", ((5, 6, 4),), {"activation": "relu"}),
    "relu and sum": ("convolution", ((5, 6, 16), (5, 6, 8)), {"activation": "relu"}),
    "1x1 and sum": ("convolution", ((5, 6, 9), (5, 6, 8)), {"kernel": (1, 1), "padding": ((0, 0), (0, 0))}),
    "1x1 strided": ("convolution", ((5, 6, 9),), {"kernel": (1, 1), "padding": ((0, 0), (0, 0)), "stride": (2, 2)}),
    "expanded": ("inverted_residual", ((6, 8, 5),), {}),
    "shortcut": (
        "inverted_residual",
        ((5, 6, 12),),
        {"expand": False, "shortcut": True, "outputs": 12, "stride": (1, 1), "padding": ((2, 2), (2, 2))},
    ),
    "step of few": ("separable_step", ((5, 6, 10),), {"kernel": (3, 3)}),
    "wide step": ("separable_step", ((5, 6, 16),), {"kernel": (5, 3)}),
    "step on a map": ("separable_step", ((1, 7, 32),), {"kernel": (3, 3)}),
    "upsample": ("upsample", ((3, 5, 7),), {}),
    "concat": ("concat", ((3, 5, 7), (3, 5, 2)), {}),
    "relu layer": ("linear", ((5, 7), (5, 9)), {"outputs": 9, "activation": "relu"}),
    "small heads": ("attention", ((9, 36),), {"heads": 3}),
    "norm of few": ("layernorm", ((9, 20),), {"eps": 1e-5, "skip": 2}),
    "positions": ("positions", ((6, 10),), {}),
    "rays": ("rays", (), {"rows": 3, "columns": 5, "fov": 70.0}),
    "tiles": ("tiles", ((6, 20),), {"grid": (2, 3), "tile": 2}),
}
USUAL = {"convolution": CONVOLUTION, "inverted_residual": RESIDUAL}


HALVES = ("strided", "1x1 and sum", "1x1 strided", "shortcut", "step of few", "relu layer")


@pytest.mark.parametrize(("name", "half"), [*((name, False) for name in ODD), *((name, True) for name in HALVES)])
def test_ops_in_odd_forms(tmp_path: Path, name: str, half: bool) -> None:
    """As the body of a prefix, whose values are in the graph's order. half: with what a bundle stores in float16."""
    op, shapes, changes = ODD[name]
    one = Single(op, *shapes, **{**USUAL.get(op, {}), **changes})
    graph = Graph("prefix", one.graph.inputs, one.graph.nodes, one.graph.outputs)
    packed = {}
    for weight in graph.weights:
        entry, values = Entry(**vars(weight)), [v.astype(np.float32) for v in one.weights[weight.ref]]
        narrow = half and entry.compact
        packed[weight.ref] = entry.pack_half(values, "float16") if narrow else entry.pack(values)
        one.weights[weight.ref] = entry.unpack(packed[weight.ref])
    assert half <= any(str(array.dtype) == "float16" for array in packed.values())
    inputs = [v.astype(np.float32) for v in one.inputs]
    (want,) = run(graph, {f"x{i}": v for i, v in enumerate(inputs)}, lambda w: one.weights[w.ref]).values()
    (got,) = compiled(graph, [v[None] for v in inputs], packed, tmp_path)
    close(got[0], want)
