"""Every op on odd sizes: what it computes against PyTorch, its work by hand, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from single import Single, node
from torch import Tensor

from edgemtl.errors import CompileError
from edgemtl.graph import ops
from edgemtl.graph.ops._activations import erf, gelu
from edgemtl.graph.ops.route import Routing
from edgemtl.model.gates import route as torch_route
from edgemtl.model.moe import sparse_experts

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6, "gelu": F.gelu}


def as_map(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).permute(2, 0, 1)[None]


def same(got: np.ndarray, want: Tensor) -> None:
    """Against tokens as they are, or a map [1, C, H, W]."""
    expected = want[0].permute(1, 2, 0) if want.ndim == 4 else want
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-9, atol=1e-9)


@given(st.lists(st.floats(-8, 8) | st.floats(-1e-3, 1e-3) | st.floats(allow_nan=False), min_size=1))
@example([0.0, -0.0, 0.46875, -0.46875, math.nextafter(0.46875, 1), 4.0, 6.0, math.nextafter(6.0, 7), math.inf])
def test_erf(values: list[float]) -> None:
    got = erf(np.array(values))
    np.testing.assert_allclose(got, [math.erf(v) for v in values], rtol=1e-15, atol=0)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_of_many_values(dtype: Any) -> None:
    """More than are computed at once, in an array that is no whole piece of memory."""
    x = np.linspace(-9, 9, 3 * 5 * 2003, dtype=dtype).reshape(3, 2003, 5).transpose(0, 2, 1)
    got = gelu(x)
    assert got.dtype == dtype
    want = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.ravel().tolist()]
    np.testing.assert_allclose(got.ravel(), want, rtol=4 * np.finfo(dtype).eps, atol=9 * np.finfo(dtype).eps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("added", [False, True])
def test_linear(activation: str, added: bool) -> None:
    one = Single("linear", (7, 5), *([(7, 3)] if added else []), outputs=3, activation=activation)
    weight, bias = map(torch.from_numpy, one.arrays)
    want = ACTIVATIONS[activation](F.linear(torch.from_numpy(one.inputs[0]), weight, bias))
    same(one.run(), want + torch.from_numpy(one.inputs[1]) if added else want)
    assert one.macs == 7 * 5 * 3
    assert one.node.weights[0].values == 3 * 5 + 3


@pytest.mark.parametrize("skip", [0, 1, 4])
def test_layernorm(skip: int) -> None:
    one = Single("layernorm", (5, 9), eps=1e-3, skip=skip)
    weight, bias = map(torch.from_numpy, one.arrays)
    same(one.run(), F.layer_norm(torch.from_numpy(one.inputs[0][skip:]), (9,), weight, bias, 1e-3))


def test_attention() -> None:
    one = Single("attention", (7, 3 * 15), heads=5)
    q, k, v = torch.from_numpy(one.inputs[0]).reshape(7, 3, 5, 3).permute(1, 2, 0, 3)
    same(one.run(), F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(7, 15))
    assert one.macs == 2 * 7 * 7 * 15


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_route(renormalise: bool, bias: bool) -> None:
    path = (0, 2, 3, 6)
    one = Single("route", (11, 5), held=7, columns=path, top_k=3, renormalise=renormalise, bias=bias)
    weight, *more = (torch.from_numpy(a)[..., path] for a in one.arrays)
    logits = torch.from_numpy(one.inputs[0]) @ weight + sum(more)
    want, got = torch_route(logits, 3, renormalise=renormalise), one.run()
    np.testing.assert_array_equal(got.expert, want.expert)
    same(got.score, want.score)
    assert one.macs == 11 * 5 * 4
    assert ops.find("route").values(one.node) == (5 + bias) * 4


def test_equal_logits_go_to_the_lower_index() -> None:
    one = Single("route", (3, 2), held=5, columns=(0, 1, 2, 3, 4), top_k=3, renormalise=False, bias=False)
    one.weights["trunk:w0"] = [np.array([[1.0, 2, 1, 2, 1]] * 2)]
    one.inputs = (np.array([[1.0, 1], [0, 0], [-1, -1]]),)
    np.testing.assert_array_equal(one.run().expert, [[1, 3, 0], [0, 1, 2], [0, 2, 4]])


def test_experts() -> None:
    rng = np.random.default_rng(0)
    expert = np.stack([rng.permutation(4)[:2] for _ in range(9)])
    expert[expert == 2] = 3  # one that nobody chooses; some choose another one twice, which no gate does
    expert = expert[expert[:, 0] != expert[:, 1]]
    routing, n = Routing(expert, rng.random((len(expert), 2))), len(expert)
    x, residual = rng.standard_normal((2, n, 5))
    one = Single("experts", (n, 5), (n, 2), (n, 5), values=(x, routing, residual), experts=(1, 4, 5, 8), hidden=3)
    banks = [torch.from_numpy(np.stack(b)) for b in zip(*one.weights.values(), strict=True)]
    arguments = (torch.from_numpy(x), torch.from_numpy(routing.expert), torch.from_numpy(routing.score))
    same(one.run(), torch.from_numpy(residual) + sparse_experts(*arguments, *banks))
    assert one.macs == n * 2 * 2 * 5 * 3
    assert [w.kind for w in one.node.weights] == ["expert"] * 4


def test_patch_embed() -> None:
    one = Single("patch_embed", (6, 9, 3), outputs=5, patch=3)
    weight, bias, first, positions = map(torch.from_numpy, one.arrays)
    patches = F.conv2d(as_map(one.inputs[0]), weight, bias, 3).flatten(2).transpose(1, 2)
    same(one.run(), (torch.cat([first, patches], 1) + positions)[0])
    assert one.macs == 6 * 5 * 27


def test_positions() -> None:
    one = Single("positions", (7, 3))
    np.testing.assert_array_equal(one.run(), one.inputs[0] + one.arrays[0][0])


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"kernel": (3, 3), "padding": ((1, 1), (1, 1))},
    {"kernel": (3, 3), "padding": ((0, 1), (0, 1)), "stride": (2, 2)},
    {"kernel": (5, 3), "padding": ((2, 3), (0, 2)), "stride": (1, 3)},
    {"kernel": (3, 3), "groups": 6, "outputs": 6},
    {"kernel": (2, 3), "groups": 3, "outputs": 9},
    {"kernel": (1, 1), "groups": 2, "outputs": 4},
    {"kernel": (7, 1), "bias": False},
    {"activation": "relu"},
    {"activation": "relu6"},
    {"activation": "gelu", "kernel": (3, 3)},
]


@pytest.mark.parametrize("changes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("added", [False, True])
def test_convolution(changes: dict[str, Any], added: bool) -> None:
    usual = {"outputs": 4, "kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}
    a: dict[str, Any] = {**usual, "activation": "none", "bias": True, **changes}
    shape = node("convolution", (7, 11, 6), **a).shape
    one = Single("convolution", (7, 11, 6), *([shape] if added else []), **a)
    weight, *bias = map(torch.from_numpy, one.arrays)
    padded = F.pad(as_map(one.inputs[0]), (*a["padding"][1], *a["padding"][0]))
    want = F.conv2d(padded, weight, bias[0] if bias else None, a["stride"], groups=a["groups"])
    want = ACTIVATIONS[a["activation"]](want)
    same(one.run(), want + as_map(one.inputs[1]) if added else want)
    assert one.macs == want[0, 0].numel() * weight.numel()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({}, "linear"), ({"kernel": (3, 3)}, "conv"), ({"kernel": (3, 3), "groups": 6, "outputs": 6}, "taps"),
     ({"groups": 2}, "conv"), ({"bias": False}, "vector")],
)  # fmt: skip
def test_how_a_convolution_is_packed(changes: dict[str, Any], kind: str) -> None:
    usual = {"outputs": 4, "kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}
    one = node("convolution", (7, 11, 6), **{**usual, "activation": "none", "bias": True, **changes})
    assert one.weights[0].kind == kind


@pytest.mark.parametrize(("expand", "shortcut", "stride"), [(True, True, 1), (True, False, 2), (False, False, 1)])
def test_inverted_residual(expand: bool, shortcut: bool, stride: int) -> None:
    middle, outputs, pad = 12 if expand else 4, 4 if shortcut else 5, ((1, 1), (0, 2))
    a = {"middle": middle, "outputs": outputs, "kernel": (3, 3), "stride": (stride, stride), "padding": pad}
    one = Single("inverted_residual", (7, 9, 4), **a, expand=expand, shortcut=shortcut)
    x = start = as_map(one.inputs[0])
    *first, (taps, second), (project, third) = [tuple(map(torch.from_numpy, w)) for w in one.weights.values()]
    for weight, bias in first:
        x = F.relu6(F.conv2d(x, weight, bias))
    x = F.relu6(F.conv2d(F.pad(x, (0, 2, 1, 1)), taps, second, stride, groups=middle))
    x = F.conv2d(x, project, third)
    same(one.run(), x + start if shortcut else x)
    pixels = x[0, 0].numel()
    assert one.macs == 63 * 4 * middle * expand + pixels * (9 * middle + middle * outputs)


def test_separable_step() -> None:
    one = Single("separable_step", (5, 7, 3), kernel=(3, 5))
    taps, first, mix, second = map(torch.from_numpy, one.arrays)
    x = as_map(one.inputs[0])
    same(one.run(), x + F.conv2d(F.gelu(F.conv2d(x, taps, first, padding=(1, 2), groups=3)), mix, second))
    assert one.macs == 35 * (3 * 15 + 9)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 3)])
def test_upsample(size: tuple[int, int]) -> None:
    one = Single("upsample", (*size, 3))
    same(one.run(), F.interpolate(as_map(one.inputs[0]), scale_factor=2.0, mode="bilinear", align_corners=False))


def test_what_only_moves_values() -> None:
    one = Single("tiles", (15, 8), grid=(3, 5), tile=2)
    want = torch.from_numpy(one.inputs[0]).reshape(1, 3, 5, 2, 2, 2).permute(0, 5, 1, 3, 2, 4).reshape(1, 2, 6, 10)
    same(one.run(), want)
    one = Single("concat", (3, 5, 2), (3, 5, 1), (3, 5, 4))
    np.testing.assert_array_equal(one.run(), np.concatenate(one.inputs, 2))
    one = Single("reshape", (15, 4), shape=(3, 5, 4))
    np.testing.assert_array_equal(one.run(), one.inputs[0].reshape(3, 5, 4))
    one = Single("add", (3, 5, 2), (3, 5, 2))
    np.testing.assert_array_equal(one.run(), one.inputs[0] + one.inputs[1])


def test_rays_meet_the_cameras_border() -> None:
    rays = Single("rays", rows=3, columns=5, fov=90.0).run()
    assert rays.dtype == np.float32
    np.testing.assert_allclose(rays[0, :, 0], np.array([-4, -2, 0, 2, 4]) / 5, atol=1e-6)  # half a pixel within 1
    np.testing.assert_allclose(rays[:, 0, 1], np.array([2, 0, -2]) / 5, atol=1e-6)


MAP = {"outputs": 4, "kernel": (3, 3), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1, "bias": True}


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "message"),
    [
        ("linear", [(7, 5), (7, 4)], {"outputs": 3, "activation": "none"}, "what is added"),
        ("linear", [], {"outputs": 3, "activation": "none"}, "takes tokens"),
        ("convolution", [(4, 8)], {**MAP, "activation": "none"}, "takes a map"),
        ("linear", [(7, 5)], {"outputs": 3, "activation": "tanh"}, "no activation 'tanh'; choose one of none"),
        ("layernorm", [(2, 5)], {"eps": 1e-6, "skip": 2}, "of 2 tokens it cannot leave out 2"),
        ("attention", [(7, 32)], {"heads": 3}, "do not divide"),
        ("route", [(7, 5)], {"held": 4, "columns": (2, 1), "top_k": 1}, "columns ascend"),
        ("route", [(7, 5)], {"held": 4, "columns": (1, 2), "top_k": 3}, "of 2 experts it cannot choose 3"),
        ("experts", [(7, 5), (6, 2), (7, 5)], {"experts": (1, 2), "hidden": 3}, "a routing"),
        ("experts", [(7, 5), (7, 2), (7, 5)], {"experts": (1,), "hidden": 3}, "chooses 2 of its experts"),
        ("patch_embed", [(6, 8, 3)], {"outputs": 5, "patch": 3}, "not whole in patches of 3"),
        ("positions", [(6, 8, 3)], {}, "takes tokens"),
        ("convolution", [(2, 8, 3)], {**MAP, "activation": "none"}, "does not fit a map"),
        ("convolution", [(4, 8, 3)], {**MAP, "groups": 2, "activation": "none"}, "3 to 4 channels are not 2 groups"),
        ("inverted_residual", [(4, 8, 3)], {**MAP, "middle": 5, "expand": False}, "without a first step"),
        ("inverted_residual", [(4, 8, 3)], {**MAP, "middle": 3, "expand": False, "shortcut": True}, "a shortcut"),
        ("separable_step", [(4, 8, 3)], {"kernel": (3, 2)}, "an odd kernel"),
        ("upsample", [(4, 8)], {}, "takes a map"),
        ("concat", [(4, 8, 1), (4, 7, 1)], {}, "in their channels alone"),
        ("tiles", [(15, 9)], {"grid": (3, 5), "tile": 2}, "are not tiles"),
        ("reshape", [(15, 9)], {"shape": (3, 5)}, "has not the values"),
        ("add", [(4, 8), (4, 7)], {}, "of one shape"),
        ("rays", [], {"rows": 3, "columns": 5, "fov": 180}, "between 0 and 180"),
    ],
)
def test_what_an_op_refuses(op: str, shapes: list[Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        node(op, *shapes, **attributes)


def test_an_unknown_op_is_named() -> None:
    with pytest.raises(CompileError, match="there is no op 'pool'; edgemtl/graph/ops has add, attention"):
        ops.find("pool")
