"""The functions that are applied value by value, and the softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgemtl.graph.node import Array

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x: Array) -> Array:
    """x times the Gaussian's distribution function, exactly (Hendrycks & Gimpel, 2016)."""
    out: Array = (x * (0.5 + 0.5 * _erf(x / math.sqrt(2)))).astype(x.dtype)
    return out


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
