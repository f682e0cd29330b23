"""A graph on its way to a program: the value of every node, packed weights as parameters, and who computes what.

Nodes are taken in order. A kernel that computes several at once takes those before it (`Op.takes`), and only those
that nothing else reads. What TVM compiles itself is kept by node, with its multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from edgemtl.bundle.layout import Entry
from edgemtl.errors import CompileError
from edgemtl.graph import Graph, Node, Weight
from edgemtl.graph.network import IMAGE, PREFIX
from edgemtl.graph.node import Shape
from edgemtl_compiler.cpu import ops
from edgemtl_compiler.cpu.tvm_adapter import Builder

Expr = Any  # of TVM
Grid = tuple[int, int, int]  # tiles down, across, and pixels along a tile's side


class Value(NamedTuple):
    """A node's value: in the graph's order, or a map whose pixels lie as `tiles`, or as `planes`, [1, C, H, W]."""

    expr: Expr
    tiles: Grid | None = None
    planes: bool = False


class Emitter:
    """One function. Images and raw maps are planes [1, C, H, W]; between functions values are [1, …] as in the graph.

    `types`: NumPy type of weights, by reference, where it is not float32. `by_tvm`: multiply-accumulates that TVM's own
    code does, by node; some nodes have none.
    """

    def __init__(self, graph: Graph, types: Mapping[str, str]) -> None:
        self.graph, self.types = graph, types
        self.by_tvm: dict[str, int] = {}
        self._weights: dict[str, Expr] = {}
        self.inputs = [_outside(s, planes=name == IMAGE) for name, s in graph.inputs.items()]
        self.outputs = [_outside(graph.shape(name), planes=graph.name != PREFIX) for name in graph.outputs]
        self.builder = Builder(self.inputs)
        self._values: dict[str, Value] = {}
        for (name, shape), expr in zip(graph.inputs.items(), self.builder.inputs, strict=True):
            planes = name == IMAGE
            self._values[name] = Value(expr if planes else self.builder.reshape(expr, shape), planes=planes)

    def finish(self) -> tuple[str, ...]:
        """Emit every node; returns the references of the weights, in the order of the parameters."""
        taken: set[str] = set()
        for node in reversed(self.graph.nodes):
            if node.name not in taken:
                taken.update(n.name for n in ops.find(node.op).takes(self, node))
        for node in self.graph.nodes:
            if node.name not in taken:
                self._values[node.name] = self._emit(node)
        if left := {w.ref for w in self.graph.weights} - self._weights.keys():
            raise CompileError(f"the program of {self.graph.name} leaves out {', '.join(sorted(left))}")
        ends = self.planes if self.graph.name != PREFIX else self.value
        exprs = [self.builder.reshape(ends(n), s) for n, s in zip(self.graph.outputs, self.outputs, strict=True)]
        self.builder.finish(exprs, list(self._weights.values()))
        return tuple(self._weights)

    def _emit(self, node: Node) -> Value:
        op = ops.find(node.op)
        value = op.kernel(self, node)
        if value is None:
            self.plain(node)
            value = op.plain(self, node)
        return value

    def plain(self, node: Node, macs: int | None = None) -> None:
        """TVM's own code computes the node, or as much of it as `macs` says."""
        self.by_tvm[node.name] = self.graph.macs(node) if macs is None else macs

    def before(self, node: Node, *wanted: str) -> Node | None:
        """The node behind the first input, if it is of one of the ops `wanted` and nothing else reads its value."""
        name = node.inputs[0]
        if name in self.graph.inputs or name in self.graph.outputs or self.graph.users(name) != (node,):
            return None
        return found if (found := self.graph[name]).op in wanted else None

    def value(self, name: str) -> Expr:
        """A value in the graph's order and shape."""
        held, shape = self._values[name], self.graph.shape(name)
        if held.tiles is not None:
            down, across, side = held.tiles
            split = (down, across, side, side, shape[2])
            return self.builder.reorder(held.expr, split, (0, 2, 1, 3, 4), shape)
        if held.planes:
            return self.builder.reorder(held.expr, (shape[2], *shape[:2]), (1, 2, 0), shape)
        return held.expr

    def planes(self, name: str) -> Expr:
        """A map as planes [1, C, H, W]."""
        held, shape = self._values[name], self.graph.shape(name)
        if held.planes:
            return held.expr
        return self.builder.reorder(self.value(name), shape, (2, 0, 1), (1, shape[2], *shape[:2]))

    def pixels(self, name: str) -> tuple[Expr, bool]:
        """A map as it lies: in the graph's order, or as planes and then True."""
        held = self._values[name]
        return (held.expr, True) if held.planes else (self.value(name), False)

    def tiles(self, name: str) -> tuple[Expr, Grid]:
        """A map as it lies, as tiles; in the graph's order every pixel is one."""
        held, shape = self._values[name], self.graph.shape(name)
        return (held.expr, held.tiles) if held.tiles else (self.value(name), (shape[0], shape[1], 1))

    def routing(self, name: str) -> tuple[Expr, Expr]:
        """Experts and scores that a gate chose."""
        return self.builder.parts(self._values[name].expr)

    def int8(self, weight: Weight) -> bool:
        return self.types.get(weight.ref) == "uint8"

    def weight(self, weight: Weight) -> Expr:
        """The packed tensor, as a parameter."""
        if weight.ref not in self._weights:
            dtype = self.types.get(weight.ref, "float32")
            length = Entry(**vars(weight)).length(dtype)
            self._weights[weight.ref] = self.builder.parameter(weight.ref, length, dtype)
        return self._weights[weight.ref]

    def call(self, kernel: str, args: Iterable[Any], shape: Shape) -> Expr:
        """The float32 output of a kernel: `args` are values, packed weights, numbers and tuples of numbers."""
        return self.builder.call(kernel, args, [(shape, "float32")])

    def kernel_for(self, name: str, weight: Weight) -> str:
        """The kernel `name` in the form for the type of a weight."""
        return f"{name}_i8" if self.int8(weight) else name


def _outside(shape: Shape, *, planes: bool) -> Shape:
    """The shape of an input or output of the program."""
    return (1, shape[2], *shape[:2]) if planes else (1, *shape)
