"""The last product of a light head, 1x1: its stream is narrowed to INT8 and brought into the order of lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.fpga.contract import LANES, LANES_ROW, OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.params import Output
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Product, Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import narrow_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser, refusal
from edgemtl_compiler.quantise import factors

QUADS = 2  # of 16 channels' biases and factors
LEAST = 2 * LANES_ROW + 1  # steps per row group: the map's words leave one after the other


class Convolution(FpgaOp):
    def check(self, node: Node, graph: Graph) -> None:
        before, a = {n.op for n in graph.nodes if n.name in node.inputs}, node.attributes
        if before != {"separable_step"} or a["kernel"] != (1, 1) or a["activation"] != "none" or a["groups"] != 1:
            raise refusal(node, "which is not the last product of a light head")

    def quantise(self, node: Node, q: Quantiser) -> tuple[Output, None]:
        (weight, bias), stream = q.weights(node), 2.0**-q.head_bits
        weight = weight[:, :, 0, 0]
        codes = factors.balanced(q.range(node.inputs[0]), weight, stream * 2.0**-14)
        unit = max(q.range(node.name).most, 1e-3) * 1.25 / 32767
        return Output(factors.narrow(codes, stream), factors.linear(weight, bias, codes, unit), unit), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        return Record(OpCode.OUTPUT, add(image.narrow(params.narrow) + image.linear(params.linear)))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        (height, width, outputs), inputs = node.shape, graph.shape(node.inputs[0])[2]
        pixels, groups = height * width, -(-inputs // LANES)
        return Step(
            f"{place(node)}.output", "narrow", (Product(pixels, inputs, outputs, LEAST),), groups * QUADS,
            graph.macs(node), lambda load, lanes: groups * (load(QUADS) + narrow_cycles(pixels)),
        )  # fmt: skip


OP = Convolution()
