"""Jobs for the twins' tests, what they must give, and the built twins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import twins
from hls_models import HLS
from test_units import factors, gelu, int8, int16, linear

from edgemtl.graph.integer import Units, saturate, scale, sums
from edgemtl.graph.integer.params import Attention
from edgemtl_compiler.fpga import rtl

RTL = HLS / "rtl"


def library(unit: str, parameters: dict[str, int] | None = None) -> Path:
    """The built twin; skips the test where Verilator is missing."""
    if shutil.which("verilator") is None:
        pytest.skip("no Verilator: apt-get install verilator")
    return rtl.build(RTL, unit, parameters)


def linear_job(rng: np.random.Generator, rows: int, inputs: int, outputs: int, epilogue: int) -> twins.LinearJob:
    """Random rows, weights and tables; whole tiles of outputs where a stream is added to."""
    adds = epilogue in (twins.ADD, twins.SCORED)
    outputs = -(-outputs // 16) * 16 if adds else outputs
    return twins.LinearJob(
        int8(rng, rows, inputs),
        linear(rng, inputs, outputs),
        epilogue,
        gelu(rng) if epilogue in (twins.GELU8, twins.GELU16) else None,
        int16(rng, rows, outputs) if adds else None,
        rng.integers(0, 32769, rows).astype(np.uint16) if epilogue == twins.SCORED else None,
    )


def linear_want(job: twins.LinearJob) -> Any:
    """The reference's results."""
    units, x, u = Units(), job.x, job.unit
    if job.epilogue == twins.INT8:
        return units.to_int8(x, u)
    if job.epilogue == twins.INT16:
        return units.to_int16(x, u)
    if job.epilogue == twins.INT32:
        return saturate(scale(sums(x, u), u.multiplier, u.shift), 32)
    if job.epilogue == twins.ADD and job.stream is not None:
        return units.add(x, u, job.stream)
    if job.epilogue == twins.SCORED and job.stream is not None and job.score is not None:
        return units.add_scored(x, u, job.stream, job.score)
    assert job.gelu is not None
    through = units.gelu_int8 if job.epilogue == twins.GELU8 else units.gelu_int16
    return through(x, u, job.gelu)


def attention_job(rng: np.random.Generator, tokens: int, heads: int, width: int) -> twins.AttentionJob:
    q, k, v = (int8(rng, tokens, heads * width) for _ in range(3))
    unit = Attention(*factors(rng, heads, -25, 8), *factors(rng, heads * width, -20, -12))
    return twins.AttentionJob(q, k, v, unit)


def attention_want(job: twins.AttentionJob) -> Any:
    return Units().attention(job.q, job.k, job.v, job.unit)
