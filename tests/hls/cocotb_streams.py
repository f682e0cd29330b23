"""The linear unit's streams under cocotb (run by test_rtl_protocol.py inside the simulator): a result that waits holds
still, nothing is lost or given twice, and a reset in the middle of a job leaves nothing behind.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from edgemtl_compiler.hls import image
from edgemtl_compiler.hls.network import Linear
from edgemtl_compiler.hls.reference import Units, fixed_point

ROWS, K, N = 5, 32, 32
LANES = int(os.environ["EDGEMTL_LANES_ROW"])


def product(seed: int) -> tuple[Any, Linear]:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (N, K)).astype(np.int8)
    u = Linear(weight, rng.integers(-999, 999, N).astype(np.int32), *fixed_point(np.full(N, 2.0**-9)))
    return rng.integers(-128, 128, (ROWS, K)).astype(np.int8), u


def numbers(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def row_beats(x: Any) -> list[int]:
    """16 inputs of LANES rows per beat, once per tile."""
    groups = -(-ROWS // LANES)
    padded = np.zeros((groups * LANES, K), np.int8)
    padded[:ROWS] = x
    beats = padded.reshape(groups, LANES, K // 16, 16).swapaxes(1, 2).tobytes()
    return numbers(beats, LANES * 16) * (N // 16)


async def source(dut: Any, name: str, values: list[int], wait: Callable[[], bool]) -> None:
    """Offers the values one by one; what was offered stays until it is taken."""
    valid, ready, data = (getattr(dut, f"{name}_{part}") for part in ("valid", "ready", "data"))
    for value in values:
        while wait():
            await FallingEdge(dut.clk)
        valid.value, data.value = 1, value
        taken = False
        while not taken:
            await ReadOnly()
            taken = bool(ready.value)
            await FallingEdge(dut.clk)
            if not taken:
                continue
        valid.value = 0


async def sink(dut: Any, count: int, wait: Callable[[], bool]) -> list[int]:
    """Takes `count` results and checks that each holds still until it is taken."""
    results: list[int] = []
    waiting: int | None = None
    for _ in range(20_000):
        dut.out_ready.value = int(not wait())
        await ReadOnly()
        shown = int(dut.out_data.value) if dut.out_valid.value else None
        if waiting is not None:
            assert shown == waiting, "a result that waited has changed or gone"
        waiting = None
        if shown is not None:
            if dut.out_ready.value:
                results.append(shown)
            else:
                waiting = shown
        await FallingEdge(dut.clk)
        if len(results) == count:
            break
    dut.out_ready.value = 1
    for _ in range(40):
        await ReadOnly()
        assert not dut.out_valid.value, "a result too many"
        await FallingEdge(dut.clk)
    return results


async def start(dut: Any) -> None:
    """Clock, idle streams, reset."""
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    await reset(dut)


async def reset(dut: Any) -> None:
    await FallingEdge(dut.clk)
    for name in ("job", "weight", "row", "stream"):
        getattr(dut, f"{name}_valid").value = 0
    dut.out_ready.value = 0
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


async def run(dut: Any, seed: int, gap: float, stall: float, count: int = ROWS * N // 16) -> list[int]:
    """Drives a job and takes `count` of its results."""
    draw = random.Random(seed)
    x, u = product(seed)
    dut.job_rows.value, dut.job_words.value, dut.job_tiles.value, dut.job_epilogue.value = ROWS, K // 16, N // 16, 0
    feeds = [
        cocotb.start_soon(source(dut, "weight", numbers(image.linear(u), 64), lambda: draw.random() < gap)),
        cocotb.start_soon(source(dut, "row", row_beats(x), lambda: draw.random() < gap)),
    ]
    dut.job_valid.value = 1
    await FallingEdge(dut.clk)
    dut.job_valid.value = 0
    if count < ROWS * N // 16:
        taken = 0
        dut.out_ready.value = 1
        while taken < count:
            await ReadOnly()
            taken += bool(dut.out_valid.value)
            await FallingEdge(dut.clk)
        for feed in feeds:
            feed.kill()
        return []
    results = await sink(dut, count, lambda: draw.random() < stall)
    assert all(feed.done() for feed in feeds), "input was left"
    return results


def want(seed: int) -> list[int]:
    x, u = product(seed)
    tiles = Units().to_int8(x, u).reshape(ROWS, N // 16, 16).swapaxes(0, 1)
    return numbers(tiles.astype("<i4").tobytes(), 64)


@cocotb.test()
async def holds_and_loses_nothing(dut: Any) -> None:
    await start(dut)
    for seed, (gap, stall) in enumerate([(0, 0), (0.5, 0), (0, 0.8), (0.4, 0.6)]):
        assert await run(dut, seed, gap, stall) == want(seed), f"gaps {gap}, stalls {stall}"


@cocotb.test()
async def forgets_at_reset(dut: Any) -> None:
    await start(dut)
    for seed in range(3):
        await run(dut, seed, 0.2, 0, count=1 + 2 * seed)
        await reset(dut)
        assert await run(dut, 10 + seed, 0.1, 0.1) == want(10 + seed)
