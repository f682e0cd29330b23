"""An image to tokens: one linear layer per patch, a class token before them, and learned positions (Dosovitskiy et al.,
ICLR 2021). [H, W, 3] to [1 + H · W / patch², C]. Attributes: `outputs`, `patch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor
from edgemtl.graph.ops import Op, Within, want

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units


class PatchEmbed(Op):
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        patch = attributes["patch"]
        want(len(inputs) == 1 and len(inputs[0]) == 3, f"it takes a map [H, W, C], not {inputs}")
        height, width, _ = inputs[0]
        want(height % patch == 0 and width % patch == 0, f"{height}x{width} is not whole in patches of {patch}")
        return 1 + height // patch * (width // patch), attributes["outputs"]

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        rows, c = self.shape(inputs, attributes)
        patch = attributes["patch"]
        projection = (("weight", (c, inputs[0][2], patch, patch)), ("bias", (c,)))
        return (
            Tensor("linear", projection, "patches"),
            Tensor("vector", (("", (1, 1, c)),), "class"),
            Tensor("vector", (("", (1, rows, c)),), "positions"),
        )

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        return prod(inputs[0]) * node.shape[1]

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        (weight, bias), (first,), (positions,) = weights
        (height, width, channels), patch = inputs[0].shape, node.attributes["patch"]
        patches = inputs[0].reshape(height // patch, patch, width // patch, patch, channels).transpose(0, 2, 4, 1, 3)
        tokens = patches.reshape(-1, channels * patch**2) @ weight.reshape(len(weight), -1).T + bias
        return np.concatenate([first[0], tokens]) + positions[0]

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """Pixels, uint8, 128 taken off each, to the INT16 stream; a patch in the order y, x, colour."""
        (height, width, channels), patch = inputs[0].shape, node.attributes["patch"]
        tiles = inputs[0].reshape(height // patch, patch, width // patch, patch * channels).swapaxes(1, 2)
        rows = (tiles.reshape(-1, patch * patch * channels).astype(np.int16) - 128).astype(np.int8)
        stream = params.position.copy()
        stream[1:] = units.add(rows, params.patches, stream[1:])
        return stream


OP = PatchEmbed()
