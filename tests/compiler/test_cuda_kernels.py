"""The CUDA kernels, emulated on a CPU: equal to NumPy and PyTorch, whatever the shapes, the routing, and the order in
which threads and blocks run. What only a GPU's compiler and memory do is not tested here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import emulated_gpu
import ml_dtypes  # noqa: F401  (makes NumPy know bfloat16)
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from emulated_gpu import BACKWARD, FORWARD, SHUFFLED, Emulation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemtl.bundle.layout import Entry
from edgemtl.bundle.packing import expert_size, linear_size, pack_expert, pack_linear, pack_rows, padded, round_up
from edgemtl.errors import BackendError
from edgemtl.model.gates import gate_logits, route
from edgemtl.model.moe import sparse_experts
from edgemtl.runtime.cuda.driver import Driver
from edgemtl_compiler.cuda import TYPES, lower, toolchain
from edgemtl_compiler.cuda.ops import attention
from edgemtl_compiler.cuda.ops.route import shared as route_shared

HEAD = 16
few = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Gpu:
    """Launches single kernels. Arrays go to the device as they are; `new` makes room for a result."""

    def __init__(self, precision: str, emulated: bool) -> None:
        path, self.precision = str(toolchain.emulation(precision, HEAD)), precision
        self.emulation, self.driver = Emulation(path), Driver(name=path if emulated else None)
        self.type: Any = np.dtype({"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[precision])
        self.tolerance = {"f32": 3e-6, "f16": 4e-3, "bf16": 3.2e-2}[precision]
        code = b"" if emulated else toolchain.cubin(self.driver.arch, precision, HEAD).read_bytes()
        self._module, self._stream = self.driver.module(code), self.driver.stream()
        self._room: dict[int, int] = {}

    def put(self, array: Any) -> int:
        address = self.new(array.nbytes)
        self.driver.upload(address, array.ctypes.data, array.nbytes, self._stream)
        return address

    def new(self, size: int) -> int:
        address = self.driver.alloc(size)
        self._room[address] = size
        return address

    def get(self, address: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        out = np.empty(shape, dtype)
        assert out.nbytes == self._room[address]
        self.driver.download(out.ctypes.data, address, out.nbytes, self._stream)
        self.driver.synchronize(self._stream)
        return out

    def launch(self, kernel: str, grid: tuple[int, ...], threads: int, shared: int, *args: Any) -> None:
        """Arguments: arrays, addresses of the device, floats, and ints below 2^31."""
        given: list[Any] = []
        for a in args:
            if isinstance(a, float):
                given.append(ctypes.c_float(a))
            elif isinstance(a, int) and a < 1 << 31:
                given.append(ctypes.c_int32(a))
            else:
                given.append(ctypes.c_uint64(a if isinstance(a, int) else self.put(a)))
        function = self.driver.function(self._module, kernel, shared)
        width, height, depth = (*grid, 1, 1)[:3]
        self.driver.launch(function, (width, height, depth), threads, shared, self._stream, given)

    def linear(self, kernel: str, rows: int, width: int, *args: Any) -> None:
        grid = (-(-rows // 32), -(-width // 64))
        self.launch(kernel, grid, 128, lower.linear_shared(self.type.itemsize), *args)

    def clear(self) -> None:
        """Give everything back; whoever wrote beyond its memory is found here."""
        for address in self._room:
            self.driver.free(address)
        self._room.clear()


KINDS = {precision: (precision, True) for precision in TYPES}
if not emulated_gpu.no_gpu():
    KINDS |= {f"{precision}-gpu": (precision, False) for precision in TYPES}


@pytest.fixture(
    scope="module",
    params=[pytest.param(v, id=n, marks=[pytest.mark.slow] if n == "f32" else []) for n, v in KINDS.items()],
)
def _gpu(request: pytest.FixtureRequest) -> Gpu:
    return Gpu(*request.param)


@pytest.fixture
def gpu(_gpu: Gpu) -> Iterator[Gpu]:
    """Emulated ones of every precision, and this machine's where it has one."""
    yield _gpu
    _gpu.emulation.order(FORWARD)
    _gpu.clear()


def near(gpu: Gpu, got: Any, want: Any, slack: float = 1) -> None:
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    assert np.abs(got - want).max() <= slack * gpu.tolerance * max(1, np.abs(want).max())


def layer(gpu: Gpu, rng: Any, n: int, k: int) -> tuple[Any, Any, Any]:
    """Weight and bias as the kernel multiplies them, and packed."""
    w, b = (rng.standard_normal(s).astype(np.float32) / np.sqrt(k) for s in ((n, k), (n,)))
    w, b = w.astype(gpu.type).astype(np.float32), b.astype(gpu.type).astype(np.float32)
    packed = pack_linear(w, b).astype(gpu.type)
    assert packed.size == linear_size(n, k)
    return w, b, packed


@few
@given(
    rows=st.integers(1, 70),
    n=st.sampled_from([16, 48, 64, 80, 144]),
    k=st.sampled_from([16, 48, 64, 112, 192]),
    seed=st.integers(0, 99),
)
def test_linear_with_residual(gpu: Gpu, rows: int, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, residual = rng.standard_normal((rows, k)).astype(gpu.type), rng.standard_normal((rows, n)).astype(np.float32)
    w, b, packed = layer(gpu, rng, n, k)
    out = gpu.new(4 * rows * n)
    gpu.linear("linear_residual", rows, n, x, packed, residual, out, rows, k, n)
    near(gpu, gpu.get(out, (rows, n)), residual + x.astype(np.float32) @ w.T + b)
    gpu.clear()


@few
@given(rows=st.integers(1, 40), n=st.sampled_from([32, 96]), k=st.sampled_from([32, 80]), gelu=st.booleans())
def test_normalised_linear(gpu: Gpu, rows: int, n: int, k: int, gelu: bool) -> None:
    rng = np.random.default_rng(rows)
    x = (5 + 3 * rng.standard_normal((rows, k))).astype(np.float32)
    scale, shift = rng.standard_normal((2, k)).astype(np.float32)
    w, b, packed = layer(gpu, rng, n, k)
    out = gpu.new(gpu.type.itemsize * rows * n)
    kernel = "norm_linear_gelu" if gelu else "norm_linear"
    gpu.linear(kernel, rows, n, x, pack_rows(scale, shift), packed, out, rows, k, n, 1e-6)
    normed = F.layer_norm(torch.from_numpy(x), (k,), torch.from_numpy(scale), torch.from_numpy(shift), 1e-6)
    want = F.linear(normed, torch.from_numpy(w), torch.from_numpy(b))
    near(gpu, gpu.get(out, (rows, n), gpu.type).astype(np.float32), (F.gelu(want) if gelu else want).numpy())
    gpu.clear()


def test_values_are_rounded_to_the_nearest(gpu: Gpu) -> None:
    """A norm of zeros gives its bias, and a layer that is the identity gives what the bias was rounded to."""
    ties = [1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 2048, 1 + 3 / 2048, 2.0**-25, 3 * 2.0**-25, 2.0**-24, 65504.0]
    values = np.array(ties + [-v for v in ties] + list(np.random.default_rng(0).standard_normal(48)), np.float32)
    affine, packed = pack_rows(np.ones(64, np.float32), values), pack_linear(np.eye(64), np.zeros(64, np.float32))
    out = gpu.new(gpu.type.itemsize * 64)
    x = np.zeros((1, 64), np.float32)
    gpu.linear("norm_linear", 1, 64, x, affine, packed.astype(gpu.type), out, 1, 64, 64, 1e-6)
    np.testing.assert_array_equal(gpu.get(out, (64,), gpu.type), values.astype(gpu.type))


def attend(gpu: Gpu, qkv: Any, batch: int, tokens: int, heads: int) -> Any:
    out = gpu.new(gpu.type.itemsize * batch * tokens * heads * HEAD)
    grid = (-(-tokens // 16), heads, batch)
    gpu.launch("attention", grid, 128, attention.shared(HEAD), qkv, out, tokens, heads)
    return gpu.get(out, (batch, tokens, heads * HEAD), gpu.type).astype(np.float32)


def plain_attention(qkv: Any, batch: int, tokens: int, heads: int) -> Any:
    q, k, v = torch.from_numpy(qkv.astype(np.float32)).reshape(batch, tokens, 3, heads, HEAD).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1).numpy()


@few
@given(batch=st.integers(1, 2), tokens=st.integers(1, 90), heads=st.integers(1, 2), scale=st.sampled_from([0.3, 4.0]))
def test_attention(gpu: Gpu, batch: int, tokens: int, heads: int, scale: float) -> None:
    rng = np.random.default_rng(tokens)
    qkv = (scale * rng.standard_normal((batch * tokens, 3 * heads * HEAD))).astype(gpu.type)
    near(gpu, attend(gpu, qkv, batch, tokens, heads), plain_attention(qkv, batch, tokens, heads))
    gpu.clear()


def test_attention_to_one_key(gpu: Gpu) -> None:
    """Scores of hundreds, so that all but one weight vanish: neither infinity nor not-a-number may come of it."""
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((40, 3 * HEAD)).astype(gpu.type)
    qkv[:, :HEAD] *= 30
    near(gpu, attend(gpu, qkv, 1, 40, 1), plain_attention(qkv, 1, 40, 1), slack=10)


def choose(
    gpu: Gpu, x: Any, gate: Any, path: list[int], k: int, renormalise: bool, bias: Any = None
) -> tuple[Any, Any, Any]:
    """Index, score and normalised tokens of `route`, with a norm that changes nothing but the scale."""
    (rows, dim), held = x.shape, gate.shape[1]
    affine = pack_rows(np.ones(dim, np.float32), np.zeros(dim, np.float32))
    packed = pack_linear(gate.T, np.zeros(held, np.float32) if bias is None else bias)
    normed, index, score = (gpu.new(n) for n in (rows * dim * gpu.type.itemsize, rows * k * 4, rows * k * 4))
    args = (x, affine, packed, np.array(path, np.int32), normed, index, score)
    sizes = (rows, dim, held, len(path), k, int(renormalise), 1e-6)
    gpu.launch("route", (-(-rows // 4),), 128, route_shared(dim, len(path)), *args, *sizes)
    tokens = gpu.get(normed, (rows, dim), gpu.type)
    return gpu.get(index, (rows, k), np.int32), gpu.get(score, (rows, k)), tokens.astype(np.float32)


@few
@given(
    rows=st.integers(1, 21),
    experts=st.integers(1, 40),
    data=st.data(),
    renormalise=st.booleans(),
    biased=st.booleans(),
)
def test_route(gpu: Gpu, rows: int, experts: int, data: Any, renormalise: bool, biased: bool) -> None:
    path = sorted(data.draw(st.sets(st.integers(0, experts - 1), min_size=1)))
    k = data.draw(st.integers(1, len(path)))
    rng = np.random.default_rng(rows + experts)
    x, gate = rng.standard_normal((rows, 32)).astype(np.float32), rng.standard_normal((32, experts)).astype(np.float32)
    bias = rng.standard_normal(experts).astype(np.float32) if biased else np.zeros(experts, np.float32)
    index, score, normed = choose(gpu, x, gate, path, k, renormalise, bias)
    tokens = F.layer_norm(torch.from_numpy(x), (32,), eps=1e-6)
    np.testing.assert_allclose(normed, tokens.numpy(), atol=gpu.tolerance / 2)
    logits = gate_logits(tokens, torch.from_numpy(gate[:, path]), exact=True) + torch.from_numpy(bias[path])
    want = route(logits, k, renormalise=renormalise)
    np.testing.assert_array_equal(index, want.expert.numpy())
    np.testing.assert_allclose(score, want.score.numpy(), rtol=2e-5, atol=1e-7)
    gpu.clear()


def test_ties_go_to_the_lower_index(gpu: Gpu) -> None:
    """Equal columns give equal logits; 40 of them are more than a warp has lanes."""
    x = np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)
    gate = np.repeat(np.random.default_rng(1).standard_normal((32, 1)), 40, 1).astype(np.float32)
    index, score, _ = choose(gpu, x, gate, list(range(40)), 7, False)
    np.testing.assert_array_equal(index, np.tile(np.arange(7), (5, 1)))
    np.testing.assert_allclose(score, 1 / 40, rtol=1e-5)


def test_a_token_that_is_not_a_number_still_gets_experts(gpu: Gpu) -> None:
    """Queues are made from these indices: one out of range would be a write to anywhere."""
    x = np.full((3, 32), np.nan, np.float32)
    index, _, _ = choose(gpu, x, np.ones((32, 6), np.float32), [0, 2, 3, 5], 3, False)
    assert all(sorted(set(row)) == sorted(row) and min(row) >= 0 and max(row) < 4 for row in index.tolist())


def queues(gpu: Gpu, index: Any, experts: int) -> tuple[int, int]:
    """Addresses of `start` and `order`."""
    start, order = gpu.new(4 * (experts + 1)), gpu.new(4 * index.size)
    gpu.launch("dispatch", (experts,), 256, 64, index, start, order, index.size)
    return start, order


@few
@given(rows=st.integers(1, 300), k=st.integers(1, 4), experts=st.integers(4, 9), skew=st.sampled_from([0, 1, 5]))
def test_queues_are_a_stable_counting_sort(gpu: Gpu, rows: int, k: int, experts: int, skew: int) -> None:
    """Skewed, and with empty queues: nothing dropped, nothing twice, in order."""
    rng = np.random.default_rng(rows)
    keys = rng.random((rows, experts)) + skew * np.linspace(1, 0, experts)
    index = np.argsort(-keys, 1, kind="stable")[:, :k].astype(np.int32)
    start, order = queues(gpu, index, experts)
    np.testing.assert_array_equal(gpu.get(order, (index.size,), np.int32), np.argsort(index.ravel(), kind="stable"))
    counts = np.bincount(index.ravel(), minlength=experts)
    np.testing.assert_array_equal(gpu.get(start, (experts + 1,), np.int32), np.cumsum([0, *counts]))
    gpu.clear()


DIM, HIDDEN = 48, 80


def mixture(gpu: Gpu, index: Any, rng: Any, experts: int) -> tuple[Any, Any]:
    """Residual + experts by the kernels, with the grids of `lower`; and by PyTorch."""
    rows, k = index.shape
    x, score = rng.standard_normal((rows, DIM)).astype(gpu.type), rng.random((rows, k)).astype(np.float32)
    residual = rng.standard_normal((rows, DIM)).astype(np.float32)
    shapes = ((HIDDEN, DIM), (HIDDEN,), (DIM, HIDDEN), (DIM,))
    bank = [[(rng.standard_normal(s) / 6).astype(gpu.type).astype(np.float32) for s in shapes] for _ in range(experts)]
    size = expert_size(DIM, HIDDEN, gpu.type.itemsize)
    packed = [padded(pack_expert(*e)[: linear_size(HIDDEN, DIM) + linear_size(DIM, HIDDEN)], size) for e in bank]
    table = gpu.put(np.array([gpu.put(p.astype(gpu.type)) for p in packed], np.uint64))
    start, order = queues(gpu, index, experts)
    hidden, parts = gpu.new(gpu.type.itemsize * index.size * HIDDEN), gpu.new(4 * index.size * DIM)
    out, tokens = gpu.new(4 * rows * DIM), gpu.put(x)
    tiles = min(index.size, index.size // 32 + experts)
    shared = lower.linear_shared(gpu.type.itemsize)
    sizes = (DIM, HIDDEN, experts, k)
    gpu.launch("expert_up", (tiles, -(-HIDDEN // 64)), 128, shared, tokens, table, start, order, hidden, *sizes)
    down = (hidden, table, start, order, score, parts, *sizes)
    gpu.launch("expert_down", (tiles, 1), 128, shared, *down)
    gpu.launch("combine", (rows,), 128, 0, parts, index, residual, out, DIM, k)
    banks = [torch.from_numpy(np.stack(part)) for part in zip(*bank, strict=True)]
    given = (torch.from_numpy(a) for a in (x.astype(np.float32), index.astype(np.int64), score))
    return gpu.get(out, (rows, DIM)), residual + sparse_experts(*given, *banks).numpy()


LENGTHS = {
    "one token": [1, 0, 0, 0],
    "all on one expert": [0, 0, 70, 0],
    "tails": [31, 32, 33, 64],
    "empty between": [5, 0, 40, 0],
    "the last alone": [0, 0, 0, 32],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_experts_with_queues_of(gpu: Gpu, lengths: list[int]) -> None:
    rng = np.random.default_rng(sum(lengths))
    index = rng.permutation(np.repeat(np.arange(4), lengths)).astype(np.int32)[:, None]
    near(gpu, *mixture(gpu, index, rng, 4))


@settings(few, max_examples=5)
@given(rows=st.integers(1, 60), k=st.integers(1, 3), experts=st.integers(3, 7), seed=st.integers(0, 99))
def test_experts_of_any_routing(gpu: Gpu, rows: int, k: int, experts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.argsort(rng.random((rows, experts)), 1)[:, :k].astype(np.int32)
    near(gpu, *mixture(gpu, index, rng, experts))
    gpu.clear()


@pytest.mark.parametrize("order", [BACKWARD, SHUFFLED])
def test_no_bit_depends_on_the_order_of_threads(gpu: Gpu, order: int) -> None:
    index = np.argsort(np.random.default_rng(4).random((50, 5)), 1)[:, :2].astype(np.int32)
    qkv = np.random.default_rng(5).standard_normal((37, 3 * HEAD)).astype(gpu.type)
    image = np.random.default_rng(8).standard_normal((1, 5, 7, 16)).astype(gpu.type)

    def results() -> list[Any]:
        mixed = mixture(gpu, index, np.random.default_rng(6), 5)[0]
        return [mixed, attend(gpu, qkv, 1, 37, 1), convolve(gpu, image, 80, np.random.default_rng(7))[0]]

    before = results()
    for seed in range(2):
        gpu.emulation.order(order, seed)
        for got, want in zip(results(), before, strict=True):
            np.testing.assert_array_equal(got, want)


def test_the_head_on_tiles(gpu: Gpu) -> None:
    """A separable step and the map of two images, against convolutions of the laid-out image."""
    rng, (rows, cols, t, dim, channels, batch) = np.random.default_rng(9), (2, 3, 4, 16, 19, 2)
    image = rng.standard_normal((batch, dim, rows * t, cols * t)).astype(np.float32)
    taps, bias = rng.standard_normal((dim, 9)).astype(np.float32) / 3, rng.standard_normal(dim).astype(np.float32)
    mix, mix_bias, packed = layer(gpu, rng, dim, dim)
    last, last_bias, last_packed = layer(gpu, rng, channels, dim)
    tiles = image.reshape(batch, dim, rows, t, cols, t).transpose(0, 2, 4, 3, 5, 1)
    pixels = batch * rows * cols * t * t
    after, out = gpu.new(4 * pixels * dim), gpu.new(4 * pixels * channels)
    x = np.ascontiguousarray(tiles)
    gpu.linear("separable_step", pixels, dim, x, pack_rows(*taps.T, bias), packed, after, pixels, dim, rows, cols, t)
    grid = (-(-(pixels // batch) // 128), round_up(channels) // 16, batch)
    gpu.launch("to_map", grid, 128, 0, after, last_packed, out, channels, dim, rows, cols, t)

    def conv(v: Any, w: Any, b: Any, **options: Any) -> Any:
        return F.conv2d(v, torch.from_numpy(w), torch.from_numpy(b), **options)

    v = torch.from_numpy(image)
    wide = F.gelu(conv(v, taps.reshape(dim, 1, 3, 3), bias, padding=1, groups=dim))
    want = conv(v + conv(wide, mix[..., None, None], mix_bias), last[..., None, None], last_bias)
    near(gpu, gpu.get(out, tuple(want.shape)), want.numpy())


def convolve(gpu: Gpu, x: Any, channels: int, rng: Any) -> tuple[Any, Any]:
    """ReLU of a 3x3 convolution of maps x [batch, height, width, dim] by the kernel, and by PyTorch."""
    batch, height, width, dim = x.shape
    w, b = (rng.standard_normal(s).astype(np.float32) / np.sqrt(9 * dim) for s in ((channels, dim, 3, 3), channels))
    w, b = w.astype(gpu.type).astype(np.float32), b.astype(gpu.type).astype(np.float32)
    packed = Entry("task.t", "head.conv_0", "conv", (("w", w.shape), ("b", b.shape))).pack([w, b]).astype(gpu.type)
    rows = batch * height * width
    out = gpu.new(4 * rows * channels)
    gpu.linear("conv_relu", rows, channels, x, packed, out, rows, dim, channels, height, width)
    image = torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)
    want = F.relu(F.conv2d(image, torch.from_numpy(w), torch.from_numpy(b), padding=1)).permute(0, 2, 3, 1)
    return gpu.get(out, (batch, height, width, channels)), want.numpy()


@few
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    dim=st.sampled_from([16, 48, 80]),
    channels=st.sampled_from([16, 48, 80]),
)
def test_a_convolution(gpu: Gpu, batch: int, size: tuple[int, int], dim: int, channels: int) -> None:
    """Of every pixel's neighbourhood: none from another image or another line, zero beyond the borders."""
    rng = np.random.default_rng(dim + channels)
    x = rng.standard_normal((batch, *size, dim)).astype(gpu.type)
    near(gpu, *convolve(gpu, x, channels, rng), slack=1 if gpu.precision == "f32" else 0.1)  # sums are float32
    gpu.clear()


@few
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    dim=st.sampled_from([16, 144]),
)
def test_a_doubled_map(gpu: Gpu, batch: int, size: tuple[int, int], dim: int) -> None:
    rng, (height, width) = np.random.default_rng(dim), size
    x = rng.standard_normal((batch, height, width, dim)).astype(np.float32)
    out = gpu.new(gpu.type.itemsize * 4 * x.size)
    gpu.launch("double_map", (4 * height * width, 1, batch), 128, 0, x, out, height, width, dim)
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    want = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    got = gpu.get(out, (batch, 2 * height, 2 * width, dim), gpu.type).astype(np.float32)
    near(gpu, got, want.numpy(), slack=0.3)  # one rounding
    gpu.clear()


@few
@given(batch=st.integers(1, 3), patches=st.integers(1, 9), dim=st.sampled_from([16, 80]))
def test_the_normalised_patches(gpu: Gpu, batch: int, patches: int, dim: int) -> None:
    """The class token of every image is left out; a block of four rows may span images."""
    rng = np.random.default_rng(patches)
    x = (5 + 3 * rng.standard_normal((batch, 1 + patches, dim))).astype(np.float32)
    scale, shift = rng.standard_normal((2, dim)).astype(np.float32)
    rows = batch * patches
    out = gpu.new(gpu.type.itemsize * rows * dim)
    args = (x, pack_rows(scale, shift), out, rows, patches, dim, 1e-6)
    gpu.launch("normalise_patches", (-(-rows // 4),), 128, 0, *args)
    tokens = torch.from_numpy(x[:, 1:].reshape(rows, dim))
    want = F.layer_norm(tokens, (dim,), torch.from_numpy(scale), torch.from_numpy(shift), 1e-6)
    near(gpu, gpu.get(out, (rows, dim), gpu.type).astype(np.float32), want.numpy(), slack=0.3)
    gpu.clear()


class TestTheEmulationIsStrict:
    """It must notice what a GPU would let pass or only sometimes punish."""

    @pytest.fixture
    def gpu(self) -> Iterator[Gpu]:
        gpu = Gpu("f16", emulated=True)
        yield gpu
        gpu.clear()

    @pytest.fixture
    def run(self, gpu: Gpu) -> Callable[..., None]:
        rng = np.random.default_rng(0)
        x, residual = rng.standard_normal((9, 64)).astype(gpu.type), np.zeros((9, 32), np.float32)
        packed = layer(gpu, rng, 32, 64)[2]

        def launch(threads: int = 128, less: int = 0, room: int = 4 * 9 * 32) -> None:
            args = (x, packed, residual, gpu.new(room), 9, 64, 32)
            gpu.launch("linear_residual", (1, 1), threads, lower.linear_shared(gpu.type.itemsize) - less, *args)
            gpu.driver.synchronize(gpu._stream)

        return launch

    def test_too_little_shared_memory(self, run: Any) -> None:
        with pytest.raises(BackendError, match="linear_residual: a block wrote beyond its shared memory"):
            run(less=3 * 128)

    def test_a_result_that_does_not_fit(self, gpu: Gpu, run: Any) -> None:
        run(room=4 * 9 * 32 - 64)
        with pytest.raises(BackendError, match="a kernel wrote beyond its memory"):
            gpu.clear()
        gpu._room.clear()

    def test_a_kernel_that_there_is_none_of(self, gpu: Gpu) -> None:
        with pytest.raises(BackendError, match="the GPU refuses kernel 'nothing'"):
            gpu.launch("nothing", (1,), 32, 0)

    def test_half_a_warp(self, run: Any) -> None:
        with pytest.raises(BackendError, match="in whole warps"):
            run(threads=16)
