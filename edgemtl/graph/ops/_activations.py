"""The functions that are applied value by value, and the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgemtl.graph.node import Array

# Rational approximations of erf(x) / x in x² up to 0.46875, and of exp(x²) · erfc(x) in x beyond (Cody, "Rational
# Chebyshev approximations for the error function", Math. Comp. 23, 1969; digits of SPECFUN's CALERF). The latter is
# for x up to 4; what it adds to 1 from there on is small enough.
_INNER = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_OUTER = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_AT_ONCE = 8192  # values that stay in the cache


def _ratio(x: Array, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> Array:
    """The first polynomial over the second, highest power first."""
    sums = []
    for first, *others in polynomials:
        total = np.full_like(x, first)
        for coefficient in others:
            total *= x
            total += coefficient
        sums.append(total)
    out: Array = sums[0] / sums[1]
    return out


def erf(x: Array) -> Array:
    """The error function; in float64 within two units in the last place."""
    size = np.minimum(np.abs(x), 6)
    inner = size * _ratio(size * size, _INNER)
    outer = 1 - np.exp(-size * size) * _ratio(size, _OUTER)
    out: Array = np.copysign(np.where(size <= 0.46875, inner, outer), x)
    return out


def gelu(x: Array) -> Array:
    """x times the Gaussian's distribution function, exactly (Hendrycks & Gimpel, 2016)."""
    flat = x.reshape(-1)
    out = np.empty_like(flat)
    for first in range(0, flat.size, _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        out[part] = flat[part] * (0.5 + 0.5 * erf(flat[part] / math.sqrt(2)))
    return out.reshape(x.shape)


def softmax(x: Array) -> Array:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    out: Array = e / e.sum(-1, keepdims=True)
    return out


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "gelu": gelu,
}


def known(activation: str) -> None:
    """Raise ValueError for an activation that is not here."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"there is no activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
