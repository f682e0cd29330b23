"""A task's gate: logits on the linear unit, then top-k, scores and the experts' queues. Its tables are the task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.fpga.contract import MAX_EXPERTS, OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.params import Gate
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Product, Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import gate_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser, refusal
from edgemtl_compiler.quantise import factors

QUADS = 3  # of the path and its biases, before the weights


class Route(FpgaOp):
    def check(self, node: Node, graph: Graph) -> None:
        if node.attributes["bias"]:
            raise refusal(node, "which adds a bias, as a task-conditioned gate does")

    def quantise(self, node: Node, q: Quantiser) -> tuple[Gate, None]:
        columns = node.attributes["columns"]
        return factors.gate(q.weights(node)[0].T[list(columns)], q.codes[node.inputs[0]], columns), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        return Record(OpCode.GATE, add(image.gate(params)))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        tokens, dim = graph.shape(node.inputs[0])
        logits = Product(tokens, dim, 2 * MAX_EXPERTS)
        return Step(
            f"{place(node)}.gate", "gate", (logits,), QUADS, graph.macs(node),
            lambda load, lanes: load(QUADS) + gate_cycles(tokens),
        )  # fmt: skip


OP = Route()
