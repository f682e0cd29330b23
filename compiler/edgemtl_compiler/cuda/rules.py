"""What to look for in an exported graph for a GPU: larger pieces than on a CPU, each a half of a block.

The patterns build on those of cpu/patterns.py; a rule's call names the operation that `lower` takes apart into kernel
launches.
"""

from __future__ import annotations

from edgemtl.config import ModelConfig
from edgemtl_compiler.cpu import patterns
from edgemtl_compiler.cpu.patterns import PREFIX, Custom, Field, Handle, Match, Rule, linear_pattern, op


def _weights(m: Match, *names: tuple[str, ...]) -> list[Handle]:
    return [m.weight(m.entry(*group).ref) for group in names]


def _embed(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("patch_embed", [m["x"], *_weights(m, ("w", "b"), ("cls",), ("pos",))])


def _attention(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("attention", [m["x"], *_weights(m, ("nw", "nb"), ("w", "b"), ("pw", "pb"))])


def _mlp(m: Match, config: ModelConfig, task: str) -> Handle:
    return m.call("mlp", [m["x"], *_weights(m, ("nw", "nb"), ("w1", "b1"), ("w2", "b2"))])


def _experts_pattern(*biased: str) -> patterns.Pattern:
    """LayerNorm, the gate and the bank; tokens lie as rows within, and the residual is the norm's own input."""
    tokens = op("reshape", op("nn.layer_norm", "x", "nw", "nb"), "_1")
    routed = Custom("route_biased" if biased else "route", (tokens, "gate", *biased))
    chosen = (tokens, Field(routed, 0), Field(routed, 1), op("reshape", "x", "_2"), "w1", "b1", "w2", "b2")
    return Custom("experts", chosen)


def _experts(m: Match, config: ModelConfig, task: str) -> Handle | None:
    """The path's columns of the gate (its bias is packed with it), and one parameter per expert, by its global id."""
    gate = m.entry(*(("gate", "bias") if config.gate_bias else ("gate",)))
    part = m.entry("w1", "b1", "w2", "b2").part
    which = config.moe_blocks.index(int(part.split(".")[1]))
    held, path = config.held[which], config.path(task)[which]
    if m.shape("gate") != (config.dim, len(path)) or m.shape("w1") != (len(path), config.expert_hidden, config.dim):
        return None
    columns = tuple(held.index(e) for e in path)
    experts = [m.weight(f"{part}:{expert}") for expert in path]
    return m.call("experts", [m["x"], *_weights(m, ("nw", "nb")), m.weight(gate.ref), len(held), columns, *experts])


_PATCHES = op("nn.layer_norm", op("strided_slice", "tokens", "axes", "begin", "end", "strides"), "nw", "nb")


def _head_pattern() -> patterns.Pattern:
    return patterns.head_pattern(op("nn.gelu", linear_pattern(_PATCHES, "hw", "hb")))


def _whole_head(kernel: str, *layers: tuple[str, ...]) -> patterns.Emit:
    """A head with these layers between its norm and its last step. What it slices must be all but the class token:
    axis 1, from 1, step 1.
    """

    def emit(m: Match, config: ModelConfig, task: str) -> Handle | None:
        if any(m.ints(name) != (1,) for name in ("axes", "begin", "strides")):
            return None
        return m.call(kernel, [m["tokens"], *_weights(m, ("nw", "nb"), *layers, ("w", "b"))])

    return emit


_STEPS = [pair for i in (0, 1) for pair in ((f"dw{i}", f"db{i}"), (f"pw{i}", f"pb{i}"))]
_head = _whole_head("head", ("hw", "hb"), *_STEPS)
_conv_head = _whole_head("conv_head", *((f"w{i}", f"b{i}") for i in range(4)))


def _mlp_pattern() -> patterns.Pattern:
    hidden = op("nn.gelu", linear_pattern(op("nn.layer_norm", "x", "nw", "nb"), "w1", "b1"))
    return op("add", "x", linear_pattern(hidden, "w2", "b2"))


RULES = (
    Rule("patch embedding", patterns.embed_pattern(), _embed),
    Rule("attention", patterns.attention_pattern(), _attention),
    Rule("experts", _experts_pattern(), _experts),
    Rule("experts with biased gate", _experts_pattern("bias"), _experts),
    Rule("head", _head_pattern(), _head),
    Rule("conv head", patterns.conv_head_pattern(_PATCHES), _conv_head),
    Rule("dense MLP", _mlp_pattern(), _mlp),
)


def expected_matches(config: ModelConfig, function: str) -> dict[str, int]:
    """How often each rule must have matched in a function of a model of this shape; other rules never."""
    dense = config.depth - len(config.moe_blocks)
    if function == PREFIX:
        return {"patch embedding": 1, "attention": min(2, config.depth), "dense MLP": 1}
    experts = "experts with biased gate" if config.gate_bias else "experts"
    return {
        "attention": max(0, config.depth - 2),
        experts: len(config.moe_blocks),
        "head" if config.head == "light" else "conv head": 1,
        "dense MLP": dense - 1,
    }
