"""A gate, with the normalisation that it reads; it stores the normalised tokens for the experts."""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import Lowering, Tensor, blocks
from edgemtl_compiler.cuda.ops.layernorm import Norm

_TOKENS = 4  # of a block, a warp each; kernels/experts.h
_LEAST_SHARED = 99 << 10  # bytes that a block may have on every GPU from compute capability 8.0 on


@dataclass(frozen=True)
class Routing:
    """The tokens that were routed, and the experts and scores that each has."""

    tokens: Tensor
    expert: Tensor
    score: Tensor


def shared(dim: int, path: int) -> int:
    """Bytes of shared memory of a block; path: experts to choose among."""
    return _TOKENS * (dim + 2 * path) * 4


def lower(to: Lowering, node: Node) -> Routing:
    norm, (_, dim), a = to.value(node, 0, Norm), to.graph.shapes(node)[0], node.attributes
    want(norm.skip == 0, "it cannot leave out tokens")
    rows, k, count = to.rows(node), a["top_k"], len(a["columns"])
    needs = shared(dim, count)
    want(
        needs <= _LEAST_SHARED,
        f"dim {dim} with {count} experts takes {needs} bytes of shared memory, more than the {_LEAST_SHARED} that every"
        " GPU has",
    )
    tokens = to.tensor(f"{node.name}.tokens", rows * dim, rounded=True)
    expert, score = to.tensor(f"{node.name}.expert", rows * k), to.tensor(f"{node.name}.score", rows * k)
    columns, sizes = to.table("ints", a["columns"]), (rows, dim, a["held"], count, k, int(a["renormalise"]), norm.eps)
    args = (norm.x, norm.weight, *node.weights, columns, tokens, expert, score, *sizes)
    to.launch("route", (blocks(rows, _TOKENS),), _TOKENS * 32, needs, *args)
    return Routing(tokens, expert, score)
