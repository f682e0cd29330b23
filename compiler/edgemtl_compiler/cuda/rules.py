"""What to look for in an exported graph for a GPU: larger pieces than on a CPU, each a half of a block.

The patterns build on those of edgemtl_compiler/patterns.py; a rule's call names the operation that `lower` takes apart
into kernel launches.
"""

from __future__ import annotations

from edgemtl.config import ModelConfig
from edgemtl_compiler import patterns
from edgemtl_compiler.patterns import PREFIX, Custom, Field, Handle, Match, Rule, linear_pattern, op


def _weights(m: Match, *names: tuple[str, ...]) -> list[Handle]:
    return [m.weight(m.entry(*group).ref) for group in names]


def _embed(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("patch_embed", [m["x"], *_weights(m, ("w", "b"), ("cls",), ("pos",))])


def _attention(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("attention", [m["x"], *_weights(m, ("nw", "nb"), ("w", "b"), ("pw", "pb"))])


def _mlp(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("mlp", [m["x"], *_weights(m, ("nw", "nb"), ("w1", "b1"), ("w2", "b2"))])


def _experts_pattern() -> patterns.Pattern:
    """LayerNorm, the gate and the bank; tokens lie as rows within, and the residual is the norm's own input."""
    tokens = op("reshape", op("nn.layer_norm", "x", "nw", "nb"), "_1")
    routed = Custom("route", (tokens, "gate"))
    chosen = (tokens, Field(routed, 0), Field(routed, 1), op("reshape", "x", "_2"), "w1", "b1", "w2", "b2")
    return Custom("experts", chosen)


def _experts(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """The path's columns of the gate, and one parameter per expert of it, by its global id."""
    gate, part = m.entry("gate"), m.entry("w1", "b1", "w2", "b2").part
    which = config.moe_blocks.index(int(part.split(".")[1]))
    held, path = config.held[which], config.path(task)[which]
    if m.shape("gate") != (config.dim, len(path)) or m.shape("w1") != (len(path), config.expert_hidden, config.dim):
        return None
    columns = tuple(held.index(e) for e in path)
    experts = [m.weight(f"{part}:{expert}") for expert in path]
    return m.call("experts", [m["x"], *_weights(m, ("nw", "nb")), m.weight(gate.ref), columns, *experts])


def _head_pattern() -> patterns.Pattern:
    patches = op("strided_slice", "tokens", "axes", "begin", "end", "strides")
    projected = op("nn.gelu", linear_pattern(op("nn.layer_norm", patches, "nw", "nb"), "hw", "hb"))
    return patterns.head_pattern(projected)


def _head(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """The slice must be all but the class token: axis 1, from 1, step 1."""
    if any(m.ints(name) != (1,) for name in ("axes", "begin", "strides")):
        return None
    steps = [pair for i in (0, 1) for pair in ((f"dw{i}", f"db{i}"), (f"pw{i}", f"pb{i}"))]
    return m.call("head", [m["tokens"], *_weights(m, ("nw", "nb"), ("hw", "hb"), *steps, ("w", "b"))])


def _mlp_pattern() -> patterns.Pattern:
    hidden = op("nn.gelu", linear_pattern(op("nn.layer_norm", "x", "nw", "nb"), "w1", "b1"))
    return op("add", "x", linear_pattern(hidden, "w2", "b2"))


RULES = (
    Rule("patch embedding", patterns.embed_pattern(), _embed),
    Rule("attention", patterns.attention_pattern(), _attention),
    Rule("experts", _experts_pattern(), _experts),
    Rule("head", _head_pattern(), _head),
    Rule("dense MLP", _mlp_pattern(), _mlp),
)


def expected_matches(config: ModelConfig, function: str) -> dict[str, int]:
    """How often each rule must have matched in a function of a model of this shape; other rules never."""
    dense = config.depth - len(config.moe_blocks)
    if function == PREFIX:
        return {"patch embedding": 1, "attention": min(2, config.depth), "dense MLP": 1}
    sparse = len(config.moe_blocks)
    return {"attention": max(0, config.depth - 2), "experts": sparse, "head": 1, "dense MLP": dense - 1}
