"""The SystemVerilog twins: Verilator == NumPy reference == C simulation, bit for bit, under gaps and back-pressure.

`make test` builds the linear unit with two rows of lanes; the rest is slow.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import twins
from csim_units import CSim
from hypothesis import given, settings
from hypothesis import strategies as st
from rtl_models import RTL, attention_job, attention_want, library, linear_job, linear_want

from edgemtl.errors import CompileError
from edgemtl.graph import integer as ref
from edgemtl.graph.integer.params import Attention, Linear
from edgemtl_compiler.fpga import rtl
from edgemtl_compiler.fpga.estimate import Lanes, attention_cycles, linear_cycles

seeds = st.integers(0, 2**31)
often = st.sampled_from([0, 30, 90])  # of a hundred cycles
traffic = st.builds(twins.Traffic, gaps=often, stalls=often, seed=st.integers(0, 2**31))
jobs = st.lists(
    st.tuples(st.integers(1, 20), st.integers(1, 5).map(lambda n: 16 * n), st.integers(1, 40), st.integers(0, 6)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def narrow() -> twins.LinearTwin:
    return twins.LinearTwin(library("linear", {"LANES_ROW": 2}), 2)


@pytest.fixture(scope="module", params=[8, 6])
def full(request: pytest.FixtureRequest) -> twins.LinearTwin:
    return twins.LinearTwin(library("linear", {"LANES_ROW": request.param}), request.param)


@pytest.fixture(scope="module")
def attention() -> twins.AttentionTwin:
    return twins.AttentionTwin(library("attention"))


def same_linear(twin: twins.LinearTwin, shapes: list[tuple[int, int, int, int]], seed: int, how: twins.Traffic) -> None:
    rng = np.random.default_rng(seed)
    made = [linear_job(rng, *shape) for shape in shapes]
    for job, got in zip(made, twin.run(made, how), strict=True):
        np.testing.assert_array_equal(got, linear_want(job))


@settings(max_examples=60, deadline=None)
@given(shapes=jobs, seed=seeds, how=traffic)
def test_linear(
    narrow: twins.LinearTwin, shapes: list[tuple[int, int, int, int]], seed: int, how: twins.Traffic
) -> None:
    same_linear(narrow, shapes, seed, how)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(shapes=jobs, seed=seeds, how=traffic)
def test_linear_at_full_width(
    full: twins.LinearTwin, shapes: list[tuple[int, int, int, int]], seed: int, how: twins.Traffic
) -> None:
    same_linear(full, shapes, seed, how)


def widest(sign: int) -> twins.LinearJob:
    """1,536 extreme products and an extreme bias, all of one sign."""
    bias = np.full(16, sign * (2**31 - 1), np.int32)
    weight = np.full((16, 1536), -128 if sign > 0 else 127, np.int8)
    return twins.LinearJob(
        np.full((5, 1536), -128, np.int8), Linear(weight, bias, *ref.fixed_point(np.full(16, 0.9))), 6
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_linear_at_the_extremes(narrow: twins.LinearTwin, sign: int) -> None:
    job = widest(sign)
    want = linear_want(job)
    assert abs(want).max() > 2**25
    np.testing.assert_array_equal(narrow.run([job])[0], want)


def test_linear_is_the_c_simulation(narrow: twins.LinearTwin, csim: CSim) -> None:
    """The same arrays through both, without the reference between them."""
    rng = np.random.default_rng(3)
    made = [linear_job(rng, 13, 80, 48, e) for e in (twins.INT16, twins.GELU8, twins.GELU16, twins.ADD, twins.INT8)]
    raw, hidden, wide, add, qkv = narrow.run(made)
    np.testing.assert_array_equal(raw, csim.linear(made[0].x, made[0].unit))
    for job, got, is_wide in ((made[1], hidden, False), (made[2], wide, True)):
        assert job.gelu is not None
        np.testing.assert_array_equal(got, csim.linear_gelu(job.x, job.unit, job.gelu, wide=is_wide))
    assert made[3].stream is not None
    np.testing.assert_array_equal(add, csim.linear_add(made[3].x, made[3].unit, made[3].stream, from_pool=False))
    np.testing.assert_array_equal(qkv, csim.qkv(made[4].x, made[4].unit))


@pytest.mark.parametrize(("multiplier", "shift"), [(2**17, 20), (2**16, 0), (2**16, 47), (2**23, 20)])
def test_linear_refuses_a_factor_outside_its_range(narrow: twins.LinearTwin, multiplier: int, shift: int) -> None:
    job = linear_job(np.random.default_rng(0), 3, 16, 32, twins.INT8)
    job.unit.multiplier[17], job.unit.shift[17] = multiplier, shift
    with pytest.raises(ValueError, match="weight image"):
        narrow.run([job])
    assert narrow.run([linear_job(np.random.default_rng(0), 3, 16, 32, twins.INT8)])  # a reset forgets it


def close(twin: twins.LinearTwin, rows: int, inputs: int, outputs: int, lanes: int) -> None:
    """Cycles against the estimate's."""
    before = twin.cycles
    twin.run([linear_job(np.random.default_rng(0), rows, inputs, outputs, twins.INT8)])
    cycles = twin.cycles - before
    want = linear_cycles(rows, inputs, outputs, Lanes(row=lanes))
    assert abs(cycles / want - 1) < 0.02, (cycles, want)


def test_linear_cycles(narrow: twins.LinearTwin) -> None:
    """Within 2 % of `edgemtl estimate`'s model."""
    for rows, inputs, outputs in ((129, 192, 192), (65, 384, 64), (40, 768, 16)):
        close(narrow, rows, inputs, outputs, 2)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [8, 6])
def test_linear_cycles_at_full_width(lanes: int) -> None:
    twin = twins.LinearTwin(library("linear", {"LANES_ROW": lanes}), lanes)
    for rows, inputs, outputs in ((129, 192, 576), (129, 192, 192), (128, 768, 192), (197, 384, 96), (2048, 32, 32)):
        close(twin, rows, inputs, outputs, lanes)


shapes = st.lists(
    st.tuples(st.integers(1, 24), st.integers(1, 8), st.sampled_from([16, 32, 48, 64])).filter(
        lambda s: s[1] * s[2] <= 384
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(shapes=shapes, seed=seeds, how=traffic)
def test_attention(
    attention: twins.AttentionTwin, shapes: list[tuple[int, int, int]], seed: int, how: twins.Traffic
) -> None:
    rng = np.random.default_rng(seed)
    made = [attention_job(rng, *shape) for shape in shapes]
    for job, got in zip(made, attention.run(made, how), strict=True):
        np.testing.assert_array_equal(got, attention_want(job))


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "heads"), [(1, 1), (1, 6), (3, 3), (4, 3), (5, 3), (129, 3), (197, 6), (1025, 3)])
def test_attention_at_the_edges(attention: twins.AttentionTwin, csim: CSim, tokens: int, heads: int) -> None:
    """Twin == C simulation from one token to the most, all scores alike or all extreme, too."""
    rng = np.random.default_rng(tokens)
    q, k, v = rng.integers(-128, 128, (3, tokens, heads * 64)).astype(np.int8)
    u = Attention(*ref.fixed_point(np.full(heads, 0.02)), *ref.fixed_point(np.full(heads * 64, 2.0**-15)))
    made = [twins.AttentionJob(q, k, v, u)]
    if tokens < 1000:
        low = np.full_like(q, -128)
        made += [
            twins.AttentionJob(low, low, low, u),
            twins.AttentionJob(low, np.where(k < 0, low, 127).astype(np.int8), v, u),
        ]
    got = attention.run(made)
    for job, result in zip(made, got, strict=True):
        np.testing.assert_array_equal(result, csim.attention(job.q, job.k, job.v, job.unit))
    assert tokens == 1 or len(np.unique(got[0])) > 8


@pytest.mark.slow
@pytest.mark.parametrize(("tokens", "heads"), [(129, 3), (197, 3), (197, 6), (1025, 3)])
def test_attention_cycles(attention: twins.AttentionTwin, tokens: int, heads: int) -> None:
    before = attention.cycles
    attention.run([attention_job(np.random.default_rng(0), tokens, heads, 64)])
    want = attention_cycles(tokens, heads, 64)
    assert abs((attention.cycles - before) / want - 1) < 0.02, (attention.cycles - before, want)


@pytest.mark.slow
def test_attention_refuses_a_factor_outside_its_range(attention: twins.AttentionTwin) -> None:
    for where in ("exp_shift", "out_shift"):
        job = attention_job(np.random.default_rng(0), 5, 2, 32)
        getattr(job.unit, where)[1] = 47
        with pytest.raises(ValueError, match="weight image"):
            attention.run([job])


def test_a_built_model_is_found_again(narrow: twins.LinearTwin, monkeypatch: pytest.MonkeyPatch) -> None:
    first = library("linear", {"LANES_ROW": 2})
    written = first.stat().st_mtime_ns
    assert library("linear", {"LANES_ROW": 2}) == first
    assert first.stat().st_mtime_ns == written
    monkeypatch.setenv("EDGEMTL_CACHE", "/elsewhere")
    assert rtl.cache(RTL) == Path("/elsewhere/rtl")


def test_a_missing_tool_and_a_broken_source_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("verilator") is None:
        pytest.skip("no Verilator: apt-get install verilator")
    (tmp_path / "linear.sv").write_text("module linear (input wire clk); wire x = nothing_of_that_name; endmodule\n")
    (tmp_path / "linear_harness.cpp").write_text("")
    with pytest.raises(CompileError, match=r"the RTL of the linear unit does not build: .*nothing_of_that_name"):
        rtl.build(tmp_path, "linear", folder=tmp_path / "cache")
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(CompileError, match="apt-get install verilator"):
        rtl.build(RTL, "linear", folder=tmp_path)
