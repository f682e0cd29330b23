"""What an op's emitter writes with: nodes, constants and the weights of one ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgemtl.graph import Graph, Weight
from edgemtl.graph.node import Array, Shape
from edgemtl.graph.run import Values
from edgemtl_compiler.onnx import ops

INPUT, OUTPUT = "image", "map"


class Writer:
    """One graph on its way to a file of `opset`. A call adds an ONNX node and gives the name of its output.

    `instead` has emitters for ops that are not to be written as edgemtl_compiler/onnx/ops has them.
    """

    def __init__(self, graph: Graph, values: Values, opset: int, instead: Mapping[str, ops.Emit]) -> None:
        self.graph, self.opset = graph, opset
        self.values, self._instead = values, instead
        self._nodes: list[Any] = []
        self._initialisers: dict[str, Any] = {}
        self._within = ""  # the graph's node that is being written

    def __call__(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """An ONNX node; its output's name, or a tuple of them where there are several. Left out attributes are None."""
        name = f"{self._within}/{len(self._nodes)}"
        names = [name if outputs == 1 else f"{name}.{i}" for i in range(outputs)]
        kept = {key: value for key, value in attributes.items() if value is not None}
        self._nodes.append(helper.make_node(op, list(inputs), names, f"{name}_{op}", **kept))
        return name if outputs == 1 else tuple(names)

    def floats(self, *values: float) -> str:
        """A constant: one number, or a vector."""
        return self.constant(np.array(values if len(values) > 1 else values[0], np.float32))

    def integers(self, *values: int) -> str:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def constant(self, array: Array) -> str:
        """Any array; small ones are shared."""
        name = f"{array.dtype}{list(array.shape)}={array.tolist()}"
        if array.size > 8:
            name = f"{self._within}/constant{len(self._initialisers)}"
        self._initialisers.setdefault(name, numpy_helper.from_array(array, name))
        return name

    def weight(self, weight: Weight, arrange: Callable[[Array], Array] = lambda a: a) -> list[str]:
        """The arrays of a weight tensor as initialisers, each put in another order or shape by `arrange`."""
        names = initialisers(weight)
        for name, array in zip(names, self.values(weight), strict=True):
            self._initialisers[name] = numpy_helper.from_array(np.ascontiguousarray(arrange(array)), name)
        return names

    def shape(self, name: str) -> Shape:
        """The shape in ONNX of a value of the graph."""
        return onnx_shape(self.graph.shape(name))

    def model(self) -> Any:
        """The graph as an ONNX model. Raises CompileError for an op that this target cannot say."""
        (inside,), (out,) = self.graph.inputs, self.graph.outputs
        values: dict[str, Any] = {inside: INPUT}
        for node in self.graph.nodes:
            self._within = node.name
            emit = self._instead.get(node.op) or ops.find(node.op)
            values[node.name] = emit(self, node, *_flat(values[name] for name in node.inputs))
        for node in self._nodes:
            node.output[:] = [OUTPUT if name == values[out] else name for name in node.output]
        graph = helper.make_graph(
            self._nodes,
            self.graph.name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, self.shape(inside))],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, self.shape(out))],
            list(self._initialisers.values()),
        )
        return helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", self.opset)])


def _flat(values: Any) -> list[str]:
    return [name for value in values for name in ([value] if isinstance(value, str) else value)]


def onnx_shape(shape: Shape) -> Shape:
    """Maps [H, W, C] have a batch and channels first in ONNX; tokens are as they are."""
    return (1, shape[2], shape[0], shape[1]) if len(shape) == 3 else shape


def initialisers(weight: Weight) -> list[str]:
    """What the arrays of a weight tensor are called in a file."""
    return [f"{key}[{weight.row}]" if weight.bank else key for key, _ in weight.sources]


def activated(w: Writer, activation: str, x: str) -> str:
    """`x` after one of edgemtl/graph/ops/_activations.py."""
    out: str = {
        "none": lambda: x,
        "relu": lambda: w("Relu", x),
        "relu6": lambda: w("Clip", x, w.floats(0), w.floats(6)),
        "gelu": lambda: gelu(w, x),
    }[activation]()
    return out


def gelu(w: Writer, x: str) -> str:
    """Exact; before opset 20 in the five steps that readers know it by."""
    if w.opset >= 20:
        out: str = w("Gelu", x)
        return out
    share = w("Add", w("Erf", w("Div", x, w.floats(2**0.5))), w.floats(1))
    out = w("Mul", w("Mul", x, share), w.floats(0.5))
    return out


def added(w: Writer, x: str, *others: str) -> str:
    """`x` and what is added to it, if there is anything."""
    for other in others:
        x = w("Add", x, other)
    return x


def convolution(
    w: Writer,
    x: str,
    weight: Weight,
    stride: tuple[int, int] = (1, 1),
    padding: Any = ((0, 0), (0, 0)),
    groups: int = 1,
) -> str:
    """`x` after a convolution, with its bias if it has one."""
    (above, below), (left, right) = padding
    out: str = w("Conv", x, *w.weight(weight), strides=stride, pads=(above, left, below, right), group=groups)
    return out
