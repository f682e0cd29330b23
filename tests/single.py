"""Graphs of one node with random weights, for tests of single ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemtl.graph import Graph, Node, Weight, ops, run

Shape = tuple[int, ...]


def node(op: str, *shapes: Shape, name: str = "y", inputs: tuple[str, ...] = (), **attributes: Any) -> Node:
    """A node on inputs x0, x1, … of these shapes."""
    rule = ops.find(op)
    shape = rule.shape(shapes, attributes)
    weights = tuple(
        Weight("trunk", f"w{i}", t.kind, tuple((f"w{i}.{s}", shape) for s, shape in t.sources))
        for i, t in enumerate(rule.tensors(shapes, attributes))
    )
    inputs = inputs or tuple(f"x{i}" for i in range(len(shapes)))
    return Node(name, op, inputs, attributes, weights, shape)


class Single:
    """One node, its inputs and weights."""

    def __init__(self, op: str, *shapes: Shape, values: tuple[Any, ...] = (), **attributes: Any) -> None:
        rng = np.random.default_rng(7)
        self.node = node(op, *shapes, **attributes)
        self.graph = Graph("one", {f"x{i}": s for i, s in enumerate(shapes)}, (self.node,), ("y",))
        self.inputs = values or tuple(rng.standard_normal(s) for s in shapes)
        self.weights = {w.ref: [rng.standard_normal(s) for _, s in w.sources] for w in self.node.weights}

    def run(self) -> Any:
        inputs = {f"x{i}": v for i, v in enumerate(self.inputs)}
        if any(isinstance(v, tuple) for v in self.inputs):  # a routing is no array
            return ops.find(self.node.op).run(self.node, self.inputs, list(self.weights.values()), lambda *_: None)
        return run(self.graph, inputs, lambda w: self.weights[w.ref])["y"]

    @property
    def macs(self) -> int:
        return self.graph.macs(self.node)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All weights' arrays in order."""
        return [a for w in self.weights.values() for a in w]
