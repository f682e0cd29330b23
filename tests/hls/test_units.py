"""Every unit: NumPy reference == C simulation, bit for bit, over shapes and values that hypothesis draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from csim_units import CSim, tile_order
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.graph import integer as ref
from edgemtl.graph.integer.params import Attention, Gate, Gelu, Linear, Mlp, Norm, Scaling, Taps
from edgemtl.graph.ops.separable_step import filtered

seeds = st.integers(0, 2**31)
lanes = st.integers(1, 5).map(lambda n: 16 * n)
some = settings(max_examples=40, deadline=None)


def values(rng: np.random.Generator, shape: tuple[int, ...], bits: int) -> NDArray[np.int64]:
    """Uniform, only extremes, small or constant: each a quarter of the time."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    kind = rng.integers(4)
    if kind == 0:
        return rng.choice([low, high], shape)
    if kind == 1:
        return np.full(shape, rng.integers(low, high + 1))
    return rng.integers(low, high + 1, shape) if kind == 2 else rng.integers(-3, 4, shape)


def int8(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return values(rng, shape, 8).astype(np.int8)


def int16(rng: np.random.Generator, *shape: int) -> NDArray[np.int16]:
    return values(rng, shape, 16).astype(np.int16)


def factors(rng: np.random.Generator, n: int, low: float, high: float) -> tuple[Any, Any]:
    return ref.fixed_point(2.0 ** rng.uniform(low, high, n))


def linear(rng: np.random.Generator, inputs: int, outputs: int, low: float = -20, high: float = -4) -> Linear:
    bias = values(rng, (outputs,), int(rng.integers(8, 33))).astype(np.int32)
    return Linear(int8(rng, outputs, inputs), bias, *factors(rng, outputs, low, high))


def gelu(rng: np.random.Generator) -> Gelu:
    return ref.gelu_table(float(2.0 ** rng.uniform(-16, -6)), int(rng.integers(-128, 10)))


@some
@given(rows=st.integers(1, 11), inputs=lanes, outputs=st.integers(1, 40), seed=seeds)
def test_linear_to_raw(csim: CSim, rows: int, inputs: int, outputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, u = int8(rng, rows, inputs), linear(rng, inputs, outputs, -24, 8)
    want = ref.scaled_int16(ref.sums(x, u), u.multiplier, u.shift)
    np.testing.assert_array_equal(csim.linear(x, u), want)


@some
@given(rows=st.integers(1, 11), inputs=lanes, outputs=lanes, seed=seeds, from_pool=st.booleans())
def test_linear_adds_to_the_stream(
    csim: CSim, rows: int, inputs: int, outputs: int, seed: int, from_pool: bool
) -> None:
    rng = np.random.default_rng(seed)
    x, u, stream = int8(rng, rows, inputs), linear(rng, inputs, outputs), int16(rng, rows, outputs)
    want = ref.add_to_stream(stream, ref.sums(x, u), u)
    np.testing.assert_array_equal(csim.linear_add(x, u, stream, from_pool=from_pool), want)


@some
@given(rows=st.integers(1, 11), dim=lanes, seed=seeds)
def test_linear_to_query_key_value(csim: CSim, rows: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, u = int8(rng, rows, dim), linear(rng, dim, 3 * dim)
    np.testing.assert_array_equal(csim.qkv(x, u), ref.scaled_int8(ref.sums(x, u), u.multiplier, u.shift))


@some
@given(rows=st.integers(1, 11), inputs=lanes, outputs=lanes, seed=seeds, wide=st.booleans())
def test_linear_through_gelu(csim: CSim, rows: int, inputs: int, outputs: int, seed: int, wide: bool) -> None:
    rng = np.random.default_rng(seed)
    x, u, g = int8(rng, rows, inputs), linear(rng, inputs, outputs, -12, 2), gelu(rng)
    p = ref.scaled_int16(ref.sums(x, u), u.multiplier, u.shift)
    want = ref.gelu_int16(p, g) if wide else ref.gelu_int8(p, g)
    np.testing.assert_array_equal(csim.linear_gelu(x, u, g, wide=wide), want)


def test_linear_at_the_widest(csim: CSim) -> None:
    x = np.full((5, 1536), -128, np.int8)
    extreme = np.full(16, 2**31 - 1, np.int32)
    u = Linear(np.full((16, 1536), -128, np.int8), extreme, *ref.fixed_point(np.full(16, 2.0**-10)))
    np.testing.assert_array_equal(csim.linear(x, u), np.full((5, 16), 32767))
    u = Linear(-u.weight - 1, -extreme, *ref.fixed_point(np.full(16, 2.0**-11)))
    np.testing.assert_array_equal(csim.linear(x, u), ref.scaled_int16(ref.sums(x, u), u.multiplier, u.shift))


@some
@given(rows=st.integers(1, 9), dim=lanes, first=st.integers(0, 1), seed=seeds, epsilon=st.integers(1, 2**40))
def test_layer_norm(csim: CSim, rows: int, dim: int, first: int, seed: int, epsilon: int) -> None:
    rng = np.random.default_rng(seed)
    stream = int16(rng, rows + first, dim)
    stream[-1] = rng.integers(-32768, 32768)  # a constant row
    gamma, beta = (values(rng, (dim,), bits).astype(np.int32) for bits in (27, 31))
    u = Norm(gamma, beta, epsilon if rng.integers(2) else 1)
    np.testing.assert_array_equal(csim.layer_norm(stream, u, first), ref.layer_norm(stream[first:], u))


@some
@given(
    tokens=st.integers(1, 23),
    heads=st.integers(1, 4),
    width=st.sampled_from([16, 32, 64]),
    seed=seeds,
)
def test_attention(csim: CSim, tokens: int, heads: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, k, v = (int8(rng, tokens, heads * width) for _ in range(3))
    u = Attention(*factors(rng, heads, -25, 8), *factors(rng, heads * width, -20, -12))
    np.testing.assert_array_equal(csim.attention(q, k, v, u), ref.attention(q, k, v, u))


@pytest.mark.parametrize("tokens", [1, 3, 4, 5, 129, 197])
def test_attention_at_the_edges_of_a_query_block(csim: CSim, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    q, k, v = rng.integers(-128, 128, (3, tokens, 192)).astype(np.int8)
    u = Attention(*ref.fixed_point(np.full(3, 0.02)), *ref.fixed_point(np.full(192, 2.0**-15)))
    np.testing.assert_array_equal(csim.attention(q, k, v, u), ref.attention(q, k, v, u))


def test_units_at_the_maxima(csim: CSim) -> None:
    """1,025 tokens of 192 channels, 680 of 384 with 1,536 hidden ones, and the head's 16,384 pixels."""
    rng = np.random.default_rng(0)
    stream = rng.integers(-32768, 32768, (680, 384)).astype(np.int16)
    u = Norm(*rng.integers(-(2**22), 2**22, (2, 384)).astype(np.int32), 10**6)
    x = ref.layer_norm(stream, u)
    np.testing.assert_array_equal(csim.layer_norm(stream, u), x)
    fc1, fc2, g = linear(rng, 384, 1536, -12, -8), linear(rng, 1536, 384), gelu(rng)
    p = ref.scaled_int16(ref.sums(x, fc1), fc1.multiplier, fc1.shift)
    hidden = ref.gelu_int8(p, g)
    np.testing.assert_array_equal(csim.linear_gelu(x, fc1, g, wide=False), hidden)
    want = ref.add_to_stream(stream, ref.sums(hidden, fc2), fc2)
    np.testing.assert_array_equal(csim.linear_add(hidden, fc2, stream, from_pool=True), want)
    for tokens, heads in ((1025, 3), (680, 6)):
        q, k, v = rng.integers(-128, 128, (3, tokens, 64 * heads)).astype(np.int8)
        a = Attention(*ref.fixed_point(np.full(heads, 0.01)), *ref.fixed_point(np.full(64 * heads, 2.0**-14)))
        np.testing.assert_array_equal(csim.attention(q, k, v, a), ref.attention(q, k, v, a))
    picture = rng.integers(-32768, 32768, (128, 128, 32)).astype(np.int16)
    bias = np.zeros(32, np.int32)
    d = Taps(int8(rng, 9, 32), bias, *factors(rng, 32, -12, -6))
    np.testing.assert_array_equal(csim.depthwise(picture, d, g, 4), ref.gelu_int8(filtered(picture, d), g))


def gate(rng: np.random.Generator, dim: int, experts: int, slots: int) -> Gate:
    path = tuple(int(e) for e in np.sort(rng.permutation(slots)[:experts]))
    bias = values(rng, (experts,), int(rng.integers(2, 33))).astype(np.int32)
    multiplier, shift = factors(rng, 1, -26, 4)
    weight = values(rng, (experts, dim), int(rng.integers(2, 17))).astype(np.int16)
    return Gate(weight, bias, path, int(multiplier[0]), int(shift[0]))


@settings(max_examples=80, deadline=None)
@given(
    tokens=st.integers(1, 9),
    dim=lanes,
    slots=st.integers(1, 16),
    k=st.integers(1, 4),
    renormalise=st.booleans(),
    seed=seeds,
)
def test_gate_and_queues(csim: CSim, tokens: int, dim: int, slots: int, k: int, renormalise: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = min(k, slots)
    u, x = gate(rng, dim, int(rng.integers(k, slots + 1)), slots), int8(rng, tokens, dim)
    logits = ref.gate_logits(x, u)
    chosen = ref.top_k(logits, k)
    want = ref.queues(chosen, ref.scores(logits, chosen, u, renormalise), u, slots)
    for (tokens_got, score_got), (tokens_want, score_want) in zip(
        csim.gate(x, u, slots, k, renormalise), want, strict=True
    ):
        np.testing.assert_array_equal(tokens_got, tokens_want)
        np.testing.assert_array_equal(score_got, score_want)


def bank(rng: np.random.Generator, experts: int, dim: int, hidden: int) -> list[Mlp]:
    return [Mlp(linear(rng, dim, hidden, -12, 2), gelu(rng), linear(rng, hidden, dim, -8, 8)) for _ in range(experts)]


@some
@given(
    tokens=st.integers(1, 13),
    experts=st.integers(1, 6),
    hidden=lanes,
    crowd=st.sampled_from(["spread", "one expert", "nobody"]),
    seed=seeds,
)
def test_experts(csim: CSim, tokens: int, experts: int, hidden: int, crowd: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, stream, mlps = int8(rng, tokens, 32), int16(rng, tokens, 32), bank(rng, experts, 32, hidden)
    share = {"spread": 0.4, "one expert": 0.0, "nobody": 0.0}[crowd]
    queues = [(np.flatnonzero(rng.random(tokens) < share)) for _ in mlps]
    if crowd == "one expert":
        queues[-1] = np.arange(tokens)
    want, filled = stream.copy(), []
    for mlp, who in zip(mlps, queues, strict=True):
        score = rng.integers(0, 32769, len(who)).astype(np.uint16)
        filled.append((who, score))
        p = ref.scaled_int16(ref.sums(x[who], mlp.fc1), mlp.fc1.multiplier, mlp.fc1.shift)
        total = ref.sums(ref.gelu_int8(p, mlp.gelu), mlp.fc2)
        want[who] = ref.accumulate_scored(want[who], total, mlp.fc2, score)
    np.testing.assert_array_equal(csim.experts(stream, x, mlps, filled), want)


@some
@given(rows=st.integers(1, 3), cols=st.integers(1, 3), tile=st.sampled_from([1, 2, 4]), width=lanes, seed=seeds)
def test_depthwise_and_narrow(csim: CSim, rows: int, cols: int, tile: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stream, g = int16(rng, rows * tile, cols * tile, width), gelu(rng)
    bias = values(rng, (width,), 32).astype(np.int32)
    u = Taps(int8(rng, 9, width), bias, *factors(rng, width, -12, 0))
    want = ref.gelu_int8(filtered(stream, u), g)
    np.testing.assert_array_equal(csim.depthwise(stream, u, g, tile), want)
    s = Scaling(bias >> 14, *factors(rng, width, -10, 0))
    np.testing.assert_array_equal(csim.narrow(stream, s, tile), ref.narrow(stream, s))


def test_tile_order_is_pixel_shuffle() -> None:
    tokens = np.arange(2 * 3 * 16).reshape(2, 3, 4, 4)
    np.testing.assert_array_equal(tile_order(8, 12, 4), tokens.transpose(0, 2, 1, 3).reshape(8, 12))


def test_packed_multiplier_is_exact(csim: CSim) -> None:
    assert csim.mul2_faults() == 0


def test_a_deadlock_names_its_stream(csim: CSim) -> None:
    csim.stream_probe(3, 3)
    with pytest.raises(RuntimeError, match=r"'probe' is written while all 3 places are full"):
        csim.stream_probe(4, 4)
    with pytest.raises(RuntimeError, match=r"'probe' is read while empty"):
        csim.stream_probe(2, 3)


def test_values_outside_their_range_are_refused(csim: CSim) -> None:
    rng = np.random.default_rng(0)
    x, u = int8(rng, 3, 16), linear(rng, 16, 16)
    for shift in (0, 47, 255):
        with pytest.raises(ValueError, match="weight image"):
            csim.linear(x, Linear(u.weight, u.bias, u.multiplier, np.full(16, shift, np.uint8)))
    with pytest.raises(ValueError, match="weight image"):
        csim.layer_norm(int16(rng, 2, 16), Norm(u.bias, u.bias, 0))
    g = gate(rng, 16, 3, 8)
    for path in ((0, 1, 9), (0, 2, 1), (1, 1, 2)):
        with pytest.raises(ValueError, match="weight image"):
            csim.gate(x, Gate(g.weight, g.bias, path, g.multiplier, g.shift), 8, 2, False)
    with pytest.raises(ValueError, match="weight image"):
        csim.linear_gelu(x, u, Gelu(gelu(rng).table, 16, 0), wide=True)
