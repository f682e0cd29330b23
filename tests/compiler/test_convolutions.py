"""The convolution kernels on every instruction set at hand, against the graph's reference in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_library import Kernels

from edgemtl.bundle.layout import Codes, Entry
from edgemtl.graph import Graph, Node, run
from edgemtl.graph.builder import Builder
from edgemtl.graph.ops.convolution import output_size
from edgemtl_compiler.quantise.fake_int8 import kernels as int8_kernels

few = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
ACTIVATIONS = ("none", "relu", "relu6", "gelu")
sizes = st.tuples(st.integers(1, 9), st.integers(1, 35))
paddings = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


def built(op: str, size: tuple[int, int], channels: int, **attributes: Any) -> tuple[Graph, Node]:
    b = Builder({"x": (*size, channels)})
    b("y", op, "x", **attributes)
    graph = b.graph("test", "y")
    return graph, graph["y"]


def values(node: Node, rng: np.random.Generator) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Arrays of every weight; the sums stay near 1, so that ReLU6 cuts at both ends now and then."""
    out = {}
    for w in node.weights:
        (_, (_, *rest)), *_ = w.sources
        out[w.ref] = [
            (rng.normal(size=s) * (3 / max(1.0, float(np.prod(rest))) ** 0.5)).astype(np.float32) for _, s in w.sources
        ]
    return out


def held(kernels: Kernels, name: str, arguments: list[Any], want: np.ndarray[Any, Any]) -> None:
    """The kernel's output is `want`, nothing is written past it, and threads change no bit."""
    out = np.full((len(want) + 1, *want.shape[1:]), np.float32(77))
    kernels(name, *arguments, out[:-1])
    assert np.abs(out[:-1] - want).max() <= 4e-6 * max(1.0, float(np.abs(want).max()))
    assert (out[-1] == 77).all()
    for threads in (2, 3):
        again = np.full(want.shape, np.float32(55))
        kernels.threads(threads)
        kernels(name, *arguments, again)
        kernels.threads(1)
        np.testing.assert_array_equal(again, out[:-1])


def reference(graph: Graph, x: np.ndarray[Any, Any], weights: dict[str, list[np.ndarray[Any, Any]]]) -> Any:
    wide = {ref: [a.astype(np.float64) for a in arrays] for ref, arrays in weights.items()}
    return run(graph, {"x": x.astype(np.float64)}, lambda w: wide[w.ref])["y"]


def window(size: tuple[int, int], kernel: Any, stride: Any, padding: Any) -> tuple[int, ...]:
    (top, _), (left, _) = padding
    return (*size, *kernel, *stride, top, left, *output_size(size, kernel, stride, padding))


@few
@given(
    size=sizes,
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=paddings,
    inputs=st.sampled_from([1, 3, 16, 20]),
    outputs=st.integers(2, 70),
    activation=st.sampled_from(ACTIVATIONS),
    planes=st.booleans(),
)
def test_convolution(
    kernels: Kernels,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Any,
    inputs: int,
    outputs: int,
    activation: str,
    planes: bool,
) -> None:
    kernel = tuple(min(k, n + sum(p)) for k, n, p in zip(kernel, size, padding, strict=True))  # type: ignore[assignment]
    graph, node = built(
        "convolution",
        size,
        inputs,
        outputs=outputs,
        kernel=kernel,
        stride=stride,
        padding=padding,
        groups=1,
        activation=activation,
        bias=True,
    )
    rng = np.random.default_rng(outputs)
    x, weights = rng.normal(size=(*size, inputs)).astype(np.float32), values(node, rng)
    (w,) = node.weights
    packed = Entry(**vars(w)).pack(weights[w.ref])
    given_x = np.ascontiguousarray(x.transpose(2, 0, 1)) if planes else x
    arguments = [given_x, packed, window(size, kernel, stride, padding), int(planes), ACTIVATIONS.index(activation)]
    held(kernels, "convolution", arguments, reference(graph, x, weights))


@few
@given(
    size=sizes,
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=paddings,
    inputs=st.sampled_from([16, 24, 32]),
    middle=st.sampled_from([16, 48, 96]),
    outputs=st.sampled_from([8, 16, 24, 40]),
    expand=st.booleans(),
    shortcut=st.booleans(),
)
def test_inverted_residual(
    kernels: Kernels,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Any,
    inputs: int,
    middle: int,
    outputs: int,
    expand: bool,
    shortcut: bool,
) -> None:
    if shortcut:
        kernel, stride, outputs = (3, 5), (1, 1), inputs
        padding = ((1, 1), (2, 2))
    if not expand:
        inputs = middle
        outputs = inputs if shortcut else outputs
    kernel = tuple(min(k, n + sum(p)) for k, n, p in zip(kernel, size, padding, strict=True))  # type: ignore[assignment]
    graph, node = built(
        "inverted_residual",
        size,
        inputs,
        middle=middle,
        outputs=outputs,
        kernel=kernel,
        stride=stride,
        padding=padding,
        expand=expand,
        shortcut=shortcut,
    )
    rng = np.random.default_rng(middle)
    x, weights = rng.normal(size=(*size, inputs)).astype(np.float32), values(node, rng)
    packed = [Entry(**vars(w)).pack(weights[w.ref]) for w in node.weights]
    name = "inverted_residual" if expand else "separable_block"
    arguments = [x, *packed, window(size, kernel, stride, padding), int(shortcut)]
    held(kernels, name, arguments, reference(graph, x, weights))


@few
@given(half=sizes, dim=st.sampled_from([16, 48]))
def test_doubled_sum(kernels: Kernels, half: tuple[int, int], dim: int) -> None:
    height, width = (2 * n for n in half)
    b = Builder({"x": (*half, dim), "finer": (height, width, dim)})
    b("double", "upsample", "x")
    b("y", "add", "double", "finer")
    rng = np.random.default_rng(width)
    x, finer = (rng.normal(size=s).astype(np.float32) for s in (b.shapes["x"], b.shapes["finer"]))
    given_x = {"x": x.astype(np.float64), "finer": finer.astype(np.float64)}
    want = run(b.graph("test", "y"), given_x, lambda w: [])["y"]
    held(kernels, "doubled_sum", [x, finer, (height, width)], want)


Arrays = dict[str, list[np.ndarray[Any, Any]]]


def expect_int8(kernels: Kernels, graph: Graph, x: np.ndarray[Any, Any], arrays: Arrays, step: float = 0.03) -> Any:
    """What the INT8 reference gives for an inverted residual, and what the kernel does: the same bits for any count of
    threads, and nothing past its output.
    """
    node = graph["y"]
    first, taps, project = (Entry(**vars(w)) for w in node.weights)
    codes = {first.ref: (Codes(step, 0.1),), project.ref: (Codes(6 / 254, 3.0),)}
    packed = {e.ref: e.pack_int8(arrays[e.ref], codes[e.ref]) for e in (first, project)}
    packed[taps.ref] = taps.pack(arrays[taps.ref])
    rounded = {e.ref: e.unpack(packed[e.ref]) for e in (first, taps, project)}
    want = run(graph, {"x": x}, lambda w: rounded[w.ref], instead=int8_kernels(graph, codes))["y"]
    a, given = node.attributes, [packed[w.ref] for w in node.weights]
    shape = window(x.shape[:2], a["kernel"], a["stride"], a["padding"])
    outs = []
    for threads in (1, 2, 3):
        out = np.full((len(want) + 1, *want.shape[1:]), np.float32(77))
        kernels.threads(threads)
        kernels("inverted_residual_i8", x, *given, shape, int(a["shortcut"]), out[:-1])
        kernels.threads(1)
        assert (out[-1] == 77).all()
        outs.append(out[:-1])
    np.testing.assert_array_equal(outs[1], outs[0])
    np.testing.assert_array_equal(outs[2], outs[0])
    return want, outs[0]


@few
@given(
    size=sizes,
    kernel=st.tuples(st.integers(1, 5), st.sampled_from([1, 3, 4, 5])),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    inputs=st.sampled_from([16, 20, 40]),
    middle=st.sampled_from([16, 48, 96, 144]),
    outputs=st.sampled_from([8, 16, 24, 40]),
    shortcut=st.booleans(),
)
def test_inverted_residual_i8(
    kernels: Kernels,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    inputs: int,
    middle: int,
    outputs: int,
    shortcut: bool,
) -> None:
    """Held to the INT8 reference; a value on the border of two codes may fall the other way."""
    if shortcut:
        kernel, stride, outputs = (3, 5), (1, 1), inputs
    padding = tuple((k // 2, k // 2) for k in kernel)
    how = {"kernel": kernel, "stride": stride, "padding": padding, "expand": True, "shortcut": shortcut}
    graph, node = built("inverted_residual", size, inputs, middle=middle, outputs=outputs, **how)
    rng = np.random.default_rng(middle)
    x, arrays = rng.normal(size=(*size, inputs)).astype(np.float32), values(node, rng)
    want, got = expect_int8(kernels, graph, x, arrays)
    off = np.abs(got - want)
    assert np.median(off) < 2e-6
    step = float(np.abs(arrays[node.weights[-1].ref][0]).max()) * 6 / 254
    assert off.max() < 0.01 + 12 * step  # a few codes next to each other, through the last layer


@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (11, 11)])
def test_depthwise_sums_reach_the_ends_of_16_bits(kernels: Kernels, kernel: tuple[int, int]) -> None:
    """All taps of one sign, or of two in any order, on levels that are all the highest, or the lowest."""
    padding = tuple((k // 2, k // 2) for k in kernel)
    how = {"kernel": kernel, "stride": (1, 1), "padding": padding, "expand": True, "shortcut": False}
    graph, node = built("inverted_residual", (9, 14), 16, middle=48, outputs=48, **how)
    rng = np.random.default_rng(1)
    arrays = values(node, rng)
    first, taps, project = (arrays[w.ref] for w in node.weights)
    count = kernel[0] * kernel[1]
    first[1][:] = rng.choice([1e30, -1e30, 7, 3], 48)
    signs = np.where(np.arange(count) < rng.integers(0, count + 1, (48, 1)), 1, -1)
    each = signs * rng.choice([1, 1, 0.01], (48, count))
    each[:9] = np.array([1, -1, 0]).repeat(3)[:, None]
    most = np.maximum(np.maximum(each, 0).sum(1), np.maximum(-each, 0).sum(1))
    taps[0][:] = (each / np.maximum(most, 1e-9)[:, None]).reshape(taps[0].shape)
    taps[1][:] = -np.minimum(6 * taps[0].sum((1, 2, 3)), 0) + rng.choice([0, 3], 48)
    project[0][:], project[1][:] = np.eye(48).reshape(project[0].shape), 0
    want, got = expect_int8(kernels, graph, rng.normal(size=(9, 14, 16)).astype(np.float32), arrays)
    assert (want.min(), want.max()) == (0, 6)
    assert np.abs(got - want).max() < 2.5 * 6 / 254  # a tap, or a sum, on the border of two codes
    assert (np.abs(got - want) < 1e-5).mean() > 0.9


@few
@given(
    rows=st.integers(1, 4), cols=st.integers(1, 5), tile=st.sampled_from([1, 2, 4]), dim=st.sampled_from([16, 48, 64])
)
def test_separable_step_i8(kernels: Kernels, rows: int, cols: int, tile: int, dim: int) -> None:
    """On maps whose pixels lie tile by tile; a value on the border of two codes may fall the other way."""
    size = (rows * tile, cols * tile)
    graph, node = built("separable_step", size, dim, kernel=(3, 3))
    rng = np.random.default_rng(dim)
    x, arrays = rng.normal(size=(*size, dim)).astype(np.float32), values(node, rng)
    taps, mix = (Entry(**vars(w)) for w in node.weights)
    codes = {mix.ref: (Codes(0.05, 3.0),)}
    packed = taps.pack(arrays[taps.ref]), mix.pack_int8(arrays[mix.ref], codes[mix.ref])
    known = {taps.ref: arrays[taps.ref], mix.ref: mix.unpack(packed[1])}
    want = run(graph, {"x": x}, lambda w: known[w.ref], instead=int8_kernels(graph, codes))["y"]

    def by_tiles(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(image.reshape(rows, tile, cols, tile, dim).transpose(0, 2, 1, 3, 4))

    want, shape = by_tiles(want), (rows, cols, tile, dim)
    outs = []
    for threads in (1, 2, 3):
        out = np.full((rows + 1, *want.shape[1:]), np.float32(77))
        kernels.threads(threads)
        kernels("separable_step_i8", by_tiles(x), *packed, shape, out[:-1])
        kernels.threads(1)
        assert (out[-1] == 77).all()
        outs.append(out[:-1])
    np.testing.assert_array_equal(outs[1], outs[0])
    np.testing.assert_array_equal(outs[2], outs[0])
    off = np.abs(outs[0] - want)
    assert np.median(off) < 2e-6
    assert off.max() < 3 * 0.05 * np.abs(known[mix.ref][0]).max()


def test_half_precision_weights(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 8, 16)).astype(np.float32)
    _, node = built(
        "inverted_residual",
        (6, 8),
        16,
        middle=32,
        outputs=16,
        kernel=(3, 3),
        stride=(1, 1),
        padding=((1, 1), (1, 1)),
        expand=True,
        shortcut=True,
    )
    first, taps, last = (
        Entry(**vars(w)).pack(a) for w, a in zip(node.weights, values(node, rng).values(), strict=True)
    )
    rounded = [first.astype(np.float16), last.astype(np.float16)]
    got, want = np.empty((2, 6, 8, 16), np.float32)
    shape = window((6, 8), (3, 3), (1, 1), ((1, 1), (1, 1)))
    kernels("inverted_residual", x, rounded[0], taps, rounded[1], shape, 1, got)
    kernels(
        "inverted_residual", x, *(rounded[0].astype(np.float32), taps, rounded[1].astype(np.float32)), shape, 1, want
    )
    np.testing.assert_array_equal(got, want)


def test_wrong_sizes_are_errors_not_crashes(kernels: Kernels) -> None:
    x, out = np.zeros((4, 6, 16), np.float32), np.zeros((4, 6, 16), np.float32)
    first, taps, last = np.zeros(32 * 17, np.float32), np.zeros(10 * 32, np.float32), np.zeros(16 * 33, np.float32)
    shape = window((4, 6), (3, 3), (1, 1), ((1, 1), (1, 1)))
    kernels("inverted_residual", x, first, taps, last, shape, 1, out)
    for arguments, message in [
        ([x, first[:-1], taps, last, shape, 1, out], "expand weight must hold"),
        ([x, first, taps[:-1], last, shape, 1, out], "shapes do not fit"),
        ([x, first, taps[:-20], last, shape, 1, out], "multiple of 16"),
        ([x, first, taps, last[:-1], shape, 1, out], "project weight must hold"),
        ([x, first, taps, last, shape[:-1], 1, out], "ten numbers"),
        ([x, first, taps, last, (*shape[:-1], 0), 1, out], "a window has a size"),
        ([x, first, taps, last, (4, 6, 17, *shape[3:]), 1, out], "up to 16 rows"),
        ([x[:3], first, taps, last, (3, *shape[1:]), 1, out], "has a shortcut"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels("inverted_residual", *arguments)
    many = np.zeros((16 * 9 + 1) * 32, np.float32)
    with pytest.raises(ValueError, match="up to 128 taps"):
        kernels("inverted_residual_i8", x, first, many, last, (4, 6, 16, 9, 1, 1, 8, 4, 4, 6), 1, out)
    with pytest.raises(ValueError, match="two even sides"):
        kernels("doubled_sum", x, out, (3, 6), out)
    with pytest.raises(ValueError, match="no such activation"):
        kernels("convolution", x, np.zeros(16 * 145, np.float32), shape, 0, 4, out)
