"""From float weights and ranges to the integer units' parameters: one builder per unit.

An INT8 code c of an activation stands for c · scale + centre, per channel or for all. The next layer takes scales
into its weights and centres into its bias, so they cost nothing (CoQMoE, 2506.08496, for LayerNorm's channels). How
much of a channel's range goes into the weights is a power between 0 and 1, chosen per layer by the error it leaves
(after SmoothQuant, Xiao et al., ICML 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import fixed_point
from edgemtl.graph.integer.gelu import FRACTION_BITS, REACH, gelu_table
from edgemtl.graph.integer.layernorm import GAMMA_BITS
from edgemtl.graph.integer.params import Gate, Gelu, Linear, Norm, Scaling
from edgemtl.graph.integer.routing import WEIGHT_LIMIT
from edgemtl.graph.ops._activations import gelu
from edgemtl_compiler.quantise.calibrate import Float, Range

BIAS_BITS = 24  # a channel's weights get a coarser scale rather than a bias beyond this
LEAST_FACTOR = 2.0**-29
CUTS = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1)
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
GELU_LOW, GELU_AT = -0.169971, -0.751792  # GELU's minimum and where it lies


@dataclass(frozen=True)
class Codes:
    """What INT8 codes mean: value = code · scale + centre, both [C] (or [1] for all)."""

    scale: Float
    centre: Float

    def fake(self, x: Float) -> Float:
        """x as the codes hold it."""
        return np.clip(np.rint((x - self.centre) / self.scale), -128, 127) * self.scale + self.centre


def plain(scale: float) -> Codes:
    """One scale, centred at zero."""
    return Codes(np.array([scale]), np.zeros(1))


def linear(weight: Float, bias: Float, codes: Codes, unit: Float | float) -> Linear:
    """weight [N, K] and bias [N] for inputs of `codes`; the scaled sum is in `unit` (one, or [N])."""
    folded = weight * codes.scale
    total = bias + weight @ np.broadcast_to(codes.centre, weight.shape[1])
    step = np.maximum(np.abs(folded).max(1) / 127, np.abs(total) * 2.0**-BIAS_BITS)
    step = np.maximum(step, np.asarray(unit) * LEAST_FACTOR)
    q = np.rint(folded / step[:, None]).astype(np.int8)
    return Linear(q, np.rint(total / step).astype(np.int32), *fixed_point(step / unit))


def _product(x: Float, weight: Float) -> NDArray[np.float32]:
    return x.astype(np.float32) @ weight.astype(np.float32).T


def balanced(r: Range, weight: Float, floor: Float | float = 0.0) -> Codes:
    """Codes per channel for rows that only `weight` [N, C] reads; `floor` [C] is the least scale of a channel."""
    centre, reach = (r.high + r.low) / 2, (r.high - r.low) / 2
    most = max(float(reach.max()), 1e-6)
    share = np.maximum(reach / most, 1e-3)
    x, best, least = r.sample, None, math.inf
    exact = _product(x, weight)
    for power in POWERS:
        codes = Codes(np.maximum(most / 127 * share**power, floor), centre)
        folded = weight * codes.scale
        step = np.maximum(np.abs(folded).max(1, keepdims=True), 1e-12) / 127
        seen = _product(codes.fake(x), np.rint(folded / step) * step / codes.scale)
        error = float(np.square(seen - exact).sum())
        if error < least:
            best, least = codes, error
    assert best is not None
    return best


def norm(gamma: Float, beta: Float, eps: float, r: Range, weight: Float, stream_bits: int) -> tuple[Norm, Codes]:
    """LayerNorm whose INT8 output only `weight` [N, D] reads, and the meaning of its codes."""
    codes = balanced(r, weight, np.abs(gamma) / 512)
    epsilon = max(1, round(eps * 4.0**stream_bits * len(gamma) ** 2))
    fixed = [np.rint(v / codes.scale * 2.0**GAMMA_BITS) for v in (gamma, beta - codes.centre)]
    fixed = [np.clip(v, -(2.0**31), 2.0**31 - 1).astype(np.int32) for v in fixed]
    return Norm(fixed[0], fixed[1], epsilon), codes


def _gelu(x: float) -> float:
    return x * 0.5 * math.erfc(-x / math.sqrt(2))


def gelu_int8(r: Range, weight: Float, most: float) -> tuple[Gelu, Codes, float]:
    """GELU to INT8 for inputs of range `r`: the table, its output's codes, and the input's unit.

    The top of the range is cut where that leaves the least error behind `weight` [N, C], which reads the output, and
    at most a share `most` of the kept values saturates: a few outliers would coarsen the codes of all the rest.
    """
    low, high = float(r.low.min()), float(r.high.max())
    bottom = GELU_LOW if low < GELU_AT < high else min(_gelu(low), _gelu(high), 0.0)
    top = max(_gelu(high), _gelu(low), 0.0)
    # The INT16 input must reach as far down as the data or GELU's tail do, whatever the output's range.
    floor = max(min(-low, REACH) / 2.0 ** (15 - FRACTION_BITS), 1e-4)
    output = gelu(r.sample).astype(np.float64, copy=False)
    exact, scale, least = _product(output, weight), math.inf, math.inf
    for cut in CUTS:
        tried = max((top * cut - bottom) / 255, floor)
        if cut < 1 and (output > bottom + 255.5 * tried).mean() > most:
            break
        codes = np.clip(np.rint((output - bottom) / tried), 0, 255) * tried + bottom
        error = float(np.square(_product(codes, weight) - exact).sum())
        if error < least:
            scale, least = tried, error
    zero = -128 - round(bottom / scale)
    unit = scale / 2**FRACTION_BITS
    return gelu_table(unit, zero), Codes(np.array([scale]), np.array([-zero * scale])), unit


def narrow(codes: Codes, stream_unit: float) -> Scaling:
    """A stream of `stream_unit` to INT8 codes."""
    bias = np.rint(-codes.centre / stream_unit).astype(np.int32)
    return Scaling(bias, *fixed_point(stream_unit / codes.scale))


def gate(weight: Float, codes: Codes, slots: tuple[int, ...]) -> Gate:
    """weight [E, D] over a task's path for rows of `codes`; one unit for all of the gate's logits."""
    folded, bias = weight * codes.scale, weight @ codes.centre
    unit = max(float(np.abs(folded).max()) / WEIGHT_LIMIT, float(np.abs(bias).max()) * 2.0**-28, 1e-11)
    multiplier, shift = fixed_point(unit * 256 / math.log(2))
    q = np.rint(folded / unit).astype(np.int16)
    return Gate(q, np.rint(bias / unit).astype(np.int32), slots, int(multiplier), int(shift))


def stream_bits(most: float, most_bits: int = 14) -> int:
    """Fraction bits of an INT16 stream whose greatest calibrated magnitude is `most`, with half as much to spare.

    Raises ValueError where not even whole units fit.
    """
    bits = math.floor(math.log2(32767 / (1.5 * max(most, 1e-3))))
    if bits < 0:
        raise ValueError(f"a stream that reaches {most:g} does not fit INT16")
    return min(bits, most_bits)


def clipped(r: Range, percentile: float, groups: int) -> NDArray[np.float64]:
    """Greatest magnitude per group of channels [groups]: the maximum at 100, else a percentile of the kept rows."""
    if percentile >= 100:
        each = np.maximum(-r.low, r.high)
        reach = each.reshape(groups, -1).max(1)
    else:
        sample = np.abs(r.sample).reshape(len(r.sample), groups, -1)
        reach = np.percentile(np.moveaxis(sample, 1, 0).reshape(groups, -1), percentile, axis=1)
    return np.maximum(reach, max(float(reach.max()) * 1e-3, 1e-3))
