"""Cycles of the units, from trip counts: trip x II + depth, as the loops of hls/src are written.

A pipelined loop of `trip` iterations takes (trip - 1) * II + iteration latency - 1 cycles in the reports of Vitis HLS
(checked in the tests against eight published ones). The depths below are of the arithmetic chains at 300 MHz: a
multiplication 3, an addition or a memory 1 to 2 each; a divider its quotient's bits.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.fpga import contract


@dataclass(frozen=True)
class Lanes:
    """Compile-time parallelism: the constants of edgemtl.fpga.contract."""

    row: int = contract.LANES_ROW
    inputs: int = contract.LANES
    outputs: int = contract.LANES
    query: int = contract.LANES_QUERY
    tile: int = contract.TILE_OUT  # output channels per weight tile, but for an expert's
    norm: int = contract.LANES  # values per cycle of LayerNorm

    @property
    def macs(self) -> int:
        """INT8 products per cycle of the linear unit."""
        return self.row * self.inputs * self.outputs


LINEAR_DEPTH = 24  # read 3, product and tree 9, scale 5, GELU or score 5, write 2
ATTENTION_DEPTH = 32  # read 4, product and tree 11, difference and scale 6, power 3, weigh 4, add and write 4
LEAVE_DEPTH = 60  # reciprocal 43, two scales 12, write
NORM_DEPTH = 130  # sums 8, root 31, reciprocal 62, two products 14, narrow, write
GATE_DEPTH = 75  # power 8, sum 5, reciprocal 43, score 6
CALL = 4  # start and end of a function's state machine
DDR_LATENCY = 60  # cycles from an address on an HP port to its data, about 200 ns


def loop(trip: int, interval: int, iteration_latency: int) -> int:
    """Latency of a pipelined loop."""
    return (trip - 1) * interval + iteration_latency - 1 if trip > 0 else 0


def groups(rows: int, lanes: Lanes) -> int:
    """Row groups that pass the multipliers; the last one may be partly padding."""
    return -(-rows // lanes.row)


def steps(inputs: int, lanes: Lanes) -> int:
    """Cycles per row group and 16 channels: the product's, or the epilogue's one row per cycle if that is more."""
    return max(-(-inputs // lanes.inputs), lanes.row)


def linear_cycles(rows: int, inputs: int, outputs: int, lanes: Lanes | None = None) -> int:
    """The linear unit over one product with weights from a port that never waits: the first tile of 16 channels is
    loaded, then the greater of load and compute per tile, then the last group leaves."""
    lanes = lanes or Lanes()
    load = 2 + inputs // 4
    tiles = -(-outputs // lanes.outputs)
    return load + tiles * max(load, groups(rows, lanes) * steps(inputs, lanes)) + LINEAR_DEPTH


def tile_cycles(rows: int, inputs: int, channels: int, lanes: Lanes, least: int = 0) -> int:
    """One call of compute_tile: all row groups per 16 channels, and one group's steps more until the pipeline is empty.

    `least` steps per group where the epilogue needs more than a row per cycle.
    """
    per_group = max(steps(inputs, lanes), least)
    trip = (-(-channels // lanes.outputs) * groups(rows, lanes) + 1) * per_group
    return loop(trip, 1, LINEAR_DEPTH + 1) + CALL


def attention_cycles(tokens: int, heads: int, width: int, lanes: Lanes | None = None) -> int:
    """All heads of one layer, II = 1 per key and head; `width` (at most 64) costs no time.

    Every block of queries sees all keys once; the last block's second pass follows, and p keys more until its last slot
    has seen them all. The last queries' values leave LANES_LEAVE at a time.
    """
    lanes = lanes or Lanes()
    p = lanes.query
    blocks = -(-tokens // p) + 1
    trip = (blocks * tokens + min(p, tokens)) * heads
    leave = (
        min(p, tokens) * heads * -(-width // contract.LANES_LEAVE)
    )  # of one block; slower than a pass when keys are few
    wait = max(0, leave - tokens * heads) * (blocks - 2)
    return loop(trip, 1, ATTENTION_DEPTH + 1) + wait + leave + LEAVE_DEPTH + CALL


def norm_cycles(rows: int, dim: int, lanes: Lanes | None = None) -> int:
    """LayerNorm: sums of one row beside the normalising of the row before."""
    lanes = lanes or Lanes()
    return loop((rows + 1) * -(-dim // lanes.norm), 1, NORM_DEPTH + 1) + CALL


def gate_cycles(tokens: int) -> int:
    """Top-k, scores and queues, II = 16 per token; the logits before are a product of the linear unit."""
    return loop(tokens, contract.MAX_EXPERTS, GATE_DEPTH + 1) + CALL


def narrow_cycles(pixels: int) -> int:
    """16 channels of every pixel, one pixel per cycle."""
    return loop(pixels, 1, 16) + CALL


def patch_cycles(height: int, width: int) -> int:
    """Pixels through one 128-bit port."""
    return loop(height * width * 3 // 16, 1, 6) + DDR_LATENCY + CALL


def position_cycles(tokens: int, dim: int) -> int:
    """The position table, 32 values per cycle at best, the stream's memory taking 16."""
    return loop(-(-tokens * dim // contract.LANES), 1, 6) + DDR_LATENCY + CALL
