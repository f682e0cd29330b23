"""The network of one task as two graphs: what no task changes, and the rest, sliced to the task's path.

M3ViT (Liang et al., NeurIPS 2022) and the hybrid, as edgemtl/model writes them in PyTorch; a test holds the two equal.
Weights are those of the whole model, so that every task's graphs refer to one bundle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgemtl import lite0
from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError, TaskError
from edgemtl.graph import ops
from edgemtl.graph.graph import Graph
from edgemtl.graph.node import Node, Shape, Tensor, Weight

IMAGE, PREFIX = "image", "prefix"


@dataclass(frozen=True)
class Network:
    """`prefix` takes the image, [H, W, 3]; `task` takes the prefix's outputs and gives the raw map, [h, w, channels].

    The hybrid's prefix gives the tokens and the stem's features at 1/4, 1/8 and 1/16; without blocks the latter alone.
    """

    prefix: Graph
    task: Graph

    @property
    def whole(self) -> Graph:
        """Both in one."""
        return Graph(self.task.name, self.prefix.inputs, self.prefix.nodes + self.task.nodes, self.task.outputs)


class _At(NamedTuple):
    """Where a weight tensor is: in the bundle, and under which key in the state; an expert's row in its bank."""

    part: str
    tensor: str
    key: str
    row: int = 0
    bank: int = 0


def _dotted(*names: str) -> str:
    return ".".join(filter(None, names))


def _weight(at: _At, tensor: Tensor) -> Weight:
    sources = tuple((_dotted(at.key, name), shape) for name, shape in tensor.sources)
    return Weight(at.part, at.tensor, tensor.kind, sources, at.row, at.bank)


class _Builder:
    """A graph on its way; a call adds a node and gives its name.

    Weights are called as their node, unless `at` says where they are, tensor by tensor.
    """

    def __init__(self, inputs: Mapping[str, Shape], task: str = "") -> None:
        self.inputs, self.task = dict(inputs), task
        self.shapes = dict(inputs)
        self.nodes: list[Node] = []

    def __call__(self, name: str, op: str, *inputs: str, at: Sequence[_At] = (), **attributes: Any) -> str:
        shapes, rule = [self.shapes[i] for i in inputs], ops.find(op)
        shape, tensors = rule.shape(shapes, attributes), rule.tensors(shapes, attributes)
        places = at or [self._place(_dotted(name, t.name)) for t in tensors]
        weights = tuple(_weight(a, t) for a, t in zip(places, tensors, strict=True))
        node = Node(name, op, inputs, attributes, weights, shape)
        self.nodes.append(node)
        self.shapes[name] = node.shape
        return name

    def _place(self, name: str) -> _At:
        if name.startswith("head."):
            return _At(f"task.{self.task}", name, f"heads.{self.task}.{name.removeprefix('head.')}")
        return _At("trunk", name, f"backbone.{name}.conv" if name.startswith("stem.") else f"backbone.{name}")

    def graph(self, name: str, *outputs: str) -> Graph:
        return Graph(name, self.inputs, tuple(self.nodes), outputs)


def network(config: ModelConfig, task: str) -> Network:
    """The graphs of one task. Raises TaskError for a task that the model does not have, and ConfigError, naming the
    setting, for a model that serves training alone.
    """
    if task not in config.task_names:
        raise TaskError(f"there is no task {task!r}; this model has {', '.join(config.task_names)}")
    check(config)
    b = _Builder({IMAGE: (*config.image_size, 3)})
    x, pyramid = _lite0(b, config) if config.stem == "lite0" else (_patches(b, config), ())
    first = config.moe_blocks[0] if config.moe_blocks else config.depth
    for i in range(first):
        x = _dense(b, config, i, _attend(b, config, i, x))
    if first < config.depth:
        x = _attend(b, config, first, x)
    outputs = tuple(dict.fromkeys((x, *pyramid)))  # without blocks the tokens are the features at 1/16
    prefix = b.graph(PREFIX, *outputs)
    b = _Builder({name: prefix.shape(name) for name in outputs}, task)
    for i in range(first, config.depth):
        x = _attend(b, config, i, x) if i > first else x
        x = _experts(b, config, i, x) if i in config.moe_blocks else _dense(b, config, i, x)
    return Network(prefix, b.graph(task, _HEADS[config.head](b, config, x, pyramid)))


def check(config: ModelConfig) -> None:
    """Raise ConfigError, naming the setting, for a model that serves training alone."""
    if config.router == "dselect_k":
        raise ConfigError("router dselect_k is for training alone; train with noisy_vmoe or noisy to deploy a model")
    if config.gate == "conditioned":
        raise ConfigError("gate conditioned has no graph; convert the model with to_multi_gate")
    if config.has_norms:
        raise ConfigError("head_norm is on; make the batch norms part of their convolutions with without_training")


def _patches(b: _Builder, config: ModelConfig) -> str:
    names = {"patch_embed": "patch_embed.proj", "cls_token": "cls_token", "pos_embed": "pos_embed"}
    at = [_At("trunk", tensor, f"backbone.{key}") for tensor, key in names.items()]
    return b("embed", "patch_embed", IMAGE, at=at, outputs=config.dim, patch=config.patch)


def _lite0(b: _Builder, config: ModelConfig) -> tuple[str, tuple[str, ...]]:
    """Tokens, and the features at 1/4, 1/8 and 1/16. Without blocks the tokens are those at 1/16, as a map."""

    def padding(x: str, kernel: int, stride: int) -> tuple[tuple[int, int], ...]:
        return tuple(lite0.same_padding(n, kernel, stride) for n in b.shapes[x][:2])

    first = _convolution(lite0.FIRST, 3, padding(IMAGE, 3, 2), stride=(2, 2), activation="relu6")
    x, found = b("stem.first", "convolution", IMAGE, **first), []
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
        if i in lite0.TAPS:
            found.append(x)
    if config.depth:
        x = b("stem.tokens", "reshape", x, shape=(config.tokens, lite0.PYRAMID[-1]))
        x = b("embed", "linear", x, outputs=config.dim, activation="none")
        x = b("pos_embed", "positions", x)
    return x, tuple(found)


def _convolution(
    outputs: int, kernel: int = 1, padding: Any = ((0, 0), (0, 0)), *, activation: str = "none", **changes: Any
) -> dict[str, Any]:
    """The attributes of a convolution, of the usual kind but for the `changes`."""
    usual = {"outputs": outputs, "kernel": (kernel, kernel), "stride": (1, 1), "padding": padding, "groups": 1}
    return {**usual, "activation": activation, "bias": True, **changes}


def _attend(b: _Builder, config: ModelConfig, i: int, x: str) -> str:
    name, c = f"blocks.{i}", config.dim
    y = b(f"{name}.norm1", "layernorm", x, eps=config.norm_eps, skip=0)
    y = b(f"{name}.attn.qkv", "linear", y, outputs=3 * c, activation="none")
    y = b(f"{name}.attn.heads", "attention", y, heads=config.heads)
    return b(f"{name}.attn.proj", "linear", y, x, outputs=c, activation="none")


def _dense(b: _Builder, config: ModelConfig, i: int, x: str) -> str:
    name = f"blocks.{i}"
    y = b(f"{name}.norm2", "layernorm", x, eps=config.norm_eps, skip=0)
    y = b(f"{name}.mlp.fc1", "linear", y, outputs=config.mlp_hidden, activation="gelu")
    return b(f"{name}.mlp.fc2", "linear", y, x, outputs=config.dim, activation="none")


def _experts(b: _Builder, config: ModelConfig, i: int, x: str) -> str:
    """The gate's weight has a column for every expert that the model holds; the node names those of the path."""
    name, key, which = f"blocks.{i}", f"backbone.blocks.{i}.mlp", config.moe_blocks.index(i)
    held, path = config.held[which], config.path(b.task)[which]
    columns = tuple(held.index(e) for e in path)
    y = b(f"{name}.norm2", "layernorm", x, eps=config.norm_eps, skip=0)
    part, gate = (f"task.{b.task}", b.task) if config.gate == "multi" else ("trunk", "shared")
    routing = b(
        f"{name}.gate",
        "route",
        y,
        at=[_At(part, f"{name}.gate", f"{key}.gate.{gate}")],
        held=len(held),
        columns=columns,
        top_k=config.top_k,
        renormalise=config.renormalise,
        bias=config.gate_bias,
    )
    at = [_At(f"experts.{i}", str(e), f"{key}.experts", row, len(held)) for e, row in zip(path, columns, strict=True)]
    return b(f"{name}.experts", "experts", y, routing, x, at=at, experts=path, hidden=config.expert_hidden)


def _light_head(b: _Builder, config: ModelConfig, x: str, pyramid: tuple[str, ...]) -> str:
    tile = config.patch // config.head_stride
    x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=1)
    x = b("head.proj", "linear", x, outputs=tile**2 * config.head_dim, activation="gelu")
    x = b("head.tiles", "tiles", x, grid=config.grid, tile=tile)
    for i in range(2):
        x = b(f"head.step{i}", "separable_step", x, kernel=(3, 3))
    return b("head.out", "convolution", x, **_convolution(config.task(b.task).channels))


def _conv_head(b: _Builder, config: ModelConfig, x: str, pyramid: tuple[str, ...]) -> str:
    x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=1)
    x = b("head.map", "reshape", x, shape=(*config.grid, config.dim))
    step = _convolution(config.head_dim, 3, ((1, 1), (1, 1)), activation="relu")
    for i in range(4):
        x = b(f"head.double{i}", "upsample", x) if i else x
        x = b(f"head.conv_{i}", "convolution", x, **step)
    return b("head.conv_4", "convolution", x, **_convolution(config.task(b.task).channels))


def _pyramid_head(b: _Builder, config: ModelConfig, x: str, pyramid: tuple[str, ...]) -> str:
    at4, at8, at16 = pyramid
    if config.depth:
        x = b("head.norm", "layernorm", x, eps=config.norm_eps, skip=0)
        x = b("head.map", "reshape", x, shape=(*config.grid, config.dim))
        at16 = b("head.wide", "concat", at16, x)
    point = _convolution(config.head_dim)
    at4 = b("head.at4", "convolution", at4, **point)
    at8 = b("head.at8", "convolution", at8, **point)
    x = b("head.at16", "convolution", at16, **point)
    if config.rays and config.task(b.task).kind == "normals":
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
