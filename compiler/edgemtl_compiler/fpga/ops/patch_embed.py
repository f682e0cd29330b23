"""Pixels to the residual stream: the position table, then the linear unit over the patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemtl.fpga.contract import OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.params import Embed
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Product, Record, Step, place
from edgemtl_compiler.fpga.estimate.cycles import patch_cycles, position_cycles
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.factors import Codes


class PatchEmbed(FpgaOp):
    def on_stream(self, node: Node) -> bool:
        return True

    def quantise(self, node: Node, q: Quantiser) -> tuple[Embed, None]:
        """Mean, deviation and 1/255 go into weights and bias; the class token into the first position."""
        weight, bias = q.weights(node)
        rows = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)  # K in the order y, x, colour
        pixels = node.attributes["patch"] ** 2
        mean, std = (np.tile(v, pixels) for v in (q.config.image_mean, q.config.image_std))
        codes = Codes(1 / (255 * std), (128 / 255 - mean) / std)
        (first,), (position,) = q.weights(node, 1), q.weights(node, 2)
        position = position[0].copy()
        position[0] += first[0, 0]
        table = np.clip(np.rint(position / q.unit(node)), -32768, 32767).astype(np.int16)
        return Embed(factors.linear(rows, bias, codes, q.unit(node)), table), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record:
        position = add(image.quads(params.position))
        return Record(OpCode.EMBED, position, second=add(image.linear(params.patches)))

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step:
        (tokens, dim), (height, width, colours) = node.shape, graph.shape(node.inputs[0])
        product = Product(tokens - 1, node.attributes["patch"] ** 2 * colours, dim)
        return Step(
            place(node), "embed", (product,), -(-tokens * dim // 32), graph.macs(node),
            lambda load, lanes: position_cycles(tokens, dim) + patch_cycles(height, width),
        )  # fmt: skip


OP = PatchEmbed()
