"""A whole frame on integers: uint8 pixels to a task's raw map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgemtl_compiler.hls.network import Block, Head, Mlp, Network
from edgemtl_compiler.hls.reference.attention import attention
from edgemtl_compiler.hls.reference.fixed import Int, scaled_int8, scaled_int16
from edgemtl_compiler.hls.reference.gelu import gelu_int8, gelu_int16
from edgemtl_compiler.hls.reference.head import depthwise, narrow, raster
from edgemtl_compiler.hls.reference.layernorm import layer_norm
from edgemtl_compiler.hls.reference.linear import accumulate_scored, add_to_stream, sums
from edgemtl_compiler.hls.reference.routing import Queues, gate_logits, queues, scores, top_k

Observer = Callable[[str, Int], None]


def _ignore(name: str, value: Int) -> None:
    return None


def patches(image: NDArray[np.uint8], patch: int) -> NDArray[np.int8]:
    """Pixels [H, W, 3] as rows [tokens - 1, patch · patch · 3] in the order y, x, colour; 128 taken off each."""
    height, width, _ = image.shape
    tiles = image.reshape(height // patch, patch, width // patch, patch * 3).swapaxes(1, 2)
    return (tiles.reshape(-1, patch * patch * 3).astype(np.int16) - 128).astype(np.int8)


def hidden(x: NDArray[np.int8], mlp: Mlp) -> NDArray[np.int8]:
    """First layer and GELU of an MLP or an expert: [M, D] to [M, hidden]."""
    p = scaled_int16(sums(x, mlp.fc1), mlp.fc1.multiplier, mlp.fc1.shift)
    return gelu_int8(p, mlp.gelu)


def attend(stream: NDArray[np.int16], block: Block) -> NDArray[np.int16]:
    """stream + attention(norm1(stream))."""
    x = layer_norm(stream, block.norm1)
    qkv = scaled_int8(sums(x, block.qkv), block.qkv.multiplier, block.qkv.shift)
    q, k, v = np.split(qkv, 3, 1)
    out = attention(q, k, v, block.attention)
    return add_to_stream(stream, sums(out, block.proj), block.proj)


def mix(stream: NDArray[np.int16], x: NDArray[np.int8], block: Block, queue: Queues) -> NDArray[np.int16]:
    """stream + Σ score · expert(x), expert by expert in ascending order, each over its queue."""
    stream = stream.copy()
    for (tokens, score), expert in zip(queue, block.experts, strict=True):
        if len(tokens):
            total = sums(hidden(x[tokens], expert), expert.fc2)
            stream[tokens] = accumulate_scored(stream[tokens], total, expert.fc2, score)
    return stream


def run_head(x: NDArray[np.int8], h: Head, grid: tuple[int, int], observe: Observer) -> NDArray[np.int16]:
    """Normalised rows [tokens - 1, D] to the raw map [height, width, channels]."""
    rows, cols = grid
    p = scaled_int16(sums(x, h.proj), h.proj.multiplier, h.proj.shift)
    width = h.out.weight.shape[1]
    tile = int(np.sqrt(h.proj.weight.shape[0] // width))
    stream = gelu_int16(p, h.gelu).reshape(-1, width)
    observe("head.proj", stream)
    for i, step in enumerate(h.steps):
        inner = gelu_int8(depthwise(stream, step.depthwise, rows, cols, tile), step.gelu)
        stream = add_to_stream(stream, sums(inner, step.pointwise), step.pointwise)
        observe(f"head.step{i}", stream)
    total = sums(narrow(stream, h.narrow), h.out)
    return raster(scaled_int16(total, h.out.multiplier, h.out.shift), rows, cols, tile)


def integer_forward(
    network: Network, image: NDArray[np.uint8], task: str, observe: Observer = _ignore
) -> NDArray[np.int16]:
    """Raw map of `task` [H / stride, W / stride, channels] in units of `network.heads[task].unit`.

    `observe(name, stream)` sees the stream after every block and step.
    """
    config = network.config
    stream = network.position.copy()
    x = patches(image, config.patch)
    stream[1:] = add_to_stream(stream[1:], sums(x, network.embed), network.embed)
    observe("embed", stream)
    for i, block in enumerate(network.blocks):
        stream = attend(stream, block)
        observe(f"block{i}.attention", stream)
        x = layer_norm(stream, block.norm2)
        if block.mlp is not None:
            total = sums(hidden(x, block.mlp), block.mlp.fc2)
            stream = add_to_stream(stream, total, block.mlp.fc2)
            observe(f"block{i}.mlp", stream)
            continue
        gate = network.gates[task, i]
        logits = gate_logits(x, gate)
        chosen = top_k(logits, config.top_k)
        score = scores(logits, chosen, gate, config.renormalise)
        stream = mix(stream, x, block, queues(chosen, score, gate, len(block.experts)))
        observe(f"block{i}.experts", stream)
    h = network.heads[task]
    return run_head(layer_norm(stream[1:], h.norm), h, config.grid, observe)
