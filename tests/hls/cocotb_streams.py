"""The streams of both units under cocotb (run by test_rtl_protocol.py inside the simulator): a result that waits holds
still, nothing is lost or given twice, and a reset in the middle of a job leaves nothing behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cocotb
import numpy as np
import twins
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, ReadOnly, RisingEdge

from edgemtl.graph.integer import Units, fixed_point
from edgemtl.graph.integer.params import Attention, Linear
from edgemtl_compiler.fpga import image


@dataclass
class Job:
    """Values of the job's ports; per stream the beats, a number for each of its data ports; the results."""

    ports: dict[str, int]
    streams: dict[str, list[dict[str, int]]]
    want: list[int]


def numbers(data: bytes, size: int) -> list[int]:
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def beats(*parts: tuple[str, bytes, int]) -> list[dict[str, int]]:
    """(data port, its bytes, bytes of a beat), side by side."""
    columns = [[{port: n} for n in numbers(data, size)] for port, data, size in parts]
    return [{k: v for part in row for k, v in part.items()} for row in zip(*columns, strict=True)]


def linear_job(dut: Any, seed: int) -> Job:
    """5 rows of 32 inputs, 32 outputs."""
    rng = np.random.default_rng(seed)
    lanes, k, n = len(dut.row_data) // 128, 32, 32
    weight, bias = rng.integers(-128, 128, (n, k)).astype(np.int8), rng.integers(-999, 999, n).astype(np.int32)
    u = Linear(weight, bias, *fixed_point(np.full(n, 2.0**-9)))
    x = rng.integers(-128, 128, (5, k)).astype(np.int8)
    rows = twins.row_beats(twins.LinearJob(x, u, twins.INT8), lanes).tobytes()
    tiles = Units().to_int8(x, u).reshape(5, n // 16, 16).swapaxes(0, 1)
    return Job(
        {"job_rows": 5, "job_words": k // 16, "job_tiles": n // 16, "job_epilogue": twins.INT8},
        {
            "weight": beats(("weight_data", image.linear(u), 64)),
            "row": beats(("row_data", rows, 16 * lanes)),
            "stream": [],
        },
        numbers(tiles.astype("<i4").tobytes(), 64),
    )


def attention_job(dut: Any, seed: int) -> Job:
    """7 tokens, so that the last block is not full; 2 heads of the array's width."""
    rng = np.random.default_rng(seed)
    width = len(dut.query_data) // 8
    q, k, v = rng.integers(-128, 128, (3, 7, 2 * width)).astype(np.int8)
    u = Attention(*fixed_point(np.full(2, 0.02)), *fixed_point(np.full(2 * width, 2.0**-15)))
    job = twins.AttentionJob(q, k, v, u)
    keys = twins.key_beats(job, width)
    return Job(
        {"job_tokens": 7, "job_heads": 2, "job_steps": width // 4},
        {
            "weight": beats(("weight_data", image.attention(u), 64)),
            "query": beats(("query_data", q.tobytes(), width)),
            "key": beats(
                ("key_data", keys[:, :width].tobytes(), width), ("value_data", keys[:, width:].tobytes(), width)
            ),
        },
        numbers(Units().attention(q, k, v, u).tobytes(), width),
    )


def made(dut: Any, seed: int) -> Job:
    return linear_job(dut, seed) if dut._name == "linear" else attention_job(dut, seed)


async def source(dut: Any, name: str, values: list[dict[str, int]], wait: Callable[[], bool]) -> None:
    """Offers the beats one by one; what was offered stays until it is taken."""
    valid, ready = getattr(dut, f"{name}_valid"), getattr(dut, f"{name}_ready")
    for value in values:
        while wait():
            await FallingEdge(dut.clk)
        valid.value = 1
        for port, data in value.items():
            getattr(dut, port).value = data
        taken = False
        while not taken:
            await ReadOnly()
            taken = bool(ready.value)
            await FallingEdge(dut.clk)
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
    for _ in range(60):
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
    for name in ("job", *made(dut, 0).streams):
        getattr(dut, f"{name}_valid").value = 0
    dut.out_ready.value = 0
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0


async def begin(dut: Any, job: Job, gap: Callable[[], bool]) -> list[Any]:
    """Hands a job over and starts to feed its streams."""
    for port, value in job.ports.items():
        getattr(dut, port).value = value
    feeds = [cocotb.start_soon(source(dut, name, values, gap)) for name, values in job.streams.items()]
    dut.job_valid.value = 1
    taken = False
    while not taken:
        await ReadOnly()
        taken = bool(dut.job_ready.value)
        await FallingEdge(dut.clk)
    dut.job_valid.value = 0
    return feeds


async def run(dut: Any, seed: int, gap: float, stall: float) -> None:
    """A whole job, compared with the reference."""
    draw = random.Random(seed)
    job = made(dut, seed)
    feeds = await begin(dut, job, lambda: draw.random() < gap)
    assert await sink(dut, len(job.want), lambda: draw.random() < stall) == job.want, f"gaps {gap}, stalls {stall}"
    assert all(feed.done() for feed in feeds), "input was left"


@cocotb.test()
async def holds_and_loses_nothing(dut: Any) -> None:
    await start(dut)
    for seed, (gap, stall) in enumerate([(0, 0), (0.5, 0), (0, 0.8), (0.4, 0.6)]):
        await run(dut, seed, gap, stall)


@cocotb.test()
async def forgets_at_reset(dut: Any) -> None:
    """A reset while tables are read, while the array runs, while results leave; then another job."""
    await start(dut)
    shown = False
    for seed, cycles in enumerate((15, 3, 50, 30, 150, 70)):
        draw = random.Random(seed)
        feeds = await begin(dut, made(dut, seed), lambda draw=draw: draw.random() < 0.1)  # type: ignore[misc]
        dut.out_ready.value = seed % 2  # else results pile up
        for _ in range(cycles):
            await FallingEdge(dut.clk)
        shown |= bool(dut.out_valid.value)
        for feed in feeds:
            feed.kill()
        await reset(dut)
        await run(dut, 10 + seed, 0.1, 0.1)
    assert shown, "no reset met a result"
