"""The experts of a block, one after the other, each over its queue. The weight image has all that the model holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgemtl.fpga.contract import OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.linear import GUARD_BITS
from edgemtl.graph.integer.params import Mlp
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Product, Record, Step, place
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float


def _bank(node: Node, q: Quantiser) -> list[list[Float]]:
    """The arrays of every expert that the model holds, on the task's path or not."""
    first = node.weights[0]
    return [[a.astype(np.float64) for a in q.values(replace(first, row=row))] for row in range(first.bank)]


class Experts(FpgaOp):
    def on_stream(self, node: Node) -> bool:
        return True

    def reads(self, node: Node, q: Quantiser) -> Float:
        return np.concatenate([up for up, *_ in _bank(node, q)])

    def quantise(self, node: Node, q: Quantiser) -> tuple[tuple[Mlp, ...], None]:
        blocks = [n.name for n in q.graph.nodes if n.op == "experts"]
        held, out = q.config.held[blocks.index(node.name)], []
        for expert, (up, up_bias, down, down_bias) in zip(held, _bank(node, q), strict=True):
            inner = q.range(f"{node.name}.fc1.{expert}")
            table, hidden, unit = factors.gelu_int8(inner, down, q.max_saturation)
            fc1 = factors.linear(up, up_bias, q.codes[node.inputs[0]], unit)
            out.append(Mlp(fc1, table, factors.linear(down, down_bias, hidden, q.unit(node) * 2.0**-GUARD_BITS)))
        return tuple(out), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        tables = [image.mlp(expert) for expert in params]
        at = [add(table) for table in tables]
        return Record(OpCode.EXPERTS, at[0], hidden=node.attributes["hidden"], stride=len(tables[0]) // image.QUAD)

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        dim, hidden, products = node.shape[1], node.attributes["hidden"], []
        for rows in filter(None, queues[node.name]):
            products.append(Product(rows, dim, hidden, gelu=True, expert=True, pick=True))
            products.append(Product(rows, hidden, dim, expert=True))
        return Step(f"{place(node)}.experts", "linear", tuple(products), macs=graph.macs(node))


OP = Experts()
