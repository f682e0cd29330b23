"""The network of one task as two graphs: what no task changes, and the rest, sliced to the task's path.

M3ViT (Liang et al., NeurIPS 2022) and the hybrid, as edgemtl/model writes them in PyTorch; a test holds the two equal.
Weights are those of the whole model, so that every task's graphs refer to one bundle.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgemtl import tasks
from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError, TaskError
from edgemtl.graph import lite0
from edgemtl.graph.builder import At, Builder
from edgemtl.graph.graph import Graph
from edgemtl.graph.node import Node, Weight

IMAGE, PREFIX = "image", "prefix"


@dataclass(frozen=True)
class Network:
    """`prefix` takes the image, [H, W, 3]; `task` takes the prefix's outputs and gives the raw map, [h, w, channels].

    The hybrid's prefix gives the tokens and the stem's features at 1/4, 1/8 and 1/16; without blocks the latter alone.
    """

    prefix: Graph
    task: Graph

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, those of the prefix first."""
        return self.prefix.nodes + self.task.nodes

    @property
    def whole(self) -> Graph:
        """Both in one."""
        return Graph(self.task.name, self.prefix.inputs, self.nodes, self.task.outputs)


def network(config: ModelConfig, task: str) -> Network:
    """The graphs of one task. Raises TaskError for a task that the model does not have, and ConfigError, naming the
    setting, for a model that serves training alone.
    """
    if task not in config.task_names:
        raise TaskError(f"there is no task {task!r}; this model has {', '.join(config.task_names)}")
    check(config)
    b = Builder({IMAGE: (*config.image_size, 3)})
    x = _lite0(b, config) if config.stem == "lite0" else _patches(b, config)
    first = config.moe_blocks[0] if config.moe_blocks else config.depth
    for i in range(first):
        x = _dense(b, config, i, _attend(b, config, i, x))
    if first < config.depth:
        x = _attend(b, config, first, x)
    outputs = tuple(dict.fromkeys((x, *_pyramid(config))))
    prefix = b.graph(PREFIX, *outputs)
    b = Builder({name: prefix.shape(name) for name in outputs}, task)
    for i in range(first, config.depth):
        x = _attend(b, config, i, x) if i > first else x
        x = _experts(b, config, i, x) if i in config.moe_blocks else _dense(b, config, i, x)
    return Network(prefix, b.graph(task, _HEADS[config.head](b, config, x)))


def weights(config: ModelConfig) -> Iterator[Weight]:
    """Every weight tensor of a model, whatever its paths: the trunk's, each gate of all tasks in its place; the heads'.

    Tensors of a gate that tasks share come once for each. Raises ConfigError as `network` does.
    """
    first, *others = config.task_names
    few = tuple(bank[: config.top_k] for bank in config.held)  # no gate's tensor depends on the path
    whole = ModelConfig(**{**dict(config), "paths": dict.fromkeys(others, few), "widths": ()})
    nodes = network(whole, first).nodes
    trunk = [n for n in nodes if not n.name.startswith("head.")]
    builders = [Builder({n.name: n.shape for n in trunk}, task) for task in others]
    blocks = iter(config.moe_blocks)
    for node in trunk:
        yield from node.weights
        if node.op == "route":
            i = next(blocks)
            for b in builders:
                _gate(b, whole, i, *node.inputs)
                yield from b.nodes.pop().weights
    for b in builders:
        _HEADS[config.head](b, whole, trunk[-1].name)
    for node in (*nodes[len(trunk) :], *(n for b in builders for n in b.nodes)):
        yield from node.weights


def check(config: ModelConfig) -> None:
    """Raise ConfigError, naming the setting, for a model that serves training alone."""
    if config.router == "dselect_k":
        raise ConfigError("router dselect_k is for training alone; train with noisy_vmoe or noisy to deploy a model")
    if config.gate == "conditioned":
        raise ConfigError("gate conditioned has no graph; convert the model with to_multi_gate")
    if config.has_norms:
        raise ConfigError("head_norm is on; make the batch norms part of their convolutions with without_training")


def _patches(b: Builder, config: ModelConfig) -> str:
    names = {"patch_embed": "patch_embed.proj", "cls_token": "cls_token", "pos_embed": "pos_embed"}
    at = [At("trunk", tensor, f"backbone.{key}") for tensor, key in names.items()]
    return b("embed", "patch_embed", IMAGE, at=at, outputs=config.dim, patch=config.patch)


def _lite0(b: Builder, config: ModelConfig) -> str:
    """The tokens; without blocks the features at 1/16, as a map."""

    def padding(x: str, kernel: int, stride: int) -> tuple[tuple[int, int], ...]:
        return tuple(lite0.same_padding(n, kernel, stride) for n in b.shapes[x][:2])

    first = _convolution(lite0.FIRST, 3, padding(IMAGE, 3, 2), stride=(2, 2), activation="relu6")
    x = b("stem.first", "convolution", IMAGE, **first)
    for i, block in enumerate(lite0.BLOCKS):
        x = b(
            f"stem.blocks.{i}",
            "inverted_residual",
            x,
            middle=block.middle,
            outputs=block.outputs,
            kernel=(block.kernel, block.kernel),
            stride=(block.stride, block.stride),
            padding=padding(x, block.kernel, block.stride),
            expand=block.expand != 1,
            shortcut=block.shortcut,
        )
    if config.depth:
        x = b("stem.tokens", "reshape", x, shape=(config.tokens, lite0.PYRAMID[-1]))
        x = b("embed", "linear", x, outputs=config.dim, activation="none")
        x = b("pos_embed", "positions", x)
    return x


def _pyramid(config: ModelConfig) -> tuple[str, ...]:
    """The stem's features at 1/4, 1/8 and 1/16; none with patches."""
    return tuple(f"stem.blocks.{i}" for i in lite0.TAPS) if config.stem == "lite0" else ()


def _convolution(
    outputs: int, kernel: int = 1, padding: Any = ((0, 0), (0, 0)), *, activation: str = "none", **changes: Any
) -> dict[str, Any]:
    """The attributes of a convolution, of the usual kind but for the `changes`."""
    usual = {"outputs": outputs, "kernel": (kernel, kernel), "stride": (1, 1), "padding": padding, "groups": 1}
    return {**usual, "activation": activation, "bias": True, **changes}


def _attend(b: Builder, config: ModelConfig, i: int, x: str) -> str:
    name, c = f"blocks.{i}", config.dim
    y = b(f"{name}.norm1", "layernorm", x, eps=config.norm_eps, skip=0)
    y = b(f"{name}.attn.qkv", "linear", y, outputs=3 * c, activation="none")
    y = b(f"{name}.attn.heads", "attention", y, heads=config.heads)
    return b(f"{name}.attn.proj", "linear", y, x, outputs=c, activation="none")


def _dense(b: Builder, config: ModelConfig, i: int, x: str) -> str:
    name = f"blocks.{i}"
    y = b(f"{name}.norm2", "layernorm", x, eps=config.norm_eps, skip=0)
    y = b(f"{name}.mlp.fc1", "linear", y, outputs=config.mlp_hidden, activation="gelu")
    return b(f"{name}.mlp.fc2", "linear", y, x, outputs=config.dim, activation="none")


def _gate(b: Builder, config: ModelConfig, i: int, x: str) -> str:
    """The weight has a column for every expert that the model holds; the node says which are the path's."""
    which, name = config.moe_blocks.index(i), f"blocks.{i}.gate"
    held, path = config.held[which], config.path(b.task)[which]
    part, gate = (f"task.{b.task}", b.task) if config.gate == "multi" else ("trunk", "shared")
    return b(
        name,
        "route",
        x,
        at=[At(part, name, f"backbone.blocks.{i}.mlp.gate.{gate}")],
        held=len(held),
        columns=tuple(bisect_left(held, e) for e in path),
        top_k=config.top_k,
        renormalise=config.renormalise,
        bias=config.gate_bias,
    )


def _experts(b: Builder, config: ModelConfig, i: int, x: str) -> str:
    name, which = f"blocks.{i}", config.moe_blocks.index(i)
    held, path = config.held[which], config.path(b.task)[which]
    y = b(f"{name}.norm2", "layernorm", x, eps=config.norm_eps, skip=0)
    routing = _gate(b, config, i, y)
    bank = f"backbone.{name}.mlp.experts"
    at = [At(f"experts.{i}", str(e), bank, bisect_left(held, e), len(held)) for e in path]
    return b(f"{name}.experts", "experts", y, routing, x, at=at, experts=path, hidden=config.expert_hidden)


def _light_head(b: Builder, config: ModelConfig, x: str) -> str:
    tile = config.patch // config.head_stride
    x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=1)
    x = b("head.proj", "linear", x, outputs=tile**2 * config.head_dim, activation="gelu")
    x = b("head.tiles", "tiles", x, grid=config.grid, tile=tile)
    for i in range(2):
        x = b(f"head.step{i}", "separable_step", x, kernel=(3, 3))
    return b("head.out", "convolution", x, **_convolution(config.task(b.task).channels))


def _conv_head(b: Builder, config: ModelConfig, x: str) -> str:
    x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=1)
    x = b("head.map", "reshape", x, shape=(*config.grid, config.dim))
    step = _convolution(config.head_dim, 3, ((1, 1), (1, 1)), activation="relu")
    for i in range(4):
        x = b(f"head.double{i}", "upsample", x) if i else x
        x = b(f"head.conv_{i}", "convolution", x, **step)
    return b("head.conv_4", "convolution", x, **_convolution(config.task(b.task).channels))


def _pyramid_head(b: Builder, config: ModelConfig, x: str) -> str:
    at4, at8, at16 = _pyramid(config)
    if config.depth:
        x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=0)
        x = b("head.map", "reshape", x, shape=(*config.grid, config.dim))
        at16 = b("head.wide", "concat", at16, x)
    point = _convolution(config.head_dim)
    at4 = b("head.at4", "convolution", at4, **point)
    at8 = b("head.at8", "convolution", at8, **point)
    x = b("head.at16", "convolution", at16, **point)
    if config.rays and tasks.find(config.task(b.task).kind).rays:
        rows, columns = config.map_size
        rays = b("head.directions", "rays", rows=rows, columns=columns, fov=config.fov)
        at4 = b("head.rays", "convolution", rays, at4, **{**point, "bias": False})
    for i, finer in enumerate((at8, at4)):
        x = b(f"head.double{i}", "upsample", x)
        x = b(f"head.sum{i}", "add", x, finer)
        x = b(f"head.step{i}", "separable_step", x, kernel=(3, 3))
    x = b("head.step2", "separable_step", x, kernel=(3, 3))
    return b("head.out", "convolution", x, **_convolution(config.task(b.task).channels))


_HEADS = {"light": _light_head, "conv": _conv_head, "pyramid": _pyramid_head}
