"""What to look for in an exported graph and which kernel takes its place: the rewrite rules, free of TVM.

A pattern is a name (any value; the same one wherever the name recurs) or an operator over patterns. A rule's `emit`
gets the match and returns the kernel call, or None to leave that place alone. Kernels are those of kernels/exports.cc;
weights are named by the entries of edgemtl/bundle/layout.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from edgemtl.bundle.layout import Entry, entries
from edgemtl.config import ModelConfig

PREFIX = "prefix"  # the function that all tasks share; every other function is called by its task's name

Handle = Any  # a value of the graph; only the adapter looks into it


@dataclass(frozen=True, eq=False)
class Op:
    """A call of Relax's operator `name`."""

    name: str
    args: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False)
class Custom:
    """A call of one of this package's own PyTorch operators (edgemtl/model/moe.py)."""

    name: str
    args: tuple[Pattern, ...]


@dataclass(frozen=True, eq=False)
class Field:
    """One part of a value that has several."""

    of: Pattern
    index: int


@dataclass(frozen=True, eq=False)
class Group:
    """Several values as one."""

    parts: tuple[Pattern, ...]


Pattern = str | Op | Custom | Field | Group


class Match(Protocol):
    """One place where a pattern was found."""

    def __getitem__(self, name: str) -> Handle: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def ints(self, name: str) -> tuple[int, ...]:
        """The values of a constant argument."""

    def entry(self, *names: str) -> Entry:
        """The weight tensor that these parameters of the graph are packed into. Raises CompileError."""

    def weight(self, ref: str) -> Handle:
        """The packed weight called `ref`, which becomes a parameter of the program."""

    def kernel(self, name: str, ref: str) -> str:
        """The kernel `name` in the form for the precision that the weight called `ref` has in the bundle."""

    def call(self, kernel: str, args: Iterable[Handle | float | tuple[int, ...]], *shape: int) -> Handle:
        """A call of `kernel`, whose output is like the matched place's, or has the given shape."""


Emit = Callable[[Match, ModelConfig, str], Handle | None]


@dataclass(frozen=True)
class Rule:
    name: str
    pattern: Pattern
    emit: Emit


def op(name: str, *args: Pattern) -> Op:
    return Op(f"relax.{name}", args)


def linear_pattern(x: Pattern, w: str = "w", b: str = "b") -> Op:
    return op("add", op("matmul", x, op("permute_dims", w)), b)


def _conv(x: Pattern, w: str, b: str) -> Op:
    return op("add", op("nn.conv2d", x, w), op("reshape", b, f"_{b}"))


def _simple(kernel: str, *more: str) -> Emit:
    """The kernel over x, the packed weight, and `more` of the match's values."""

    def emit(m: Match, config: ModelConfig, task: str) -> Handle:
        ref = m.entry("w", "b").ref
        return m.call(m.kernel(kernel, ref), [m["x"], m.weight(ref), *(m[name] for name in more)])

    return emit


def _mlp(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """Only where both layers are INT8: then what lies between them never becomes float."""
    refs = [m.entry(f"w{i}", f"b{i}").ref for i in (1, 2)]
    if any(m.kernel("mlp", ref) == "mlp" for ref in refs):
        return None
    weights = [m.weight(ref) for ref in refs]
    return m.call(m.kernel("mlp", refs[0]), [m["x"], *weights, m["residual"], config.mlp_hidden])


def embed_pattern() -> Pattern:
    patches = op("permute_dims", op("reshape", _conv("x", "w", "b"), "_1"))
    return op("add", op("concat", Group((op("broadcast_to", "cls", "_2"), patches))), "pos")


def _embed(m: Match, config: ModelConfig, task: str) -> Handle:
    refs = [m.entry(*names).ref for names in (("w", "b"), ("cls",), ("pos",))]
    return m.call(m.kernel("patch_embed", refs[0]), [m["x"], *(m.weight(ref) for ref in refs), config.patch])


def attention_pattern() -> Pattern:
    normed = op("nn.layer_norm", "x", "nw", "nb")
    parts = op("split", op("permute_dims", op("reshape", linear_pattern(normed), "_1")))
    q, k, v = (op("permute_dims", op("squeeze", Field(parts, i))) for i in range(3))
    heads = op("permute_dims", op("permute_dims", op("nn.attention", q, k, v)))
    return op("add", "x", linear_pattern(op("reshape", heads, "_2"), "pw", "pb"))


def _attention(m: Match, config: ModelConfig, task: str) -> Handle:
    """A block's first half. The products are INT8 where qkv is; between two INT8 kernels lie codes."""
    norm, qkv, proj = (m.entry(*names).ref for names in (("nw", "nb"), ("w", "b"), ("pw", "pb")))
    x, shape = m["x"], m.shape("x")
    wide = (*shape[:-1], 3 * config.dim)
    if m.kernel("linear", qkv) == "linear":
        normed = m.call("layernorm", [x, m.weight(norm), config.norm_eps], *shape)
        projected = m.call("linear", [normed, m.weight(qkv)], *wide)
    else:
        projected = m.call("norm_linear_i8", [x, m.weight(norm), config.norm_eps, m.weight(qkv)], *wide)
        if m.kernel("linear", proj) != "linear":
            return m.call("attention_linear_i8", [projected, config.heads, m.weight(proj), x])
    heads = m.call(m.kernel("attention", qkv), [projected, config.heads], *shape)
    return m.call(m.kernel("linear_residual", proj), [heads, m.weight(proj), x])


def head_pattern(projected: Pattern = "x") -> Pattern:
    tiles = op("permute_dims", op("reshape", projected, "_1"))
    x: Pattern = op("permute_dims", op("reshape", tiles, "_2"))
    for i in (0, 1):
        x = op("add", x, _conv(op("nn.gelu", _conv(x, f"dw{i}", f"db{i}")), f"pw{i}", f"pb{i}"))
    return _conv(x, "w", "b")


def _head(m: Match, config: ModelConfig, task: str) -> Handle:
    """The map stays as the projection left it, one tile of pixels per token, until the last kernel writes it out."""
    tiles = (*config.grid, config.patch // config.head_stride, config.head_dim)
    x = m["x"]
    for i in (0, 1):
        taps, mix = (m.weight(m.entry(f"{kind}w{i}", f"{kind}b{i}").ref) for kind in "dp")
        x = m.call("separable_step", [x, taps, mix, tiles], *m.shape("x"))
    return m.call("to_map", [x, m.weight(m.entry("w", "b").ref), tiles])


def conv_head_pattern(tokens: Pattern = "x") -> Pattern:
    """Tokens without the class token to a map: convolution and ReLU, doubled but for the last, and a 1x1 step."""
    x: Pattern = op("reshape", op("permute_dims", tokens), "_1")
    for i in range(4):
        x = op("nn.relu", _conv(op("image.resize2d", x, f"_size{i}") if i else x, f"w{i}", f"b{i}"))
    return _conv(x, "w", "b")


def _conv_head(m: Match, config: ModelConfig, task: str) -> Handle:
    """Maps have their pixels as rows; a doubling is part of the convolution after it."""
    (high, wide), x = config.grid, m["x"]
    for i in range(4):
        weight = m.weight(m.entry(f"w{i}", f"b{i}").ref)
        if i:
            high, wide = 2 * high, 2 * wide
        x = m.call("conv_relu", [x, weight, (high, wide), int(i > 0)], high * wide, config.head_dim)
    return m.call("to_map", [x, m.weight(m.entry("w", "b").ref), (high, wide, 1, config.head_dim)])


def _norm(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("layernorm", [m["x"], m.weight(m.entry("w", "b").ref), config.norm_eps])


def _norm_of_patches(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """The kernel leaves out leading rows, so the slice must be all but the class token: axis 1, from 1, step 1."""
    wanted = all(m.ints(name) == (1,) for name in ("axes", "begin", "strides"))
    return _norm(m, config, task) if wanted else None


def _route(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """The bundle's gate has a column for every expert that the whole model holds; only the path's count. A bias is
    packed with it.
    """
    gate = m.entry(*(("gate", "bias") if config.gate_bias else ("gate",)))
    which = config.moe_blocks.index(int(gate.tensor.split(".")[1]))
    held, path = config.held[which], config.path(task)[which]
    if m.shape("gate") != (config.dim, len(path)):
        return None
    columns = tuple(held.index(e) for e in path)
    return m.call("route", [m["x"], m.weight(gate.ref), len(held), columns, int(config.renormalise)])


def _experts(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """One parameter per expert of the task's path, by its global id."""
    part = m.entry("w1", "b1", "w2", "b2").part
    path = config.path(task)[config.moe_blocks.index(int(part.split(".")[1]))]
    if m.shape("w1") != (len(path), config.expert_hidden, config.dim):
        return None
    weights = [m.weight(f"{part}:{expert}") for expert in path]
    kernel = m.kernel("experts", f"{part}:{path[0]}")
    return m.call(kernel, [m["x"], m["index"], m["score"], m["residual"], config.expert_hidden, *weights])


_BANK = ("x", "index", "score", "residual", "w1", "b1", "w2", "b2")
_PATCHES = op("strided_slice", "x", "axes", "begin", "end", "strides")

# In this order: a rule relies on those before it having taken their places.
RULES = (
    Rule("patch embedding", embed_pattern(), _embed),
    Rule("attention", attention_pattern(), _attention),
    Rule("gate", Custom("route", ("x", "gate")), _route),
    Rule("gate with bias", Custom("route_biased", ("x", "gate", "bias")), _route),
    Rule("expert bank", Custom("experts", _BANK), _experts),
    Rule("head", head_pattern(), _head),
    Rule("conv head", conv_head_pattern(), _conv_head),
    Rule(
        "dense MLP",
        op("add", "residual", linear_pattern(op("nn.gelu", linear_pattern("x", "w1", "b1")), "w2", "b2")),
        _mlp,
    ),
    Rule("linear with GELU", op("nn.gelu", linear_pattern("x")), _simple("linear_gelu")),
    Rule("linear with residual", op("add", "residual", linear_pattern("x")), _simple("linear_residual", "residual")),
    Rule("linear", linear_pattern("x"), _simple("linear")),
    Rule("head normalisation", op("nn.layer_norm", _PATCHES, "w", "b"), _norm_of_patches),
    Rule("normalisation", op("nn.layer_norm", "x", "w", "b"), _norm),
)


def expected_matches(config: ModelConfig, function: str, int8: Collection[str] = ()) -> dict[str, int]:
    """How often each rule must have matched in a function of a model of this shape; other rules never.

    `int8`: references of the weights that the bundle holds in INT8.
    """
    own = range(1) if function == PREFIX else range(1, config.depth)
    dense = [i for i in own if i not in config.moe_blocks]
    whole = sum(all(f"trunk:blocks.{i}.mlp.fc{n}" in int8 for n in (1, 2)) for i in dense)  # as one kernel
    if function == PREFIX:
        attended = min(2, config.depth)
        return {
            "patch embedding": 1,
            "attention": attended,
            "linear with residual": len(dense) - whole,
            "dense MLP": whole,
            "linear with GELU": len(dense) - whole,
            "normalisation": len(dense),
        }
    attended, sparse, light = max(0, config.depth - 2), len(config.moe_blocks), config.head == "light"
    return {
        "attention": attended,
        "linear with residual": len(dense) - whole,
        "dense MLP": whole,
        "linear with GELU": len(dense) - whole + light,
        "normalisation": len(dense) + sparse,
        "gate with bias" if config.gate_bias else "gate": sparse,
        "expert bank": sparse,
        "head" if light else "conv head": 1,
        "head normalisation": 1,
    }


def expected_params(config: ModelConfig, function: str) -> tuple[str, ...]:
    """References of all the weights that a function must take, in the order of its parameters."""
    embedding = ("patch_embed", "cls_token", "pos_embed", "blocks.0.", "blocks.1.norm1", "blocks.1.attn.")
    refs = []
    for entry in entries(config):
        if entry.part == "trunk":
            wanted = entry.tensor.startswith(embedding) == (function == PREFIX)
        elif entry.kind == "expert" and function != PREFIX:
            block = int(entry.part.split(".")[1])
            wanted = int(entry.tensor) in config.path(function)[config.moe_blocks.index(block)]
        else:
            wanted = entry.part == f"task.{function}"
        if wanted:
            refs.append(entry.ref)
    return tuple(refs)
