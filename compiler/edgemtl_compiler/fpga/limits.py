"""The accelerator's compiled maxima, as hls/include/limits.h has them (a test compares the two), and their check."""

from __future__ import annotations

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError

MAX_TOKENS = 1025
MAX_DIM = 384
MAX_HIDDEN = 1536
MAX_HEADS = 8
MAX_HEAD_WIDTH = 64
MAX_BLOCKS = 32
MAX_EXPERTS = 16
MAX_TOP_K = 4
MAX_TASKS = 8
MAX_CHANNELS = 256
MAX_STREAM = 524_288
MAX_TILE = 16
PATCH = 16
LANES = 16
LANES_ROW = 8  # rows of the linear unit, and banks of the memories of rows
LANES_QUERY = 4
TILE_OUT = 64  # output channels of a weight tile, but for an expert's
TILE_BLOCKS = 384  # of 16 x 16 weights in a tile's buffer
ROW_WORDS = 2048  # of 16 bytes per bank
POOL_WORDS = 8192


def check(config: ModelConfig, *, host_heads: bool = False) -> None:
    """Raises CompileError naming the first dimension that the accelerator cannot hold, with its value and limit.

    Heads that run on the host (`host_heads`) are not looked at.
    """
    _check_form(config, host_heads)
    tile = config.patch // config.head_stride
    pixels = (config.tokens - 1) * tile * tile
    held = max((len(ids) for ids in config.held), default=0)
    limits = [
        ("tokens", config.tokens, MAX_TOKENS),
        ("dim", config.dim, MAX_DIM),
        ("hidden width of the MLP", config.mlp_hidden, MAX_HIDDEN),
        ("hidden width of an expert", config.expert_hidden, MAX_HIDDEN),
        ("attention heads", config.heads, MAX_HEADS),
        ("width of an attention head", config.dim // config.heads, MAX_HEAD_WIDTH),
        ("blocks", config.depth, MAX_BLOCKS),
        ("experts", held, MAX_EXPERTS),
        ("top_k", config.top_k, MAX_TOP_K),
        ("tasks", len(config.tasks), MAX_TASKS),
    ]
    head_limits = [
        ("outputs of the head's projection", tile * tile * config.head_dim, MAX_HIDDEN),
        ("width of the light head", config.head_dim, MAX_DIM),
        ("values in the head's stream", pixels * config.head_dim, MAX_STREAM),
        ("channels of a raw map", max(t.channels for t in config.tasks), MAX_CHANNELS),
    ]
    for what, value, most in limits if host_heads else limits + head_limits:
        if value > most:
            raise CompileError(f"the accelerator is compiled for {most} {what} at most; this model has {value}")
    if config.patch != PATCH:
        raise CompileError(f"the accelerator reads patches of {PATCH} pixels; this model's have {config.patch}")
    groups = -(-config.tokens // LANES_ROW)
    hidden = max(config.mlp_hidden, config.dim + config.expert_hidden if config.moe_blocks else 0)
    rows, pool = LANES_ROW * LANES * ROW_WORDS, LANES_ROW * LANES * POOL_WORDS
    for what, value, most in (
        ("normalised rows", groups * LANES_ROW * config.dim, rows),
        ("query, key and value", groups * LANES_ROW * 3 * config.dim, pool),
        ("the hidden rows", groups * LANES_ROW * hidden, pool),
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
        if value % LANES:
            raise CompileError(f"the accelerator computes {LANES} lanes at a time; the {what}, {value}, is no multiple")


def _check_form(config: ModelConfig, host_heads: bool) -> None:
    if config.stem != "patch":
        raise CompileError(
            f"the accelerator embeds patches, and this model has stem {config.stem}: compile it with --target torch"
        )
    if config.head != "light" and not host_heads:
        raise CompileError(
            f"the accelerator has the light head alone, and this model's is {config.head}: measure its backbone with"
            " `edgemtl quantise --host-heads` or `edgemtl estimate --scope backbone`"
        )
    if config.gate == "conditioned" or config.gate_bias:
        raise CompileError(
            "the accelerator's gate adds no bias, which a task-conditioned gate needs: use --target onnx"
        )
    if config.router == "dselect_k":
        raise CompileError("the accelerator has no gate of router dselect_k: train with router noisy_vmoe")
