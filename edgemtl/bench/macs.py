"""What one frame costs, by formula: multiply-accumulates, and bytes of weights that must be read.

Counted from the configuration alone, attention's two products (queries by keys, weights by values) included; a
LayerNorm, a softmax or a GELU counts as nothing. M3ViT's paper counts the same way and calls it FLOPs. Checked in the
tests against the published figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgemtl import lite0
from edgemtl.config import ModelConfig

FLOAT = 4  # bytes


class Work(NamedTuple):
    """Multiply-accumulates of one frame and one task, by part."""

    embedding: int  # or the stem
    projections: int  # qkv and output of attention
    attention: int  # queries by keys, weights by values
    dense: int  # dense MLPs
    gates: int
    experts: int
    head: int

    @property
    def backbone(self) -> int:
        return self.total - self.head

    @property
    def total(self) -> int:
        return sum(self)


def count(config: ModelConfig, task: str, *, every_expert: bool = False) -> Work:
    """The work of `task`; with `every_expert`, of an export that runs all experts of the path on all tokens."""
    n, c = config.tokens, config.dim
    dense_blocks = config.depth - len(config.moe_blocks)
    path = [len(bank) for bank in config.path(task)]
    per_expert = 2 * c * config.expert_hidden
    chosen = sum(path) if every_expert else len(path) * config.top_k
    return Work(
        embedding=_embedding(config),
        projections=config.depth * 4 * n * c * c,
        attention=config.depth * 2 * n * n * c,
        dense=dense_blocks * 2 * n * c * config.mlp_hidden,
        gates=sum(n * c * e for e in path),
        experts=n * chosen * per_expert,
        head=_head(config, task),
    )


def prefix(config: ModelConfig) -> int:
    """The work that all tasks share and a frame does once: embedding, and the blocks up to the first gate."""
    n, c = config.tokens, config.dim
    before = config.moe_blocks[0] if config.moe_blocks else config.depth
    attended = min(before + 1, config.depth)
    return _embedding(config) + attended * (4 * n * c * c + 2 * n * n * c) + before * 2 * n * c * config.mlp_hidden


def _embedding(config: ModelConfig) -> int:
    patches = config.grid[0] * config.grid[1]
    if config.stem == "patch":
        return patches * config.dim * 3 * config.patch**2
    projection = patches * lite0.PYRAMID[-1] * config.dim if config.depth else 0
    return sum(layer.macs for layer in lite0.convolutions(config.image_size)) + projection


def _head(config: ModelConfig, task: str) -> int:
    if config.head == "conv":
        return _conv_head(config, task)
    if config.head == "pyramid":
        return _pyramid_head(config, task)
    d, tile = config.head_dim, config.patch // config.head_stride
    pixels = config.map_size[0] * config.map_size[1]
    projection = (config.tokens - 1) * config.dim * tile * tile * d
    return projection + pixels * (2 * (9 * d + d * d) + d * config.task(task).channels)


def _conv_head(config: ModelConfig, task: str) -> int:
    """Four 3x3 convolutions, each on four times the pixels of the one before, and the last 1x1; no bilinear work."""
    grid, d = config.tokens - 1, config.head_dim
    first, rest = 9 * config.dim * d, (4 + 16 + 64) * 9 * d * d
    return grid * (first + rest + 64 * d * config.task(task).channels)


def _pyramid_head(config: ModelConfig, task: str) -> int:
    """1x1 steps at 1/16, 1/8 and 1/4, a separable step at 1/8 and two at 1/4; no bilinear work."""
    d, c = config.head_dim, config.dim if config.depth else 0
    grid = config.grid[0] * config.grid[1]
    at4, at8, at16 = lite0.PYRAMID
    step, rays = 9 * d + d * d, 2 * d if _reads_rays(config, task) else 0
    return (
        grid * d * (at16 + c)
        + 4 * grid * (d * at8 + step)
        + 16 * grid * (d * at4 + rays + 2 * step + d * config.task(task).channels)
    )


def _reads_rays(config: ModelConfig, task: str) -> bool:
    return config.rays and config.task(task).kind == "normals"


def _head_values(config: ModelConfig, task: str) -> int:
    c, d, channels = config.dim, config.head_dim, config.task(task).channels
    if config.head == "pyramid":
        c = c if config.depth else 0
        rays = 2 * d if _reads_rays(config, task) else 0
        return 2 * c + (sum(lite0.PYRAMID) + c + 3) * d + rays + 3 * (10 * d + d * d + d) + (d + 1) * channels
    if config.head == "conv":
        norms = 4 * 5 * d  # and the convolutions' biases
        return 2 * c + 9 * c * d + 27 * d * d + norms + (d + 1) * channels
    tile = config.patch // config.head_stride
    return 2 * c + (c + 1) * tile * tile * d + 2 * (10 * d + d * d + d) + (d + 1) * channels


def weight_bytes(config: ModelConfig, task: str, touched: Sequence[int] | None = None, width: int = FLOAT) -> int:
    """Bytes of weights that one frame of `task` must read at least once.

    touched: experts that got a token, per MoE block; None: every expert of the path did. width: bytes per weight.
    """
    c, hidden = config.dim, config.expert_hidden
    path = [len(bank) for bank in config.path(task)]
    used = path if touched is None else list(touched)
    attention = 4 * c * c + 4 * c  # with biases
    norms = 4 * c
    dense = 2 * c * config.mlp_hidden + config.mlp_hidden + c
    expert = 2 * c * hidden + hidden + c
    values = (
        _embedding_values(config)
        + config.depth * (attention + norms)
        + (config.depth - len(path)) * dense
        + sum((c + config.gate_bias) * e for e in path)  # gates
        + sum(used) * expert
        + _head_values(config, task)
    )  # fmt: skip
    return width * values


def _embedding_values(config: ModelConfig) -> int:
    """Patch embedding and class token, or stem and projection; and positions."""
    c = config.dim
    if config.stem == "patch":
        return c * 3 * config.patch**2 + c + c + config.tokens * c
    layers = lite0.convolutions(config.image_size)
    stem = sum(math.prod(layer.shape) + layer.outputs for layer in layers)
    return stem + ((lite0.PYRAMID[-1] + 1) * c + config.tokens * c if config.depth else 0)


def convolutions(config: ModelConfig, task: str) -> int:
    """Multiply-accumulates of BiSeNet's kind (edgemtl.train.comparators) with one head, counted by running shapes."""
    import torch

    from edgemtl.train.comparators import BiSeNet

    total = 0

    def note(layer: Any, _: Any, out: Any) -> None:
        nonlocal total
        total += layer.weight[0].numel() * out.numel()

    with torch.device("meta"):
        network = BiSeNet(config).eval()
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.register_forward_hook(note)
        network(torch.empty(1, 3, *config.image_size), [task])
    return total
