"""Gate, top-k and expert queues on integers (M3ViT's routing, Liang et al., NeurIPS 2022).

Logits are exact INT32 sums with one scale for all experts of a gate, so ranking them needs no rounding. Equal logits
go to the lower expert index. A score is the softmax over the task's path, not renormalised over the chosen experts
unless the model asks for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.linear import SCORE_BITS
from edgemtl.graph.integer.params import Gate
from edgemtl.graph.integer.softmax import RECIPROCAL_BITS, reciprocal, softmax_weights

LOGIT_BIAS_LIMIT = 2**29  # a bias outside ± this is saturated when it is loaded
WEIGHT_LIMIT = 2**14 - 1  # of a gate's INT16 weights, so that 384 products and the bias stay below 2^31

Queues = list[tuple[NDArray[np.int64], NDArray[np.uint16]]]


def gate_logits(x: NDArray[np.int8], gate: Gate) -> NDArray[np.int32]:
    """x [M, D] to INT32 logits [M, E] over the experts of the task's path."""
    bias = np.clip(gate.bias.astype(np.int64), -LOGIT_BIAS_LIMIT, LOGIT_BIAS_LIMIT)
    weight = np.clip(gate.weight, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    product = x.astype(np.float64) @ weight.astype(np.float64).T
    return (product.astype(np.int64) + bias).astype(np.int32)


def top_k(logits: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    """The k largest logits' positions [M, k], best first; ties to the lower position."""
    return np.argsort(-logits.astype(np.int64), axis=-1, kind="stable")[:, :k]


def scores(logits: NDArray[np.int32], chosen: NDArray[np.int64], gate: Gate, renormalise: bool) -> NDArray[np.uint16]:
    """UQ1.15 scores [M, k] of the chosen positions."""
    weight = softmax_weights(logits, gate.multiplier, gate.shift)
    picked = np.take_along_axis(weight, chosen, -1)
    total = (picked if renormalise else weight).sum(-1, keepdims=True)
    by = RECIPROCAL_BITS - SCORE_BITS
    return ((picked * reciprocal(total) + (1 << (by - 1))) >> by).astype(np.uint16)


def queues(chosen: NDArray[np.int64], score: NDArray[np.uint16], gate: Gate, slots: int) -> Queues:
    """Per expert slot of the bank: ascending token ids and their scores. gate.experts maps positions to slots."""
    slot = np.asarray(gate.experts)[chosen]
    out: Queues = []
    for expert in range(slots):
        tokens, which = np.nonzero(slot == expert)
        out.append((tokens, score[tokens, which]))
    return out
