"""A task's gate: each token's best `top_k` experts and their weights (M3ViT, Liang et al., NeurIPS 2022).

The softmax is over the experts of the task's path. They rank by their logits; of equal ones the lower index is first.
Attributes: `held`, experts with a column in the weight; `columns`, those of the path; `top_k`; `renormalise`, whether
the chosen ones' weights add up to 1; `bias`. The value is a pair; the shape [N, top_k] is that of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want
from edgemtl.graph.ops._activations import softmax

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class Routing(NamedTuple):
    """expert [N, k]: positions in the path; score [N, k], float, or UINT16 among integers."""

    expert: NDArray[np.int64]
    score: NDArray[Any]


class Route(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        want(len(inputs) == 1 and len(inputs[0]) == 2, f"it takes tokens [N, C], not {inputs}")
        columns, k = attributes["columns"], attributes["top_k"]
        ascending = list(columns) == sorted(set(columns)) and all(0 <= c < attributes["held"] for c in columns)
        want(ascending, f"columns ascend, from 0 to below {attributes['held']}: not {columns}")
        want(0 < k <= len(columns), f"of {len(columns)} experts it cannot choose {k}")
        return inputs[0][0], k

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        held = attributes["held"]
        weight = ("w_gate", (inputs[0][1], held))
        return (Tensor("gate", (weight, ("bias", (held,))) if attributes["bias"] else (weight,)),)

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        return inputs[0][0] * inputs[0][1] * len(node.attributes["columns"])

    def values(self, node: Node) -> int:
        """Only the path's columns."""
        held: int = node.attributes["held"]
        return node.weights[0].values // held * len(node.attributes["columns"])

    def parts(self, node: Node) -> Mapping[str, int]:
        return {"logits": len(node.attributes["columns"])}

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        columns = list(node.attributes["columns"])
        weight, *bias = (w[..., columns] for w in weights[0])
        logits = inputs[0] @ weight + (bias[0] if bias else 0)
        see("logits", logits)
        index = np.argsort(-logits, axis=-1, kind="stable")[:, : node.attributes["top_k"]]
        score = np.take_along_axis(softmax(logits), index, -1)
        if node.attributes["renormalise"]:
            score = score / score.sum(-1, keepdims=True)
        return Routing(index, score)

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """INT8 rows to positions and UINT16 scores."""
        from edgemtl.graph.integer import gate_logits, scores, top_k

        logits = gate_logits(inputs[0], params)
        chosen = top_k(logits, node.attributes["top_k"])
        return Routing(chosen, scores(logits, chosen, params, node.attributes["renormalise"]))


OP = Route()
