"""A path's experts: the tokens in queues, two products over exactly them, and the sum.

Grids follow from shapes alone. The products have a block for every 32 choices and one more per expert, which is enough
for any routing: queues of n1 + n2 + … choices have at most (n1 + n2 + …) / 32 + experts tiles of 32.
"""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl.graph.ops import want
from edgemtl_compiler.cuda.lower import ROWS, THREADS, Lowering, Tensor, whole_units
from edgemtl_compiler.cuda.ops.route import Routing

_DISPATCH, _SHARED = 256, 2 * 256 // 32 * 4  # threads, bytes of shared memory; kernels/experts.h


def lower(to: Lowering, node: Node) -> Tensor:
    tokens, gate, _ = node.inputs
    want(tokens == to.graph[gate].inputs[0], "its tokens are not those that its gate reads")
    routing, residual = to.value(node, 1, Routing), to.read(node, 2)
    rows, name, count = to.rows(node), node.name, len(node.weights)
    dim, h, k = node.shape[1], node.attributes["hidden"], to.graph.shape(gate)[1]
    whole_units(dim, h)
    pairs = rows * k
    table = to.table("experts", [to.params.index(w.ref) for w in node.weights])
    start, order = to.tensor(f"{name}.start", count + 1), to.tensor(f"{name}.order", pairs)
    hidden = to.tensor(f"{name}.hidden", pairs * h, rounded=True)
    parts, out = to.tensor(f"{name}.parts", pairs * dim), to.tensor(name, rows * dim)
    to.launch("dispatch", (count,), _DISPATCH, _SHARED, routing.expert, start, order, pairs)
    tiles = min(pairs, pairs // ROWS + count)
    to.linear("expert_up", pairs, h, routing.tokens, table, start, order, hidden, dim, h, count, k, blocks_down=tiles)
    queues = (hidden, table, start, order, routing.score, parts, dim, h, count, k)
    to.linear("expert_down", pairs, dim, *queues, blocks_down=tiles)
    to.launch("combine", (rows,), THREADS, 0, parts, routing.expert, residual, out, dim, k)
    return out
