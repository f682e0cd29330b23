"""A whole frame on integers: uint8 pixels to a task's raw map, or to the trunk's tokens where heads run on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import Int
from edgemtl.graph.integer.gelu import gelu_int8
from edgemtl.graph.integer.head import depthwise, narrow, raster
from edgemtl.graph.integer.layernorm import layer_norm
from edgemtl.graph.integer.params import Mlp
from edgemtl.graph.integer.routing import Queues, gate_logits, queues, scores, top_k
from edgemtl.graph.integer.units import Units
from edgemtl_compiler.fpga.network import Block, Head, Network

Observer = Callable[[str, Int], None]
NUMPY = Units()


def ignore(name: str, value: Int) -> None:
    """The observer that looks at nothing."""


def patches(image: NDArray[np.uint8], patch: int) -> NDArray[np.int8]:
    """Pixels [H, W, 3] as rows [tokens - 1, patch · patch · 3] in the order y, x, colour; 128 taken off each."""
    height, width, _ = image.shape
    tiles = image.reshape(height // patch, patch, width // patch, patch * 3).swapaxes(1, 2)
    return (tiles.reshape(-1, patch * patch * 3).astype(np.int16) - 128).astype(np.int8)


def hidden(x: NDArray[np.int8], mlp: Mlp, units: Units = NUMPY) -> NDArray[np.int8]:
    """First layer and GELU of an MLP or an expert: [M, D] to [M, hidden]."""
    return units.gelu_int8(x, mlp.fc1, mlp.gelu)


def attend(stream: NDArray[np.int16], block: Block, units: Units = NUMPY) -> NDArray[np.int16]:
    """stream + attention(norm1(stream))."""
    x = layer_norm(stream, block.norm1)
    q, k, v = np.split(units.to_int8(x, block.qkv), 3, 1)
    return units.add(units.attention(q, k, v, block.attention), block.proj, stream)


def mix(
    stream: NDArray[np.int16], x: NDArray[np.int8], block: Block, queue: Queues, units: Units = NUMPY
) -> NDArray[np.int16]:
    """stream + Σ score · expert(x), expert by expert in ascending order, each over its queue."""
    stream = stream.copy()
    for (tokens, score), expert in zip(queue, block.experts, strict=True):
        if len(tokens):
            inner = hidden(x[tokens], expert, units)
            stream[tokens] = units.add_scored(inner, expert.fc2, stream[tokens], score)
    return stream


def run_head(
    x: NDArray[np.int8], h: Head, grid: tuple[int, int], observe: Observer, units: Units = NUMPY
) -> NDArray[np.int16]:
    """Normalised rows [tokens - 1, D] to the raw map [height, width, channels]."""
    rows, cols = grid
    width = h.out.weight.shape[1]
    tile = int(np.sqrt(h.proj.weight.shape[0] // width))
    stream = units.gelu_int16(x, h.proj, h.gelu).reshape(-1, width)
    observe("head.proj", stream)
    for i, step in enumerate(h.steps):
        inner = gelu_int8(depthwise(stream, step.depthwise, rows, cols, tile), step.gelu)
        stream = units.add(inner, step.pointwise, stream)
        observe(f"head.step{i}", stream)
    return raster(units.to_int16(narrow(stream, h.narrow), h.out), rows, cols, tile)


def integer_forward(
    network: Network, image: NDArray[np.uint8], task: str, observe: Observer = ignore, units: Units = NUMPY
) -> NDArray[np.int16]:
    """Raw map of `task` [H / stride, W / stride, channels] in units of `network.unit(task)`.

    A network without heads gives the residual stream after the last block, [tokens, D], class token first.

    `observe(name, stream)` sees the stream after every block and step.
    """
    config = network.config
    stream = network.position.copy()
    x = patches(image, config.patch)
    stream[1:] = units.add(x, network.embed, stream[1:])
    observe("embed", stream)
    for i, block in enumerate(network.blocks):
        stream = attend(stream, block, units)
        observe(f"block{i}.attention", stream)
        x = layer_norm(stream, block.norm2)
        if block.mlp is not None:
            stream = units.add(hidden(x, block.mlp, units), block.mlp.fc2, stream)
            observe(f"block{i}.mlp", stream)
            continue
        gate = network.gates[task, i]
        logits = gate_logits(x, gate)
        chosen = top_k(logits, config.top_k)
        score = scores(logits, chosen, gate, config.renormalise)
        stream = mix(stream, x, block, queues(chosen, score, gate, len(block.experts)), units)
        observe(f"block{i}.experts", stream)
    if not network.heads:
        return stream
    h = network.heads[task]
    return run_head(layer_norm(stream[1:], h.norm), h, config.grid, observe, units)
