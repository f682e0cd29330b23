"""A graph run in NumPy: the reference that every target is held to, and where ranges are looked at.

It is written to be read, not to be quick. The type of the values follows that of the inputs and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph import ops
from edgemtl.graph.graph import Graph
from edgemtl.graph.node import Array, Node, Weight

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units

Values = Callable[[Weight], Sequence[Array]]  # the arrays of a weight tensor, one per source
See = Callable[[str, Any], None]
Compute = Callable[[Node, Sequence[Any], Sequence[Sequence[Array]], Callable[[str, Any], None]], Any]  # as Op.run


def from_state(state: Mapping[str, Array]) -> Values:
    """Weights from the state of a whole model: key -> array."""

    def values(weight: Weight) -> list[Array]:
        return [state[key][weight.row] if weight.bank else state[key] for key, _ in weight.sources]

    return values


def run(
    graph: Graph,
    inputs: Mapping[str, Array],
    weights: Values,
    see: See | None = None,
    instead: Mapping[str, Compute] | None = None,
) -> dict[str, Any]:
    """The outputs of the graph for one image, by name.

    inputs: an array per input of the graph, of its shape. `see` gets every node's value under the node's name, and
    under NODE.PART what lies within it where something does: before an activation, between fused layers, an expert's
    hidden values. A `route`'s value is a `Routing` (edgemtl/graph/ops/route.py). `instead` has, by op, what computes it
    in the place of its `run`. Raises ValueError for an input of another shape.
    """

    def compute(node: Node, arguments: list[Any]) -> Any:
        def within(part: str, value: Any) -> None:
            if see is not None:
                see(f"{node.name}.{part}", value)

        op: Compute = (instead or {}).get(node.op, ops.find(node.op).run)
        return op(node, arguments, [list(weights(w)) for w in node.weights], within)

    return _walk(graph, inputs, compute, see)


def run_integers(
    graph: Graph,
    pixels: NDArray[np.uint8],
    params: Callable[[Node], Any],
    see: See | None,
    units: Units,
) -> Any:
    """What the accelerator gives for pixels uint8 [H, W, 3]: the graph's one output, INT16.

    `params` has a node's integers, `see` gets every value, and `units` computes products and attention.
    """

    def compute(node: Node, arguments: list[Any]) -> Any:
        return ops.find(node.op).integer(node, arguments, params(node), units)

    (source,), (output,) = graph.inputs, graph.outputs
    return _walk(graph, {source: pixels}, compute, see)[output]


def _walk(
    graph: Graph, inputs: Mapping[str, NDArray[Any]], compute: Callable[[Node, list[Any]], Any], see: See | None
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, shape in graph.inputs.items():
        if inputs[name].shape != shape:
            raise ValueError(f"input {name} of graph {graph.name} is {inputs[name].shape}, not {shape}")
        values[name] = inputs[name]
    for node in graph.nodes:
        values[node.name] = compute(node, [values[name] for name in node.inputs])
        if see is not None:
            see(node.name, values[node.name])
    return {name: values[name] for name in graph.outputs}
