"""A light head's step: depthwise 3x3 and GELU on their own unit, then the pointwise product added to the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemtl.fpga.contract import LANES, OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer import fixed_point
from edgemtl.graph.integer.params import Step as Params
from edgemtl.graph.integer.params import Taps
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import GELU_QUADS, Product, Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import CALL, loop
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser, refusal
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float

QUADS = 5  # of 16 channels' taps, biases and factors


def _taps(weight: Float, bias: Float, stream_unit: float, unit: float) -> Taps:
    """weight [9, C] on a stream of `stream_unit`; the scaled sum is in `unit`."""
    step = np.maximum(np.abs(weight).max(0) / 127, np.abs(bias) / stream_unit * 2.0**-factors.BIAS_BITS)
    step = np.maximum(step, unit / stream_unit * factors.LEAST_FACTOR)
    q = np.rint(weight / step).astype(np.int8)
    return Taps(q, np.rint(bias / step / stream_unit).astype(np.int32), *fixed_point(step * stream_unit / unit))


def packed(u: Taps) -> bytes:
    """Per 16 channels: bias and factor of each, then nine words of weights, padded to whole quads."""
    channels = image.bias_and_factor(u)
    return b"".join(
        image.quads(channels[t : t + LANES]) + image.quads(u.weight[:, t : t + LANES])
        for t in range(0, len(channels), LANES)
    )


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
        return Params(
            _taps(taps.reshape(-1, 9).T, first, unit, inner), table, factors.linear(mix, second, hidden, unit)
        ), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        tables = image.gelu(params.gelu) + packed(params.taps) + image.linear(params.pointwise)
        return Record(OpCode.STEP, add(tables))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        height, width, channels = node.shape
        pixels, groups = height * width, -(-channels // LANES)
        cycles = loop((pixels + 1) * 9, 1, 30) + CALL  # of 16 channels: nine taps of a pixel, one per cycle
        return Step(
            f"{place(node)}.{node.name.rpartition('.')[2]}", "depthwise",
            (Product(pixels, channels, channels),), GELU_QUADS + groups * QUADS, graph.macs(node),
            lambda load, lanes: load(GELU_QUADS) + groups * (load(QUADS) + cycles),
        )  # fmt: skip


OP = SeparableStep()
