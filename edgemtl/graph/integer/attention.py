"""Attention on integers: exact scores, softmax weights relative to the exact maximum, exact weighted sums.

Mathematically two passes over a query's keys (maximum; weights and sums), and every pass is exact, so any order of
keys gives the same integers. The kernel streams keys and values once per block of queries and never restarts
(Edge-MoE's reordering, Sarkar et al., ICCAD 2023), with the second pass one block behind the first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import scaled_int8
from edgemtl.graph.integer.params import Attention
from edgemtl.graph.integer.softmax import RECIPROCAL_BITS, reciprocal, softmax_weights

MEAN_BITS = 16  # fraction bits of a weighted mean before its last requantisation


def attention(q: NDArray[np.int8], k: NDArray[np.int8], v: NDArray[np.int8], params: Attention) -> NDArray[np.int8]:
    """q, k, v [N, D] to the heads' outputs [N, D]; head h has the channels h · D / heads and following."""
    tokens, dim = q.shape
    heads = len(params.exp_multiplier)
    split = [np.moveaxis(a.reshape(tokens, heads, -1), 1, 0).astype(np.float64) for a in (q, k, v)]
    logits = (split[0] @ split[1].transpose(0, 2, 1)).astype(np.int64)  # exact: below 2^53
    weights = softmax_weights(logits, params.exp_multiplier[:, None, None], params.exp_shift[:, None, None])
    total = weights.sum(-1, keepdims=True)
    weighted = (weights.astype(np.float64) @ split[2]).astype(np.int64)
    by = RECIPROCAL_BITS - MEAN_BITS
    mean = (weighted * reciprocal(total) + (1 << (by - 1))) >> by
    return scaled_int8(np.moveaxis(mean, 0, 1).reshape(tokens, dim), params.out_multiplier, params.out_shift)
