"""The conv head's kernel on every instruction set at hand, against PyTorch in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_library import Kernels

from edgemtl.bundle.layout import Entry

shapes = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def case(height: int, width: int, dim: int, channels: int, twice: bool) -> tuple[Any, Any, Any]:
    """A map [h, w, dim], the packed layer, and ReLU of its convolution [height, width, channels]."""
    g = torch.Generator().manual_seed(height * 100 + width)
    scale = 2 if twice else 1
    x = torch.randn(1, dim, height // scale, width // scale, generator=g)
    weight, bias = torch.randn(channels, dim, 3, 3, generator=g) / dim, torch.randn(channels, generator=g)
    entry = Entry("task.t", "head.conv_0", "conv", (("weight", tuple(weight.shape)), ("bias", (channels,))))
    packed = entry.pack([weight.numpy(), bias.numpy()])
    for mine, theirs in zip(entry.unpack(packed), (weight, bias), strict=True):
        np.testing.assert_array_equal(mine, theirs.numpy())
    y = x.double()
    if twice:
        y = F.interpolate(y, size=(height, width), mode="bilinear", align_corners=False)
    want = F.conv2d(y, weight.double(), bias.double(), padding=1).clamp(min=0)
    rows = x[0].permute(1, 2, 0).reshape(-1, dim).contiguous().numpy()
    return rows, packed, want[0].permute(1, 2, 0).reshape(-1, channels).numpy()


@shapes
@given(
    half=st.tuples(st.integers(1, 6), st.integers(1, 35)),
    dim=st.sampled_from([16, 48]),
    channels=st.integers(1, 70),
    twice=st.booleans(),
)
def test_conv_relu(kernels: Kernels, half: tuple[int, int], dim: int, channels: int, twice: bool) -> None:
    height, width = (2 * n if twice else n for n in half)
    x, packed, want = case(height, width, dim, channels, twice)
    out = np.full((height * width + 1, channels), np.float32(77))
    kernels("conv_relu", x, packed, (height, width), int(twice), out[:-1])
    assert np.abs(out[:-1] - want).max() <= 2e-6 * max(1.0, float(np.abs(want).max()))
    assert (out[-1] == 77).all()
    again = np.empty(want.shape, np.float32)
    kernels.threads(3)
    kernels("conv_relu", x, packed, (height, width), int(twice), again)
    kernels.threads(1)
    np.testing.assert_array_equal(again, out[:-1])  # to the bit, whatever the number of threads


def test_half_precision_weights(kernels: Kernels) -> None:
    x, packed, _ = case(4, 6, 16, 24, True)
    got, want = np.empty((2, 24, 24), np.float32)
    half = packed.astype(np.float16)
    kernels("conv_relu", x, half, (4, 6), 1, got)
    kernels("conv_relu", x, half.astype(np.float32), (4, 6), 1, want)
    np.testing.assert_array_equal(got, want)


def test_wrong_sizes_are_errors_not_crashes(kernels: Kernels) -> None:
    x, packed, want = case(4, 6, 16, 24, True)
    out = np.empty(want.shape, np.float32)
    for arguments, message in [
        ([x, packed[:-1], (4, 6), 1, out], "convolution's weight must hold"),
        ([x, packed, (4, 6), 0, out], "convolution's weight must hold|shapes do not fit|multiple of 16"),
        ([x, packed, (3, 8), 1, out], "a doubled map has even sides"),
        ([x, packed, (4, 6), 1, out[:-1]], "shapes do not fit"),
        ([x, packed, (4, 6, 1), 1, out], "a map is given as height, width"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels("conv_relu", *arguments)
