"""A linear layer on tokens: with the normalisation before it, or with a residual after it."""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import Lowering, Tensor, whole_units
from edgemtl_compiler.cuda.ops.layernorm import Norm

# By how many tokens the normalisation leaves out, and the activation.
_NORMED = {(0, "none"): "norm_linear", (0, "gelu"): "norm_linear_gelu", (1, "gelu"): "head_project"}


def lower(to: Lowering, node: Node) -> Tensor:
    ((_, depth), *added), width = to.graph.shapes(node), node.shape[1]
    rows, activation, (weight,) = to.rows(node), node.attributes["activation"], node.weights
    whole_units(depth, width)
    if added:
        want(activation == "none", f"there is none with both {activation} and a residual")
        x, residual, out = to.read(node, 0, rounded=True), to.read(node, 1), to.tensor(node.name, rows * width)
        to.linear("linear_residual", rows, width, x, weight, residual, out, rows, depth, width)
        return out
    norm = to.value(node, 0, Norm)
    kernel = _NORMED.get((norm.skip, activation), "")
    want(kernel != "", f"there is none with activation {activation} on tokens without the first {norm.skip}")
    out = to.tensor(node.name, rows * width, rounded=not norm.skip)
    patches = (node.shape[0],) if norm.skip else ()
    sizes = (rows, depth, width, *patches, norm.eps)
    to.linear(kernel, rows, width, norm.x, norm.weight, weight, out, *sizes)
    return out
