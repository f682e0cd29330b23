"""On-chip memory map: every array of hls/src with the blocks it takes, by the blocks' geometry.

An UltraScale+ BRAM36 is 512 x 72, 1K x 36, 2K x 18 or 4K x 9 bits with a port to read and one to write, its half
(BRAM18) half of each width; a URAM288 is 4K x 72 (AMD UG573). A partitioned array is `copies` memories.
"""

from __future__ import annotations

from typing import Literal

from edgemtl.fpga import contract
from edgemtl.fpga.board import Memories
from edgemtl.graph.integer.gelu import ENTRIES
from edgemtl_compiler.fpga.estimate.cycles import Lanes
from edgemtl_compiler.fpga.estimate.schema import Memory

Kind = Literal["BRAM36", "URAM288", "LUTRAM"]
BRAM18 = ((512, 36), (1024, 18), (2048, 9))
BRAM36 = ((512, 72), (1024, 36), (2048, 18), (4096, 9))
WORD = 128  # bits: 16 INT8 values


def bram36(depth: int, width: int) -> float:
    """Least number of BRAM36, in halves, for `depth` words of `width` bits."""
    whole = min(-(-depth // d) * -(-width // w) for d, w in BRAM36)
    half = min(-(-depth // d) * -(-width // w) for d, w in BRAM18)
    return min(float(whole), half / 2)


def uram288(depth: int, width: int) -> int:
    """Number of URAM288 for `depth` words of `width` bits."""
    return -(-depth // 4096) * -(-width // 72)


def memory(name: str, kind: Kind, copies: int, depth: int, width: int) -> Memory:
    """LUTRAM counts LUTs: one holds 64 bits one wide, or 32 two wide."""
    if kind == "BRAM36":
        each = bram36(depth, width)
    elif kind == "URAM288":
        each = float(uram288(depth, width))
    else:
        each = float(-(-depth // 64) * width if depth > 32 else -(-width // 2))
    return Memory(name=name, kind=kind, copies=copies, depth=depth, width=width, blocks=copies * each)


def memory_map(lanes: Lanes, kinds: Memories) -> tuple[Memory, ...]:
    """All arrays at the compiled maxima; those that parallelism partitions follow `lanes`. `kinds` are the board's."""
    tokens, heads, experts = contract.MAX_TOKENS, contract.MAX_HEADS, contract.MAX_EXPERTS
    banks = contract.LANES_ROW
    records = 1 + contract.MAX_TASKS + contract.MAX_OPS
    blocks, subs = contract.TILE_BLOCKS, 32
    return (
        memory("stream", kinds.stream, 1, contract.MAX_STREAM // 16, 256),
        memory("pool", kinds.pool, banks, contract.POOL_WORDS, WORD),
        memory("rows", kinds.rows, banks, contract.ROW_WORDS, WORD),
        memory("weight tiles", "BRAM36", 2 * lanes.inputs, blocks, 8 * lanes.outputs),
        memory("attention: scores", "BRAM36", lanes.query, tokens * heads, 32),
        memory("gate: logits", "BRAM36", 1, tokens, 32 * experts),
        memory("queues: tokens", "BRAM36", 1, experts * tokens, 16),
        memory("queues: scores", "BRAM36", 1, experts * tokens, 16),
        memory("GELU tables of the linear unit", "BRAM36", lanes.outputs, ENTRIES, 16),
        memory("GELU tables of the depthwise unit", "BRAM36", 2, ENTRIES, 16),
        memory("descriptors", "BRAM36", 1, 4 * records, 128),
        memory("checked descriptors", "BRAM36", 1, contract.MAX_OPS, 160),
        memory("port buffers", "BRAM36", 5, 256, 128),
        memory("biases and factors of the tiles", "LUTRAM", 2, subs, 57 * lanes.outputs),
        memory("attention: sums of values", "LUTRAM", lanes.query, heads, 64 * contract.MAX_HEAD_WIDTH),
        memory("attention: queries", "LUTRAM", lanes.query, heads, 8 * contract.MAX_HEAD_WIDTH),
        memory("attention: queries that leave", "LUTRAM", 1, lanes.query * heads, 64 * contract.MAX_HEAD_WIDTH + 48),
        memory("LayerNorm: gamma and beta", "LUTRAM", 2 * lanes.norm, contract.MAX_DIM // lanes.norm, 32),
    )
