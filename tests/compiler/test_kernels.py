"""Every kernel, on every instruction set at hand, against a plain reference in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_library import Kernels
from numpy.typing import NDArray

from edgemtl.bundle import layout
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.model.gates import route
from edgemtl.model.head import LightHead
from edgemtl_compiler.cpu import targets

Array = NDArray[Any]
shapes = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
sizes = st.integers(1, 70)
sixteens = st.integers(1, 6).map(lambda n: 16 * n)


def values(seed: int, *shape: int) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def close(got: Array, want: Array, tolerance: float = 2e-6) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= tolerance * max(1.0, float(np.abs(want).max()))


def gelu(x: Array) -> Array:
    return F.gelu(torch.from_numpy(x.astype(np.float64))).numpy()


@shapes
@given(rows=sizes, depth=sizes, width=st.integers(1, 150), mode=st.sampled_from(["", "_gelu", "_residual"]))
def test_linear(kernels: Kernels, rows: int, depth: int, width: int, mode: str) -> None:
    x, w, b, r = values(1, rows, depth), values(2, width, depth), values(3, width), values(4, rows, width)
    guard = np.float32(77)
    out = np.full((rows + 1, width), guard)
    kernels("linear" + mode, x, layout.pack_linear(w, b), *([r] if mode == "_residual" else []), out[:rows])
    want = x.astype(np.float64) @ w.T + b
    close(out[:rows], gelu(want) if mode == "_gelu" else want + r if mode == "_residual" else want)
    assert (out[rows] == guard).all()


def test_every_half_precision_number_is_read_exactly(kernels: Kernels) -> None:
    """Subnormals, infinities and both zeros among them: as the bias of a layer whose weights are zero."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    out = np.empty((1, len(every)), np.float32)
    packed = layout.pack_linear(np.zeros((len(every), 1), np.float32), np.zeros(len(every), np.float32))
    packed = packed.astype(np.float16)
    packed[len(every) :] = every
    kernels("linear", np.zeros((1, 1), np.float32), packed, out)
    np.testing.assert_array_equal(out[0], every.astype(np.float32))


@shapes
@given(rows=sizes, depth=sizes, width=st.integers(1, 150), mode=st.sampled_from(["", "_gelu", "_residual"]))
def test_half_precision_weights_give_the_bits_of_the_same_weights_in_single(
    kernels: Kernels, rows: int, depth: int, width: int, mode: str
) -> None:
    x, r = values(1, rows, depth), [values(4, rows, width)] if mode == "_residual" else []
    half = layout.pack_linear(values(2, width, depth), values(3, width)).astype(np.float16)
    got, want = np.empty((2, rows, width), np.float32)
    kernels("linear" + mode, x, half, *r, got)
    kernels("linear" + mode, x, half.astype(np.float32), *r, want)
    np.testing.assert_array_equal(got, want)


def test_every_kernel_with_weights_takes_them_in_half_precision(kernels: Kernels) -> None:
    """The arrays that are packed layers; norms, gates, depthwise taps and vectors stay in single precision."""
    takes = {"linear": [1], "experts": range(5, 10), "separable_step": [2], "to_map": [1], "patch_embed": [1]}
    for name, (args, outs) in calls(41, 64).items():
        if name not in takes:
            continue
        single = list(args)
        for i in takes[name]:
            half = args[i].astype(np.float16)
            single[i] = half.astype(np.float32)
            args[i] = np.resize(half, -(-half.size // 2048) * 2048) if name == "experts" else half  # whole pages
        kernels(name, *args)
        got = [out.copy() for out in outs]
        kernels(name, *single)
        for out, want in zip(got, outs, strict=True):
            np.testing.assert_array_equal(out, want, err_msg=name)


def test_weights_of_two_precisions_in_one_bank_are_an_error(kernels: Kernels) -> None:
    (args, _) = calls(4, 64)["experts"]
    args[6] = np.resize(args[6], -(-args[6].size // 2048) * 2048).astype(np.float16)
    with pytest.raises(ValueError, match="their weights differ in precision"):
        kernels("experts", *args)


def test_gelu_is_the_exact_one(kernels: Kernels) -> None:
    x = np.linspace(-20, 20, 200_001, dtype=np.float32).reshape(-1, 1)
    out = np.empty_like(x)
    kernels("linear_gelu", x, layout.pack_linear(np.ones((1, 1), np.float32), np.zeros(1, np.float32)), out)
    assert np.abs(out - gelu(x)).max() <= 1e-6


@shapes
@given(rows=sizes, skip=st.integers(0, 3), dim=sixteens, offset=st.sampled_from([0.0, 100.0]))
def test_layernorm(kernels: Kernels, rows: int, skip: int, dim: int, offset: float) -> None:
    x, w, b = values(1, rows + skip, dim) + np.float32(offset), values(2, dim), values(3, dim)
    out = np.empty((rows, dim), np.float32)
    kernels("layernorm", x, layout.pack_rows(w, b), 1e-6, out)
    x64 = x[skip:].astype(np.float64)
    normal = (x64 - x64.mean(1, keepdims=True)) / np.sqrt(x64.var(1, keepdims=True) + 1e-6)
    close(out, normal * w + b, 2e-6 if not offset else 1e-4)


@shapes
@given(patch=st.sampled_from([4, 7, 16]), rows=st.integers(1, 5), cols=st.integers(1, 5), dim=sixteens)
def test_patch_embed(kernels: Kernels, patch: int, rows: int, cols: int, dim: int) -> None:
    image, w, b = values(1, 1, 3, rows * patch, cols * patch), values(2, dim, 3, patch, patch), values(3, dim)
    cls, pos = values(4, dim), values(5, rows * cols + 1, dim)
    out = np.empty((1, rows * cols + 1, dim), np.float32)
    kernels("patch_embed", image, layout.pack_linear(w.reshape(dim, -1), b), cls, pos.ravel(), patch, out)
    grid = F.conv2d(*(torch.from_numpy(a).double() for a in (image, w, b)), stride=patch)
    close(out[0], np.concatenate([cls[None], grid[0].flatten(1).T.numpy()]) + pos)


@shapes
@given(n=sizes, heads=st.integers(1, 4), size=st.sampled_from([16, 32, 48, 64, 80]), scale=st.sampled_from([1.0, 30.0]))
def test_attention(kernels: Kernels, n: int, heads: int, size: int, scale: float) -> None:
    qkv = values(1, n, 3 * heads * size) * np.float32(scale)
    out = np.empty((n, heads * size), np.float32)
    kernels("attention", qkv, heads, out)
    q, k, v = torch.from_numpy(qkv).double().reshape(n, 3, heads, size).permute(1, 2, 0, 3)
    want = F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(n, -1).numpy()
    close(out, want, 2e-6 if scale == 1 else 1e-3)  # logits of thousands are exact to a few ten-thousandths only


@shapes
@given(
    n=sizes,
    dim=sixteens,
    columns=st.integers(1, 40),
    data=st.data(),
    renormalise=st.booleans(),
)
def test_route(kernels: Kernels, n: int, dim: int, columns: int, data: st.DataObject, renormalise: bool) -> None:
    path = sorted(data.draw(st.sets(st.integers(0, columns - 1), min_size=1)))
    k = data.draw(st.integers(1, len(path)))
    x, gate = values(1, n, dim), values(2, dim, columns) * np.float32(0.1)
    index, score = np.empty((n, k), np.int64), np.empty((n, k), np.float32)
    packed = layout.pack_linear(gate.T, np.zeros(columns, np.float32))
    kernels("route", x, packed, columns, tuple(path), int(renormalise), index, score)
    chosen, weight, *_ = route(torch.from_numpy(x.astype(np.float64) @ gate)[:, path], k, renormalise=renormalise)
    np.testing.assert_array_equal(index, chosen.numpy())
    close(score, weight.numpy())


def test_ties_go_to_the_lower_expert(kernels: Kernels) -> None:
    x, column = values(1, 9, 32), values(2, 32, 1)
    gate = np.repeat(column, 20, 1)  # equal columns: every token is a tie of all experts
    gate[:, 5] += 1e3 * np.sign(x[0])  # but token 0 prefers expert 5
    path = (0, 3, 5, 17, 19)
    index, score = np.empty((9, 3), np.int64), np.empty((9, 3), np.float32)
    kernels("route", x, layout.pack_linear(gate.T, np.zeros(20, np.float32)), 20, path, 0, index, score)
    assert index[0].tolist() == [2, 0, 1]
    flat = np.repeat(column, 20, 1)
    kernels("route", x, layout.pack_linear(flat.T, np.zeros(20, np.float32)), 20, path, 0, index, score)
    np.testing.assert_array_equal(index, np.tile([0, 1, 2], (9, 1)))
    np.testing.assert_allclose(score, 0.2, rtol=1e-6)


def test_a_gate_that_is_not_finite_still_chooses_real_experts(kernels: Kernels) -> None:
    x = np.full((4, 16), np.nan, np.float32)
    index, score = np.empty((4, 2), np.int64), np.empty((4, 2), np.float32)
    kernels("route", x, layout.pack_linear(values(2, 6, 16), np.zeros(6, np.float32)), 6, (1, 4, 5), 0, index, score)
    assert ((index >= 0) & (index < 3)).all()


Bank = list[tuple[Array, Array, Array, Array]]


def bank(experts: int, dim: int, hidden: int) -> Bank:
    return [
        (values(4 * e, hidden, dim), values(4 * e + 1, hidden), values(4 * e + 2, dim, hidden), values(4 * e + 3, dim))
        for e in range(experts)
    ]


def apply_bank(x: Array, index: Array, score: Array, residual: Array, weights: Bank) -> Array:
    out = residual.astype(np.float64)
    for token, expert, s in zip(
        np.repeat(np.arange(len(x)), index.shape[1]), index.ravel(), score.ravel(), strict=True
    ):
        w1, b1, w2, b2 = weights[expert]
        out[token] += s * (gelu(x[token].astype(np.float64) @ w1.T + b1) @ w2.T + b2)
    return out


def run_bank(kernels: Kernels, x: Array, index: Array, score: Array, residual: Array, weights: Bank) -> Array:
    out = np.empty_like(x)
    packed = [layout.pack_expert(*expert) for expert in weights]
    kernels("experts", x, index, score, residual, len(weights[0][0]), *packed, out)
    return out


@shapes
@given(n=sizes, dim=sixteens, hidden=sizes, experts=st.integers(1, 6), data=st.data())
def test_experts(kernels: Kernels, n: int, dim: int, hidden: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    rng = np.random.default_rng(n)
    index = np.stack([rng.permutation(experts)[:k] for _ in range(n)])
    x, score, residual, weights = values(1, n, dim), values(2, n, k), values(3, n, dim), bank(experts, dim, hidden)
    close(run_bank(kernels, x, index, score, residual, weights), apply_bank(x, index, score, residual, weights))


@pytest.mark.parametrize("only", [0, 1, 3])
def test_all_tokens_to_one_expert(kernels: Kernels, only: int) -> None:
    """So the others get none; the last and the first may be among them."""
    x, residual, weights = values(1, 37, 32), values(3, 37, 32), bank(4, 32, 48)
    index, score = np.full((37, 1), only, np.int64), values(2, 37, 1)
    got = run_bank(kernels, x, index, score, residual, weights)
    close(got, apply_bank(x, index, score, residual, weights))
    weights[(only + 1) % 4] = tuple(np.full_like(w, np.nan) for w in weights[0])  # type: ignore[assignment]
    np.testing.assert_array_equal(run_bank(kernels, x, index, score, residual, weights), got)


def test_a_choice_that_does_not_exist_is_an_error(kernels: Kernels) -> None:
    x, weights = values(1, 2, 16), bank(2, 16, 16)
    for wrong in (2, -1):
        index = np.array([[0], [wrong]])
        with pytest.raises(ValueError, match="chose an expert that does not exist"):
            run_bank(kernels, x, index, values(2, 2, 1), x, weights)


@shapes
@given(rows=st.integers(1, 4), cols=st.integers(1, 4), tile=st.sampled_from([1, 2, 4]), dim=sixteens, channels=sizes)
def test_head(kernels: Kernels, rows: int, cols: int, tile: int, dim: int, channels: int) -> None:
    """Both steps and the last layer, from tokens laid tile by tile, against the module in double precision."""
    task = TaskConfig(name="t", kind="semseg", channels=channels)
    config = ModelConfig(
        image_size=(rows * 4, cols * 4), patch=4, head_stride=4 // tile, dim=16, heads=1, head_dim=dim, tasks=(task,)
    )
    torch.manual_seed(0)
    head = LightHead(config, channels)
    state = {f"heads.t.{key}": value.numpy() for key, value in head.state_dict().items()}
    entries = {e.tensor: e for e in layout.entries(config) if e.tensor.startswith("head.")}
    packed = {name: e.pack([state[key] for key, _ in e.sources]) for name, e in entries.items()}
    x, shape = values(1, rows * cols, tile * tile * dim), (rows, cols, tile, dim)
    want = torch.from_numpy(x).double().reshape(1, rows, cols, tile, tile, dim).permute(0, 5, 1, 3, 2, 4)
    want = want.reshape(1, dim, rows * tile, cols * tile)
    head = head.double()
    for name in ("step0", "step1"):
        out = np.empty_like(x)
        kernels("separable_step", x, packed[f"head.{name}.depthwise"], packed[f"head.{name}.pointwise"], shape, out)
        x, want = out, getattr(head, name)(want)
    result = np.empty((1, channels, rows * tile, cols * tile), np.float32)
    kernels("to_map", x, packed["head.out"], shape, result)
    close(result, head.out(want).detach().numpy())


def calls(n: int, dim: int) -> dict[str, tuple[list[Any], list[Array]]]:
    """A call of every kernel: arguments, and its outputs among them."""
    x, qkv, residual = values(1, n, dim), values(2, n, 3 * dim), values(3, n, dim)
    index = np.stack([np.random.default_rng(i).permutation(5)[:2] for i in range(n)])
    linear = layout.pack_linear(values(4, 3 * dim, dim), values(5, 3 * dim))
    square = layout.pack_linear(values(4, dim, dim), values(5, dim))
    packed = [layout.pack_expert(*expert) for expert in bank(5, dim, 2 * dim)]
    shape, map_ = (n, 1, 2, dim // 4), values(6, n, dim)
    quarter = layout.pack_linear(values(7, dim // 4, dim // 4), values(8, dim // 4))

    def empty(*shape: int) -> Array:
        return np.empty(shape, np.float32)

    listed: dict[str, tuple[list[Any], list[Array]]] = {}
    for name, args, outs in (
        ("linear", [x, linear], [empty(n, 3 * dim)]),
        ("linear_gelu", [x, linear], [empty(n, 3 * dim)]),
        ("linear_residual", [x, square, residual], [empty(n, dim)]),
        ("layernorm", [x, layout.pack_rows(values(8, dim), values(9, dim)), 1e-6], [empty(n, dim)]),
        ("attention", [qkv, 2], [empty(n, dim)]),
        ("route", [x, layout.pack_linear(values(4, 9, dim), values(5, 9)), 9, (0, 4, 8), 0],
         [np.empty((n, 2), np.int64), empty(n, 2)]),
        ("experts", [x, index, values(10, n, 2), residual, 2 * dim, *packed], [empty(n, dim)]),
        ("separable_step", [map_, layout.pack_rows(*values(11, 10, dim // 4)), quarter, shape], [empty(n, dim)]),
        ("to_map", [map_, quarter, shape], [empty(1, dim // 4, 2 * n, 2)]),
        ("conv_relu", [x, layout.pack_linear(values(4, dim, 9 * dim), values(5, dim)), (2 * n, 2), 1],
         [empty(4 * n, dim)]),
    ):  # fmt: skip
        listed[name] = ([*args, *outs], outs)
    image, cls, pos = values(12, 1, 3, 16 * n, 16), values(13, dim), values(14, (n + 1) * dim)
    patch, out = layout.pack_linear(values(4, dim, 768), values(5, dim)), empty(1, n + 1, dim)
    listed["patch_embed"] = ([image, patch, cls, pos, 16, out], [out])
    return listed


@pytest.mark.parametrize("n", [1, 131])
def test_the_number_of_threads_changes_no_bit(kernels: Kernels, n: int) -> None:
    for name, (args, outs) in calls(n, 64).items():
        kernels.threads(1)
        kernels(name, *args)
        first = [out.copy() for out in outs]
        for threads in (2, 3, 7, 1):
            kernels.threads(threads)
            for out in outs:
                out.fill(-1)
            kernels(name, *args)
            for out, want in zip(outs, first, strict=True):
                np.testing.assert_array_equal(out, want, err_msg=f"{name} on {threads} threads")
    kernels.threads(1)


def test_weights_are_not_written(kernels: Kernels) -> None:
    for name, (args, outs) in calls(40, 64).items():
        arrays = [a for a in args if isinstance(a, np.ndarray) and not any(a is out for out in outs)]
        before = [a.copy() for a in arrays]
        kernels(name, *args)
        for a, b in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def test_wrong_sizes_are_errors_not_crashes(kernels: Kernels) -> None:
    x, out = values(1, 4, 16), np.empty((4, 16), np.float32)
    good = layout.pack_linear(values(2, 16, 16), values(3, 16))
    with pytest.raises(ValueError, match="linear weight must hold 272 contiguous float32 values, not 256"):
        kernels("linear", x, good[:256], out)
    with pytest.raises(ValueError, match="x and out differ in rows"):
        kernels("linear", x, good, out[:3])
    with pytest.raises(ValueError, match="float32"):
        kernels("linear", x.astype(np.float64), good, out)
    with pytest.raises(ValueError, match="more experts per token than the path has"):
        kernels("route", x, good, 16, (1,), 0, np.empty((4, 2), np.int64), np.empty((4, 2), np.float32))
    with pytest.raises(ValueError, match="names an expert that the gate lacks"):
        kernels("route", x, good, 16, (1, 16), 0, np.empty((4, 2), np.int64), np.empty((4, 2), np.float32))


def test_some_target_runs_here() -> None:
    assert targets.runs_here(targets.resolve("cpu"))
