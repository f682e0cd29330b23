"""A graph checks itself when it is made, brings its nodes in order, and can be changed and read."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from single import node

from edgemtl.errors import CompileError
from edgemtl.graph import Graph, Node, from_state, network, run
from edgemtl.model import preset

UP = node("upsample", (3, 5, 2), name="up", inputs=("x",))
SUM = node("add", (6, 10, 2), (6, 10, 2), name="sum", inputs=("up", "up"))
WIDE = node("concat", (6, 10, 2), (6, 10, 2), name="wide", inputs=("sum", "up"))
INPUTS = {"x": (3, 5, 2)}


def graph(*nodes: Node, outputs: tuple[str, ...] = ("wide",)) -> Graph:
    return Graph("g", INPUTS, nodes, outputs)


def test_nodes_come_in_an_order_that_can_run() -> None:
    assert [n.name for n in graph(WIDE, SUM, UP).nodes] == ["up", "sum", "wide"]
    kept = graph(UP, SUM, WIDE)
    assert kept.nodes == (UP, SUM, WIDE)
    assert kept.users("up") == (SUM, WIDE)
    assert kept.shapes(WIDE) == ((6, 10, 2), (6, 10, 2))
    assert kept["sum"] is kept.nodes[1]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((UP, SUM), "its output wide is no value"),
        ((UP, WIDE), "there is no value sum"),
        ((UP, UP, SUM, WIDE), "more than one value is called up"),
        ((dataclasses.replace(UP, name="x"),), "more than one value is called x"),
        ((UP, SUM, dataclasses.replace(WIDE, shape=(6, 10, 3))), r"wide \(concat\): its shape is \(6, 10, 4\)"),
        ((dataclasses.replace(UP, inputs=("wide",)), SUM, WIDE), "a circle through up, sum, wide"),
        ((UP, SUM, dataclasses.replace(WIDE, op="pool")), "there is no op 'pool'"),
        ((UP, SUM, dataclasses.replace(WIDE, op="linear", inputs=("up",))), "there is no attribute activation"),
        ((UP, SUM, dataclasses.replace(WIDE, op="upsample")), r"wide \(upsample\): it takes a map"),
    ],
)
def test_what_is_wrong_is_said(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        graph(*nodes)


def test_weights_must_be_the_ops() -> None:
    norm = node("layernorm", (3, 5), name="wide", inputs=("x",), eps=1e-6, skip=0)
    with pytest.raises(CompileError, match="its weights are"):
        Graph("g", {"x": (3, 5)}, (dataclasses.replace(norm, weights=()),), ("wide",))


def test_nodes_are_replaced() -> None:
    whole = network(preset("micro"), "depth").whole
    both = ("blocks.0.norm2", "blocks.0.mlp.fc1")
    norm, fc1 = (whole[name] for name in both)
    renamed = dataclasses.replace(norm, name="other")
    changed = whole.replace(both, dataclasses.replace(fc1, inputs=("other",)), renamed)
    names = [n.name for n in changed.nodes]
    assert len(names) == len(whole.nodes)
    assert names.index("other") == [n.name for n in whole.nodes].index("blocks.0.norm2")
    rng = np.random.default_rng(0)
    state = {s: rng.standard_normal((w.bank, *n) if w.bank else n) for w in whole.weights for s, n in w.sources}
    image = {"image": rng.standard_normal((32, 64, 3))}
    want, got = (run(g, image, from_state(state))["head.out"] for g in (whole, changed))
    np.testing.assert_array_equal(got, want)
    with pytest.raises(CompileError, match="there is no value blocks.0.mlp.fc1"):
        whole.replace(both, renamed)
    with pytest.raises(CompileError, match="there is no node nowhere to replace"):
        whole.replace(["nowhere"])


def test_attributes_cannot_be_changed() -> None:
    tiles = node("tiles", (15, 8), grid=(3, 5), tile=2)
    with pytest.raises(TypeError):
        tiles.attributes["tile"] = 4  # type: ignore[index]
    assert tiles == node("tiles", (15, 8), grid=(3, 5), tile=2)
    assert tiles != node("tiles", (15, 8), grid=(5, 3), tile=2)


def test_it_can_be_read() -> None:
    lines = str(network(preset("micro", paths={"depth": ((0, 2), (1, 4))}), "depth").task).splitlines()
    assert lines[0] == "depth:"
    assert lines[1].split() == ["blocks.1.attn.proj", "9x32", "input"]
    assert lines[-1] == "-> head.out"
    gate = next(line for line in lines if line.startswith("blocks.1.gate"))
    assert "route(blocks.1.norm2, held=6, columns=(0,2), top_k=2" in gate
    assert gate.endswith("[task.depth:blocks.1.gate]")


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"input x of graph g is \(3, 5\), not \(3, 5, 2\)"):
        run(graph(UP, SUM, WIDE), {"x": np.zeros((3, 5))}, lambda w: [])
