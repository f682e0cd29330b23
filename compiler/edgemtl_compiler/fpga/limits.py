"""Whether a model fits the accelerator's compiled maxima (edgemtl.fpga.contract)."""

from __future__ import annotations

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.fpga import contract


def check(config: ModelConfig, *, host_heads: bool = False) -> None:
    """Raises CompileError naming the first dimension that the accelerator cannot hold, with its value and limit.

    Heads that run on the host (`host_heads`) are not looked at.
    """
    tile = config.patch // config.head_stride
    pixels = (config.tokens - 1) * tile * tile
    held = max((len(ids) for ids in config.held), default=0)
    limits = [
        ("tokens", config.tokens, contract.MAX_TOKENS),
        ("dim", config.dim, contract.MAX_DIM),
        ("hidden width of the MLP", config.mlp_hidden, contract.MAX_HIDDEN),
        ("hidden width of an expert", config.expert_hidden, contract.MAX_HIDDEN),
        ("attention heads", config.heads, contract.MAX_HEADS),
        ("width of an attention head", config.dim // config.heads, contract.MAX_HEAD_WIDTH),
        ("blocks", config.depth, contract.MAX_BLOCKS),
        ("experts", held, contract.MAX_EXPERTS),
        ("top_k", config.top_k, contract.MAX_TOP_K),
        ("tasks", len(config.tasks), contract.MAX_TASKS),
    ]
    head_limits = [
        ("outputs of the head's projection", tile * tile * config.head_dim, contract.MAX_HIDDEN),
        ("width of the light head", config.head_dim, contract.MAX_DIM),
        ("values in the head's stream", pixels * config.head_dim, contract.MAX_STREAM),
        ("channels of a raw map", max(t.channels for t in config.tasks), contract.MAX_CHANNELS),
    ]
    for what, value, most in limits if host_heads else limits + head_limits:
        if value > most:
            raise CompileError(f"the accelerator is compiled for {most} {what} at most; this model has {value}")
    if config.patch != contract.PATCH:
        raise CompileError(
            f"the accelerator reads patches of {contract.PATCH} pixels; this model's have {config.patch}"
        )
    groups = -(-config.tokens // contract.LANES_ROW)
    hidden = max(config.mlp_hidden, config.dim + config.expert_hidden if config.moe_blocks else 0)
    rows, pool = (
        contract.LANES_ROW * contract.LANES * contract.ROW_WORDS,
        contract.LANES_ROW * contract.LANES * contract.POOL_WORDS,
    )
    for what, value, most in (
        ("normalised rows", groups * contract.LANES_ROW * config.dim, rows),
        ("query, key and value", groups * contract.LANES_ROW * 3 * config.dim, pool),
        ("the hidden rows", groups * contract.LANES_ROW * hidden, pool),
    ):
        if value > most:
            raise CompileError(
                f"the accelerator's memory for {what} holds {most} bytes; {config.tokens} tokens of this model need "
                f"{value}: use smaller images or a narrower model"
            )
    tile = config.patch // config.head_stride
    if tile & (tile - 1):
        raise CompileError(f"the accelerator needs a head_stride that is a power of two; given {config.head_stride}")
    whole = [
        ("dim", config.dim),
        ("width of an attention head", config.dim // config.heads),
        ("hidden width of the MLP", config.mlp_hidden),
        ("hidden width of an expert", config.expert_hidden),
    ]
    for what, value in whole if host_heads else [*whole, ("width of the light head", config.head_dim)]:
        if value % contract.LANES:
            raise CompileError(
                f"the accelerator computes {contract.LANES} lanes at a time; the {what}, {value}, is no multiple"
            )
