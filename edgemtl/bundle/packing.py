"""One linear layer, expert or vector as a flat array, in the order in which the kernels read it; and back.

Panels of 16 output channels serve every machine: one AVX-512 load, two AVX2 loads or four NEON loads per step. Float
panels (float32, float16 or bfloat16) hold one input channel per step, INT8 panels four, which is what a dot-product
instruction takes at once. INT8 weights have one scale per output channel, the way of Jacob et al. (CVPR 2018).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.manifest import PAGE

LANES = 16  # output channels of a panel, and floats of a 64-byte line
LINE = 64  # bytes
GROUP = 4  # input channels that one lane of a dot-product instruction takes
PAGE_FLOATS = PAGE // 4

Array = NDArray[np.float32]
Packed = NDArray[Any]  # float32, float16, uint16: the bits of bfloat16, or uint8: the bytes of an INT8 layer


class Codes(NamedTuple):
    """What a code of an INT8 layer's input, -127..127, stands for: code * step + centre."""

    step: float
    centre: float = 0.0


def round_up(n: int, unit: int = LANES) -> int:
    """The least multiple of `unit` that is at least n."""
    return -(-n // unit) * unit


def padded(values: Packed, size: int) -> Packed:
    """`values` flat, with zeros behind it up to `size`."""
    out = np.zeros(size, values.dtype)
    out[: values.size] = values.ravel()
    return out


def to_bfloat16(values: Array) -> NDArray[np.uint16]:
    """The bits of each value's nearest bfloat16 (ties to even): the upper half of a float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def from_bfloat16(bits: NDArray[np.uint16]) -> Array:
    """The float32 values of bfloat16's bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def linear_size(n: int, k: int) -> int:
    """Floats that a packed [n, k] linear layer takes."""
    return round_up(n) * (k + 1)


def pack_linear(weight: Array, bias: Array) -> Array:
    """Panels of weight [N, K], then bias [N]."""
    n, k = weight.shape
    wide = np.zeros((round_up(n), k), np.float32)
    wide[:n] = weight
    panels = wide.reshape(-1, LANES, k).transpose(0, 2, 1)
    return np.concatenate([panels.ravel(), padded(bias, round_up(n))])


def unpack_linear(packed: Packed, n: int, k: int) -> tuple[Array, Array]:
    """Weight [n, k] and bias [n], float32, of what `pack_linear` made."""
    split = round_up(n) * k
    weight = packed[:split].reshape(-1, k, LANES).transpose(0, 2, 1).reshape(-1, k)[:n]
    return np.ascontiguousarray(weight, np.float32), packed[split : split + n].astype(np.float32)


def expert_size(dim: int, hidden: int, itemsize: int = 4) -> int:
    """Floats of `itemsize` bytes that a packed expert takes, padding to whole pages included."""
    return round_up(linear_size(hidden, dim) + linear_size(dim, hidden), PAGE // itemsize)


def pack_expert(w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """w1 [H, C], b1 [H], w2 [C, H], b2 [C]: two packed linear layers, padded to whole pages."""
    hidden, dim = w1.shape
    return padded(np.concatenate([pack_linear(w1, b1), pack_linear(w2, b2)]), expert_size(dim, hidden))


def unpack_expert(packed: Packed, dim: int, hidden: int) -> tuple[Array, Array, Array, Array]:
    """w1, b1, w2, b2 of what `pack_expert` made."""
    w1, b1 = unpack_linear(packed, hidden, dim)
    w2, b2 = unpack_linear(packed[linear_size(hidden, dim) :], dim, hidden)
    return w1, b1, w2, b2


def pack_rows(*rows: Array) -> Array:
    """Each array flat and padded to whole lines: vectors, norms, a convolution's taps by channel."""
    return np.concatenate([padded(r, round_up(r.size)) for r in rows])


def quantise_rows(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """INT8 codes [N, K], -127..127, of weight [N, K], and the scale [N] of each row: weight is about codes * scale."""
    scale = np.abs(weight).max(1, initial=0) / np.float32(127)
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def linear_bytes(n: int, k: int) -> int:
    """Bytes that an INT8 [n, k] linear layer takes."""
    return LINE + round_up(n) * (round_up(k, GROUP) + 3 * 4)


def pack_linear_i8(weight: Array, bias: Array, step: float, centre: float = 0.0) -> NDArray[np.uint8]:
    """Weight [N, K] and bias [N] as INT8 for an input of `Codes(step, centre)`.

    One line that begins with `step` and `centre`; panels [ceil(N / 16)][ceil(K / 4)][16][4]; then per output channel
    the scale of the sum (float32), the bias with the centre's share in it (float32), and 128 times the sum of its codes
    (int32), for the instructions that want one operand without sign and so get the input's codes plus 128.
    """
    n, k = weight.shape
    codes, scale = quantise_rows(weight)
    bias = bias + np.float32(centre) * scale * codes.sum(1, dtype=np.float32)
    wide = np.zeros((round_up(n), round_up(k, GROUP)), np.int8)
    wide[:n, :k] = codes
    panels = wide.reshape(-1, LANES, wide.shape[1] // GROUP, GROUP).transpose(0, 2, 1, 3)
    pieces = [
        padded(np.array([step, centre], np.float32), LINE // 4),
        panels.ravel(),
        padded(scale * np.float32(step), round_up(n)),
        padded(bias.astype(np.float32), round_up(n)),
        128 * wide.sum(1, dtype=np.int32),
    ]
    return np.concatenate([p.view(np.uint8) for p in pieces])


def unpack_linear_i8(packed: NDArray[np.uint8], n: int, k: int) -> tuple[Array, Array]:
    """Weight [n, k] and bias [n], the float32 values that the codes stand for."""
    wide, groups = round_up(n), round_up(k, GROUP) // GROUP
    step, centre = packed[:8].view(np.float32)
    at = LINE + wide * groups * GROUP
    codes = packed[LINE:at].view(np.int8).reshape(-1, groups, LANES, GROUP).transpose(0, 2, 1, 3).reshape(wide, -1)
    scale, bias = packed[at : at + 8 * wide].view(np.float32).reshape(2, wide)
    scale = scale[:n] / step
    return codes[:n, :k] * scale[:, None], bias[:n] - centre * scale * codes[:n].sum(1, dtype=np.float32)


def expert_bytes(dim: int, hidden: int) -> int:
    """Bytes that an INT8 expert takes, padding to whole pages included."""
    return round_up(linear_bytes(hidden, dim) + linear_bytes(dim, hidden), PAGE)


def pack_expert_i8(w1: Array, b1: Array, w2: Array, b2: Array, outer: Codes, inner: Codes) -> NDArray[np.uint8]:
    """Two INT8 layers, padded to whole pages, with the codes of the expert's input and of its hidden values."""
    both = np.concatenate([pack_linear_i8(w1, b1, *outer), pack_linear_i8(w2, b2, *inner)])
    return padded(both, expert_bytes(w1.shape[1], w1.shape[0]))


def unpack_expert_i8(packed: NDArray[np.uint8], dim: int, hidden: int) -> tuple[Array, Array, Array, Array]:
    """w1, b1, w2, b2 of what `pack_expert_i8` made."""
    w1, b1 = unpack_linear_i8(packed, hidden, dim)
    w2, b2 = unpack_linear_i8(packed[linear_bytes(hidden, dim) :], dim, hidden)
    return w1, b1, w2, b2
