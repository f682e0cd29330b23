"""LayerNorm of the stream to INT8: of all tokens, or of all but the class token before a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.fpga.contract import OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.params import Norm
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import norm_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.factors import Codes


class LayerNorm(FpgaOp):
    def quantise(self, node: Node, q: Quantiser) -> tuple[Norm, Codes]:
        gamma, beta = q.weights(node)
        seen = q.range(node.name)
        return factors.norm(gamma, beta, node.attributes["eps"], seen, q.reader(node), q.stream_bits)

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        return Record(OpCode.HEAD_NORM if node.attributes["skip"] else OpCode.NORM, add(image.norm(params)))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        rows, dim = node.shape
        quads, kind = 1 + dim // 8, "head norm" if node.attributes["skip"] else "norm"
        return Step(
            f"{place(node)}.{node.name.rpartition('.')[2]}", kind, tables=quads,
            own=lambda load, lanes: load(quads) + norm_cycles(rows, dim, lanes),
        )  # fmt: skip


OP = LayerNorm()
