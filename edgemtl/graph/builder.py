"""How `network` writes a graph: a call per node, with shapes and weights as the op says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgemtl.errors import CompileError
from edgemtl.graph import ops
from edgemtl.graph.graph import Graph
from edgemtl.graph.node import Node, Shape, Tensor, Weight


class At(NamedTuple):
    """Where a weight tensor is: in the bundle, and under which key in the state; an expert's row in its bank."""

    part: str
    tensor: str
    key: str
    row: int = 0
    bank: int = 0


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if name else key


def _weight(at: At, tensor: Tensor) -> Weight:
    sources = tuple((_dotted(at.key, name), shape) for name, shape in tensor.sources)
    return Weight(at.part, at.tensor, tensor.kind, sources, at.row, at.bank)


class Builder:
    """A graph on its way; a call adds a node and gives its name, or raises CompileError for inputs that do not fit.

    Weights are called as their node, unless `at` says where they are, tensor by tensor.
    """

    def __init__(self, inputs: Mapping[str, Shape], task: str = "") -> None:
        self.inputs, self.task = dict(inputs), task
        self.shapes = dict(inputs)
        self.nodes: list[Node] = []

    def __call__(self, name: str, op: str, *inputs: str, at: Sequence[At] = (), **attributes: Any) -> str:
        shapes, rule = [self.shapes[i] for i in inputs], ops.find(op)
        try:
            shape, tensors = rule.shape(shapes, attributes), rule.tensors(shapes, attributes)
        except ValueError as error:
            raise CompileError(f"{name} ({op}): {error}") from None
        places = at or [self._place(_dotted(name, t.name)) for t in tensors]
        weights = tuple(_weight(a, t) for a, t in zip(places, tensors, strict=True))
        node = Node(name, op, inputs, attributes, weights, shape)
        self.nodes.append(node)
        self.shapes[name] = node.shape
        return name

    def _place(self, name: str) -> At:
        if name.startswith("head."):
            return At(f"task.{self.task}", name, f"heads.{self.task}.{name.removeprefix('head.')}")
        return At("trunk", name, f"backbone.{name}.conv" if name.startswith("stem.") else f"backbone.{name}")

    def graph(self, name: str, *outputs: str) -> Graph:
        return Graph(name, self.inputs, tuple(self.nodes), outputs)
