"""A light head's step: depthwise 3x3 and GELU on their own unit, then the pointwise product added to the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.fpga.contract import LANES, OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.params import Step as Params
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import GELU_QUADS, Product, Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import depthwise_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser, refusal
from edgemtl_compiler.quantise import factors

QUADS = 5  # of 16 channels' taps, biases and factors


class SeparableStep(FpgaOp):
    def check(self, node: Node, graph: Graph) -> None:
        if node.attributes["kernel"] != (3, 3):
            raise refusal(node, "whose kernel is not 3x3")

    def on_stream(self, node: Node) -> bool:
        return True

    def quantise(self, node: Node, q: Quantiser) -> tuple[Params, None]:
        (taps, first), (mix, second), unit = q.weights(node), q.weights(node, 1), q.unit(node)
        mix = mix[:, :, 0, 0]
        table, hidden, inner = factors.gelu_int8(q.range(f"{node.name}.depthwise"), mix, q.max_saturation)
        sums = factors.depthwise(taps.reshape(-1, 9).T, first, unit, inner)
        return Params(sums, table, factors.linear(mix, second, hidden, unit)), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        tables = image.gelu(params.gelu) + image.depthwise(params.depthwise) + image.linear(params.pointwise)
        return Record(OpCode.STEP, add(tables))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        height, width, channels = node.shape
        pixels, groups = height * width, -(-channels // LANES)
        return Step(
            f"{place(node)}.{node.name.rpartition('.')[2]}", "depthwise",
            (Product(pixels, channels, channels),), GELU_QUADS + groups * QUADS, graph.macs(node),
            lambda load, lanes: load(GELU_QUADS) + groups * (load(QUADS) + depthwise_cycles(pixels)),
        )  # fmt: skip


OP = SeparableStep()
