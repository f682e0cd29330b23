"""The INT8 kernels, on every instruction set at hand: exact integers, against a NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kernel_library import Kernels
from numpy.typing import NDArray

from edgemtl.bundle import packing

Array = NDArray[Any]
shapes = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
sizes = st.integers(1, 70)
GELU_ERROR = 2e-4  # of the kernels' GELU before INT8, at most


def values(seed: int, *shape: int) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def integers(seed: int, *shape: int) -> Array:
    """Whole numbers -127..127 as float32; every row reaches 127, so that a row's scale is 1."""
    out = np.random.default_rng([seed, *shape]).integers(-127, 128, shape).astype(np.float32)
    out[:, 0] = np.where(out[:, 0] < 0, -127, 127)
    return out


def fake(x: Array, step: float, centre: float = 0.0) -> Array:
    """x as its codes hold it."""
    step32, centre32 = np.float32(step), np.float32(centre)
    code = np.clip(np.rint(x * (np.float32(1) / step32) - centre32 / step32), -127, 127)
    return code.astype(np.float64) * step32 + centre32


def rounded(weight: Array) -> Array:
    """A weight as its INT8 codes hold it."""
    code, scale = packing.quantise_rows(weight)
    return code * scale.astype(np.float64)[:, None]


def gelu(x: Array) -> Array:
    return F.gelu(torch.from_numpy(np.asarray(x, np.float64))).numpy()


def close(got: Array, want: Array, tolerance: float = 2e-6) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(1.0, float(np.abs(want).max()))


@shapes
@given(rows=sizes, depth=st.integers(1, 200), width=st.integers(1, 100), threads=st.integers(1, 3))
def test_sums_are_exact(kernels: Kernels, rows: int, depth: int, width: int, threads: int) -> None:
    """Every path gives the same integers: here float32 holds them all."""
    x, w, b = integers(1, rows, depth), integers(2, width, depth), np.rint(values(3, width) * 100)
    out = np.full((rows + 1, width), np.float32(77))
    kernels.threads(threads)
    kernels("linear_i8", x, packing.pack_linear_i8(w, b, 1.0), out[:rows])
    kernels.threads(1)
    np.testing.assert_array_equal(out[:rows], x @ w.T + b)
    assert (out[rows] == 77).all()


@pytest.mark.parametrize("depth", [4, 766, 66_000])
def test_the_extremes_do_not_saturate(kernels: Kernels, depth: int) -> None:
    """Every pattern of signs over a step's four channels, on both sides, up to the depth that every path holds."""
    signs = 1 - 2 * (np.arange(16)[:, None] >> np.arange(4) & 1)
    x = np.tile(np.float32(127) * signs, -(-depth // 4))[:, :depth].astype(np.float32)
    w, out = np.concatenate([x, x[:1]]), np.empty((16, 17), np.float32)
    kernels("linear_i8", x, packing.pack_linear_i8(w, np.zeros(17, np.float32), 1.0), out)
    np.testing.assert_array_equal(out, (x.astype(np.int64) @ w.T.astype(np.int64)).astype(np.float32))


@shapes
@given(rows=sizes, depth=sizes, width=st.integers(1, 70), step=st.floats(0.002, 0.1), mode=st.sampled_from("pgr"))
def test_linear(kernels: Kernels, rows: int, depth: int, width: int, step: float, mode: str) -> None:
    x, w, b, r = values(1, rows, depth), values(2, width, depth), values(3, width), values(4, rows, width)
    out, blob = np.empty((rows, width), np.float32), packing.pack_linear_i8(w, b, step)
    want = fake(x, step) @ rounded(w).T + b
    if mode == "r":
        kernels("linear_residual_i8", x, blob, r, out)
        want = want + r
    elif mode == "g":
        kernels("linear_gelu_i8", x, blob, out)
        want = gelu(want)
    else:
        kernels("linear_i8", x, blob, out)
    close(out, want)


def test_values_out_of_range_saturate(kernels: Kernels) -> None:
    x = np.array([[1e9, -1e9, np.inf, -np.inf, np.nan, 0.5, 1.5, -0.5]], np.float32)
    w = np.diag(np.full(8, np.float32(127)))
    out = np.empty((1, 8), np.float32)
    kernels("linear_i8", x, packing.pack_linear_i8(w, np.zeros(8, np.float32), 1.0), out)
    np.testing.assert_array_equal(out[0] / 127, [127, -127, 127, -127, -127, 0, 2, 0])


def close_but_for_ties(got: Array, want: Array, unit: float) -> None:
    """Equal, but that a hidden value on a rounding boundary may go the other way, which moves an output by about
    `unit`; the coarse GELU makes that one in a hundred or so."""
    wrong = np.abs(got - want)
    assert float(wrong.max()) <= 3 * unit
    assert float(np.median(wrong)) <= 0.3 * unit


@shapes
@given(rows=sizes, dim=st.integers(1, 70), hidden=st.integers(1, 150), threads=st.integers(1, 3))
def test_mlp(kernels: Kernels, rows: int, dim: int, hidden: int, threads: int) -> None:
    w1, b1, w2, b2 = values(1, hidden, dim) / dim**0.5, values(2, hidden), values(3, dim, hidden), values(4, dim)
    x, r, out = values(5, rows, dim), values(6, rows, dim), np.empty((rows, dim), np.float32)
    first, second = packing.pack_linear_i8(w1, b1, 0.03), packing.pack_linear_i8(w2, b2, 0.05, 2.0)
    kernels.threads(threads)
    kernels("mlp_i8", x, first, second, r, hidden, out)
    kernels.threads(1)
    inner = fake(x, 0.03) @ rounded(w1).T + b1
    want = r + fake(gelu(inner).astype(np.float32), 0.05, 2.0) @ rounded(w2).T + b2
    close_but_for_ties(out, want, 0.05 * float(np.abs(w2).max()))


def own_codes(x: Array, axis: int) -> tuple[Array, Array]:
    """Codes by their own largest magnitude along `axis`, and what one is worth."""
    reach = np.abs(x).max(axis, keepdims=True)
    inverse = np.divide(np.float32(127), reach, out=np.zeros_like(reach), where=reach > 0)
    return np.rint(x * inverse).astype(np.float64), (reach / np.float32(127)).astype(np.float64)


def attention_i8(qkv: Array, heads: int) -> tuple[Array, float]:
    """What INT8 attention computes, and how far one weight of the softmax on a rounding boundary can move it."""
    n, size = len(qkv), qkv.shape[1] // (3 * heads)
    q, k, v = qkv.reshape(n, 3, heads, size).transpose(1, 2, 0, 3)
    (qc, qs), (kc, ks), (vc, vs) = own_codes(q, -1), own_codes(k, -1), own_codes(v, -2)
    scores = (qc @ kc.transpose(0, 2, 1)) * qs * ks.transpose(0, 2, 1) / size**0.5
    levels = np.rint(254 * np.exp(scores - scores.max(-1, keepdims=True)))
    total = levels.sum(-1, keepdims=True)
    out = levels @ (vc * vs) / total
    return out.transpose(1, 0, 2).reshape(n, -1), float(np.abs(v).max() / total.min())


@shapes
@given(
    n=sizes,
    heads=st.integers(1, 4),
    size=st.sampled_from([16, 32, 48, 64, 80]),
    scale=st.sampled_from([0.01, 1.0, 3.0]),
    threads=st.integers(1, 3),
)
@example(n=129, heads=3, size=64, scale=1.0, threads=2)
@example(n=197, heads=1, size=64, scale=1.0, threads=1)
@example(n=1025, heads=1, size=16, scale=1.0, threads=2)
def test_attention(kernels: Kernels, n: int, heads: int, size: int, scale: float, threads: int) -> None:
    qkv = values(1, n, 3 * heads * size) * np.float32(scale)
    out = np.full((n + 1, heads * size), np.float32(77))
    kernels.threads(threads)
    kernels("attention_i8", qkv, heads, out[:n])
    kernels.threads(1)
    want, unit = attention_i8(qkv, heads)
    wrong = np.abs(out[:n] - want)
    assert float(wrong.max()) <= 2.1 * unit + 1e-6 * scale
    assert float(np.median(wrong)) <= 1e-5 * scale
    assert (out[n] == 77).all()


def test_attention_is_close_to_the_exact_one(kernels: Kernels) -> None:
    qkv, out, exact = values(1, 129, 3 * 128), np.empty((129, 128), np.float32), np.empty((129, 128), np.float32)
    kernels("attention_i8", qkv, 2, out)
    kernels("attention", qkv, 2, exact)
    assert 1e-4 < float(np.sqrt(np.square(out - exact).mean()) / exact.std()) < 0.02


def test_attention_of_special_rows(kernels: Kernels) -> None:
    """Equal tokens share their value; zeros stay zeros; one token attends to itself; nothing crashes on NaN."""
    row, out = values(1, 1, 96), np.empty((37, 32), np.float32)
    kernels("attention_i8", np.repeat(row, 37, 0), 2, out)
    close(out, np.repeat(row[:, 64:], 37, 0), 0.005)  # a channel's largest magnitude is a code
    kernels("attention_i8", np.zeros((37, 96), np.float32), 2, out)
    assert (out == 0).all()
    kernels("attention_i8", row, 2, out[:1])
    close(out[:1], row[:, 64:], 1e-6)
    for wrong in (np.nan, np.inf, -np.inf):
        broken = values(2, 37, 96)
        broken[3, 5], broken[4, 40], broken[5, 70] = wrong, wrong, wrong
        kernels("attention_i8", broken, 2, out)


def test_attention_of_one_loud_token(kernels: Kernels) -> None:
    """All weight on one key, far above the others: its value comes out, with nothing of theirs."""
    qkv, out = np.zeros((21, 48), np.float32), np.empty((21, 16), np.float32)
    qkv[:, :16], qkv[7, 16:32], qkv[:, 32:] = 100, 100, 1
    qkv[7, 32:] = -127
    kernels("attention_i8", qkv, 1, out)
    np.testing.assert_array_equal(out, -127)


@shapes
@given(
    n=sizes,
    dim=st.integers(1, 5).map(lambda i: 16 * i),
    hidden=st.integers(1, 70),
    count=st.integers(1, 5),
    k=st.integers(1, 3),
    threads=st.integers(1, 3),
    crowd=st.booleans(),
)
def test_experts(
    kernels: Kernels, n: int, dim: int, hidden: int, count: int, k: int, threads: int, crowd: bool
) -> None:
    """Some experts without tokens, or all tokens to one."""
    k = min(k, count)
    rng = np.random.default_rng([n, dim, hidden])
    index = np.stack([rng.permutation(count)[:k] for _ in range(n)]).astype(np.int64)
    if crowd:
        index[:] = np.arange(k)
    x, score, r = values(1, n, dim), np.abs(values(2, n, k)), values(3, n, dim)
    bank = [
        (values(e, hidden, dim) / dim**0.5, values(e, hidden), values(e, dim, hidden), values(e, dim))
        for e in range(count)
    ]
    hides = [packing.Codes(0.02 + 0.01 * e, 0.5 * e) for e in range(count)]
    blobs = [packing.pack_expert_i8(*e, packing.Codes(0.03), hide) for e, hide in zip(bank, hides, strict=True)]
    out = np.empty((n, dim), np.float32)
    kernels.threads(threads)
    kernels("experts_i8", x, index, score, r, hidden, *blobs, out)
    kernels.threads(1)
    want = r.astype(np.float64)
    for e, ((w1, b1, w2, b2), hide) in enumerate(zip(bank, hides, strict=True)):
        inner = gelu(fake(x, 0.03) @ rounded(w1).T + b1).astype(np.float32)
        part = fake(inner, *hide) @ rounded(w2).T + b2
        want += part * (score * (index == e)).sum(1, keepdims=True)
    unit = max(hides).step * max(float(np.abs(e[2]).max()) for e in bank) * float(score.max())
    close_but_for_ties(out, want, unit)


@shapes
@given(patch=st.sampled_from([4, 7, 16]), rows=st.integers(1, 4), cols=st.integers(1, 4), threads=st.integers(1, 3))
def test_patch_embed(kernels: Kernels, patch: int, rows: int, cols: int, threads: int) -> None:
    image, w, b = values(1, 1, 3, rows * patch, cols * patch), values(2, 32, 3 * patch**2), values(3, 32)
    cls, pos = values(4, 32), values(5, rows * cols + 1, 32)
    out = np.empty((1, rows * cols + 1, 32), np.float32)
    kernels.threads(threads)
    kernels("patch_embed_i8", image, packing.pack_linear_i8(w, b, 0.03, 0.2), cls, pos.ravel(), patch, out)
    kernels.threads(1)
    tiles = image.reshape(3, rows, patch, cols, patch).transpose(1, 3, 0, 2, 4).reshape(rows * cols, -1)
    want = fake(tiles, 0.03, 0.2) @ rounded(w).T + b
    close(out[0], np.concatenate([cls[None], want]) + pos)


def test_gelu_before_int8_is_close_to_the_exact_one(kernels: Kernels) -> None:
    """Seen through codes of a fine step: the identity behind it shows the hidden values."""
    step = 1e-4
    x = np.linspace(-0.0126, 0.0126, 5001, dtype=np.float32).reshape(-1, 1)
    for shift in (-6.0, -3.9, -1.0, 0.0):
        inner = x.astype(np.float64) + shift
        hidden = packing.pack_linear_i8(np.ones((1, 1), np.float32), np.full(1, shift, np.float32), 1e-4)
        last = packing.pack_linear_i8(np.ones((1, 1), np.float32), np.zeros(1, np.float32), step)
        out = np.empty_like(x)
        kernels("mlp_i8", x, hidden, last, np.zeros_like(x), 1, out)
        want = np.clip(gelu(np.rint(inner / 1e-4) * 1e-4), -127 * step, 127 * step)
        assert np.abs(out - want).max() <= GELU_ERROR + 1.01 * step


def test_no_bit_depends_on_the_threads(kernels: Kernels) -> None:
    x, r = values(1, 197, 192), values(2, 197, 192)
    first = packing.pack_linear_i8(values(3, 768, 192), values(4, 768), 0.03)
    second = packing.pack_linear_i8(values(5, 192, 768), values(6, 192), 0.3)
    outs = [np.empty_like(x) for _ in range(3)]
    for threads, out in enumerate(outs, 1):
        kernels.threads(threads)
        kernels("mlp_i8", x, first, second, r, 768, out)
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])
    qkv, heads = values(7, 197, 3 * 192), [np.empty_like(x) for _ in range(3)]
    for threads, out in enumerate(heads, 1):
        kernels.threads(threads)
        kernels("attention_i8", qkv, 3, out)
    kernels.threads(1)
    np.testing.assert_array_equal(heads[0], heads[1])
    np.testing.assert_array_equal(heads[0], heads[2])


def test_wrong_arguments_are_refused(kernels: Kernels) -> None:
    x, out = values(1, 4, 16), np.empty((4, 16), np.float32)
    blob = packing.pack_linear_i8(values(2, 16, 16), values(3, 16), 1.0)
    with pytest.raises(ValueError, match=r"linear weight must hold 512 contiguous uint8 values, not 511"):
        kernels("linear_i8", x, blob[:-1], out)
    with pytest.raises(ValueError, match="linear weight must hold"):
        kernels("linear_i8", x, packing.pack_linear(values(2, 16, 16), values(3, 16)), out)
    expert = packing.pack_expert_i8(
        values(1, 16, 16), values(2, 16), values(3, 16, 16), values(4, 16), packing.Codes(1.0), packing.Codes(1.0)
    )
    index, score = np.full((4, 1), 2, np.int64), np.ones((4, 1), np.float32)
    with pytest.raises(ValueError, match="an expert that does not exist"):
        kernels("experts_i8", x, index, score, x, 16, expert, expert, out)
