"""The integer reference against exact or float arithmetic: is the specification itself right?"""

from __future__ import annotations

import math
from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.graph import integer as ref
from edgemtl.graph.integer.layernorm import UNIT_BITS, integer_sqrt, normalise
from edgemtl.graph.integer.params import Attention, Gate, Linear, Norm


@given(total=st.integers(-(2**31), 2**31 - 1), scale=st.floats(2.0**-30, 2.0**15))
def test_requantise_rounds_once(total: int, scale: float) -> None:
    multiplier, shift = ref.fixed_point(scale)
    exact = floor(Fraction(total) * int(multiplier) / Fraction(2 ** int(shift)) + Fraction(1, 2))
    assert ref.scale(np.array([total]), multiplier, shift)[0] == exact
    assert ref.scaled_int8(np.array([total]), multiplier, shift)[0] == min(127, max(-128, exact))
    assert ref.scaled_int16(np.array([total]), multiplier, shift)[0] == min(32767, max(-32768, exact))
    assert 2**16 <= multiplier < 2**17
    assert abs(int(multiplier) * 2.0 ** -int(shift) / scale - 1) <= 2.0**-17


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf, 2.0**-31, 2.0**16])
def test_factors_outside_the_range_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="between"):
        ref.fixed_point(np.array([1.0, factor]))


@given(st.lists(st.integers(0, 2**62 - 1), min_size=1, max_size=50))
def test_integer_sqrt_is_exact(values: list[int]) -> None:
    squares = [math.isqrt(v) ** 2 for v in values]
    edges = values + squares + [max(0, s - 1) for s in squares]
    assert integer_sqrt(np.array(edges, np.int64)).tolist() == [math.isqrt(v) for v in edges]


@settings(max_examples=50)
@given(
    width=st.sampled_from([16, 32, 192, 384]),
    spread=st.sampled_from([0, 1, 3, 100, 32767]),
    offset=st.integers(-32768, 32767),
    seed=st.integers(0, 2**31),
)
def test_layer_norm_has_no_cancellation(width: int, spread: int, offset: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.clip(offset + rng.integers(-spread, spread + 1, (4, width)), -32768, 32767).astype(np.int16)
    wide = x.astype(np.float64)
    want = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1 / width**2)
    assert np.abs(normalise(x, 1) * 2.0**-UNIT_BITS - want).max() <= 2.0**-UNIT_BITS


@pytest.mark.parametrize("unit", [0.04 / 16, 0.003 / 16, 2.0**-12])
def test_gelu_is_within_a_code(unit: float) -> None:
    p = np.arange(-32768, 32768).astype(np.int16)
    gelu = ref.gelu_table(unit, zero=-100)
    want = torch.nn.functional.gelu(torch.from_numpy(p.astype(np.float64) * unit)).numpy() / unit
    tolerance = 1 + 1e-4 / unit  # an entry's rounding and the delta's; the table's interpolation
    assert np.abs(ref.gelu_int16(p, gelu) - np.clip(want, -32768, 32767)).max() <= tolerance
    codes = np.clip(want / 16 - 100, -128, 127)
    assert np.abs(ref.gelu_int8(p, gelu) - codes).max() <= 0.5 + tolerance / 16


@pytest.mark.parametrize("unit", [0.0, 1e-6, math.inf, math.nan])
def test_gelu_refuses_a_unit_that_does_not_fit(unit: float) -> None:
    with pytest.raises(ValueError, match="range"):
        ref.gelu_table(unit)


@given(st.integers(0, 2**38))
def test_exp2_is_close(t: int) -> None:
    assert abs(int(ref.exp2_negative(np.array([t]))[0]) - 2.0 ** (15 - t / 256)) <= 1.0


def _attention(heads: int, dim: int, sharpness: float) -> Attention:
    exponent = ref.fixed_point(np.full(heads, sharpness * 256 / math.log(2)))
    return Attention(*exponent, *ref.fixed_point(np.full(dim, 2.0**-16)))


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 40),
    heads=st.integers(1, 3),
    sharpness=st.sampled_from([1e-6, 1e-4, 1e-3]),
    seed=st.integers(0, 2**31),
)
def test_attention_is_close_and_knows_no_order(tokens: int, heads: int, sharpness: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = rng.integers(-128, 128, (3, tokens, heads * 16)).astype(np.int8)
    params = _attention(heads, heads * 16, sharpness)
    got = ref.attention(q, k, v, params)
    parts = (a.reshape(tokens, heads, 16).astype(np.float64) for a in (q, k, v))
    logits = np.einsum("qhd,khd->hqk", next(parts), next(parts)) * sharpness
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    want = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), next(parts))
    assert np.abs(got.reshape(want.shape) - want).max() <= 1.5
    order = rng.permutation(tokens)
    np.testing.assert_array_equal(ref.attention(q, k[order], v[order], params), got)


def test_routing_by_hand() -> None:
    weight = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.int16)  # experts 0 and 1 tie everywhere
    gate = Gate(weight, np.zeros(4, np.int32), (1, 2, 5, 7), *(int(v) for v in ref.fixed_point(256.0)))
    x = np.array([[3, 3], [2, 5], [0, -1]], np.int8)
    logits = ref.gate_logits(x, gate)
    chosen = ref.top_k(logits, 2)
    assert chosen.tolist() == [[0, 1], [2, 0], [0, 1]]  # three-way ties go to the lower positions
    score = ref.scores(logits, chosen, gate, renormalise=False)
    full = 2.0 ** logits.astype(float)
    want = np.take_along_axis(full / full.sum(1, keepdims=True), chosen, 1)
    assert np.abs(score / 32768 - want).max() < 1e-4
    assert ref.scores(logits, chosen, gate, renormalise=True).sum(1).tolist() == [32768, 32768, 32768]
    queues = ref.queues(chosen, score, gate, 8)
    assert [q[0].tolist() for q in queues] == [[], [0, 1, 2], [0, 2], [], [], [1], [], []]
    assert queues[5][1].tolist() == [score[1, 0]]


def test_biases_saturate() -> None:
    one = np.ones((1, 16), np.int8)
    unit = Linear(one, np.array([2**30], np.int32), np.array([2**16], np.int32), np.array([16], np.uint8))
    assert ref.sums(one, unit)[0, 0] == 16 + 2**25 - 1


def test_a_constant_row_normalises_to_beta() -> None:
    beta = np.arange(-8, 8, dtype=np.int32) << 16
    out = ref.layer_norm(np.full((2, 16), 777, np.int16), Norm(np.full(16, 1 << 20, np.int32), beta, 1))
    np.testing.assert_array_equal(out, np.tile(np.arange(-8, 8), (2, 1)))
