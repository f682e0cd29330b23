"""All heads of one layer: scores, softmax weights, weighted sums, requantised to INT8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemtl.fpga.contract import OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer import fixed_point
from edgemtl.graph.integer.params import Attention
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import attention_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float, Range
from edgemtl_compiler.quantise.factors import Codes


def _parts(node: Node, q: Quantiser) -> list[Float]:
    """Units of query and key per head, and of the value per channel."""
    (dim, heads), r = (node.shape[1], node.attributes["heads"]), q.range(node.inputs[0])
    out = []
    for part, groups in enumerate((heads, heads, dim)):
        here = slice(part * dim, (part + 1) * dim)
        one = Range(r.low[here], r.high[here], [rows[:, here] for rows in r.rows], r.count)
        out.append(q.reach(node.inputs[0], one, groups) / 127)
    return out


def input_units(node: Node, q: Quantiser) -> Float:
    """What one step of each channel of query, key and value stands for [3C]."""
    queries, keys, values = _parts(node, q)
    each = node.shape[1] // node.attributes["heads"]
    return np.concatenate([np.repeat(queries, each), np.repeat(keys, each), values])


class FpgaAttention(FpgaOp):
    def quantise(self, node: Node, q: Quantiser) -> tuple[Attention, Codes]:
        queries, keys, values = _parts(node, q)
        unit = float(q.reach(node.name, q.range(node.name), 1)[0]) / 127
        each = node.shape[1] // node.attributes["heads"]
        exponent = queries * keys / math.sqrt(each) * 256 / math.log(2)
        return Attention(*fixed_point(exponent), *fixed_point(values / unit * 2.0**-16)), factors.plain(unit)

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        return Record(OpCode.ATTEND, add(image.attention(params)))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        (tokens, dim), heads = node.shape, node.attributes["heads"]
        quads = 1 + dim // 16
        return Step(
            f"{place(node)}.attention", "attention", tables=quads, macs=graph.macs(node),
            own=lambda load, lanes: load(quads) + attention_cycles(tokens, heads, dim // heads, lanes),
        )  # fmt: skip


OP = FpgaAttention()
