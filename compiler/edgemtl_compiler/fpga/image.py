"""The weight image: every table of an integer network as the kernels read it from DDR.

The unit of address is the quad, 64 bytes: one 128-bit word of each of four banks, which lie behind four ports and are
read in step. Weights come in tiles of 16 output channels, in the order of their use, so every burst is sequential.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.fpga.contract import LANES, PORTS, WORD
from edgemtl.graph.integer.params import Attention, Gate, Gelu, Linear, Mlp, Norm, Scaling, Taps

QUAD = PORTS * WORD  # bytes
GATE_LIMIT = 2**14 - 1  # of a gate's weights: docs/numerics.md


def _padded(values: NDArray[Any], rows: int) -> NDArray[Any]:
    return np.pad(values, [(0, rows - len(values))] + [(0, 0)] * (values.ndim - 1))


def quads(*arrays: NDArray[Any]) -> bytes:
    """Little-endian bytes of the arrays one after the other, padded to whole quads."""
    data = b"".join(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in arrays)
    return data + bytes(-len(data) % QUAD)


def packed(multiplier: Any, shift: Any) -> NDArray[np.uint32]:
    """Factors as the kernels read them: multiplier in the low 24 bits, shift in the high 8."""
    return (np.asarray(shift, np.uint32) << np.uint32(24)) | np.asarray(multiplier, np.uint32)


def bias_and_factor(u: Linear | Scaling | Taps) -> NDArray[np.uint32]:
    """Bias and factor [N, 2], N padded to whole tiles with channels that give zero."""
    n = -(-len(u.bias) // LANES) * LANES
    both = np.stack([u.bias.astype(np.int32).view(np.uint32), packed(u.multiplier, u.shift)], 1)
    out = _padded(both, n)
    out[len(both) :, 1] = packed(0, 1)
    return out


def linear(u: Linear) -> bytes:
    """Tiles of 16 channels: bias and factor of each, then 16 weights per input."""
    channels = bias_and_factor(u)
    weight = _padded(u.weight, len(channels))
    tiles = range(0, len(channels), LANES)
    return b"".join(quads(channels[t : t + LANES]) + quads(weight[t : t + LANES].T) for t in tiles)


def gelu(u: Gelu) -> bytes:
    """Step and zero point in the first quad, then the table."""
    return quads(np.array([u.step, u.zero], np.int32)) + quads(u.table)


def norm(u: Norm) -> bytes:
    """Epsilon, 64 bits, in the first quad, then gamma and beta of each channel."""
    return quads(np.array([u.epsilon], np.uint64)) + quads(np.stack([u.gamma, u.beta], 1))


def attention(u: Attention) -> bytes:
    """Factors of the exponent per head in the first quad, then of the output per channel."""
    return quads(packed(u.exp_multiplier, u.exp_shift)) + quads(packed(u.out_multiplier, u.out_shift))


def gate(u: Gate) -> bytes:
    """Count and factor, the path's slots, the biases, then the weights as two tiles of the linear unit.

    A weight, saturated to 15 bits, is 128 times an INT8 upper half and a lower one of 0 to 127. The kernel takes the
    products' sums as they are; factors of 2 / 2 give the same from a unit that always scales, as the RTL's does.
    """
    head = np.array([len(u.experts), int(packed(u.multiplier, u.shift))], np.uint32)
    weight = np.clip(_padded(u.weight, LANES), -GATE_LIMIT, GATE_LIMIT)
    halves = np.concatenate([weight >> 7, weight & 127]).astype(np.int8)
    none = np.zeros(2 * LANES, np.int32)
    product = linear(Linear(halves, none, np.full(2 * LANES, 2, np.int32), np.ones(2 * LANES, np.uint8)))
    return quads(head) + quads(np.array(u.experts, np.uint32)) + quads(_padded(u.bias, LANES)) + product


def mlp(u: Mlp) -> bytes:
    """Table of GELU, first layer, second layer."""
    return gelu(u.gelu) + linear(u.fc1) + linear(u.fc2)


def narrow(u: Scaling) -> bytes:
    """Bias and factor per channel."""
    return quads(bias_and_factor(u))


class ImageBuilder:
    """Collects tables and tells each one's address in quads."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.quads = 0

    def add(self, data: bytes) -> int:
        """Appends whole quads and returns their address."""
        assert len(data) % QUAD == 0
        at = self.quads
        self._parts.append(data)
        self.quads += len(data) // QUAD
        return at

    def banks(self) -> NDArray[np.uint8]:
        """The image as the four banks' bytes [4, quads, 16]."""
        flat = np.frombuffer(b"".join(self._parts), np.uint8)
        return np.ascontiguousarray(flat.reshape(-1, PORTS, WORD).swapaxes(0, 1))
