"""The INT8 network as a run of the graph: float arithmetic on values rounded as the CPU's kernels round them.

It says what INT8 costs before anything is compiled, one unit at a time if asked, and compiled programs are held to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgemtl.bundle.layout import AllCodes, Codes, Packed, unpack_state
from edgemtl.config import ModelConfig
from edgemtl.graph import Graph, Node, from_state, network, ops, run
from edgemtl.graph.network import IMAGE
from edgemtl.graph.node import Array
from edgemtl.graph.ops import Within
from edgemtl.graph.ops.convolution import convolve
from edgemtl.graph.run import Compute

# Phi(x) - 1/2 = x * (a polynomial in x^2) on -4..4, |error of GELU| < 2e-4: gelu_coarse of kernels/gemm_i8.h.
PHI = (
    2.258763842633016e-08,
    -1.5887952713455888e-06,
    4.7763191105332226e-05,
    -0.000812180049251765,
    0.008763650432229042,
    -0.06455431133508682,
    0.39787018299102783,
)


LEVELS = 127  # of what ReLU6 leaves, between the steps of an inverted residual
MOST_TAPS, TAPS_SUM = 128, 258  # of a depthwise layer: taps a channel, and what those of one sign add up to
_POINT = ((1, 1), ((0, 0), (0, 0)))  # stride and padding of a 1x1 step


class FakeInt8:
    """The network that `parts`, packed with `codes`, holds, its activations rounded where `codes` says."""

    def __init__(self, config: ModelConfig, parts: Mapping[str, Mapping[str, Packed]], codes: AllCodes) -> None:
        self._values = from_state(unpack_state(config, lambda part, tensor: parts[part][tensor]))
        self._networks = {task: network(config, task) for task in config.task_names}
        self._instead = {task: kernels(parts.whole, codes) for task, parts in self._networks.items()}

    def __call__(self, images: Array) -> dict[str, Array]:
        """Raw maps [n, channels, h, w] of all tasks for normalised images [n, 3, H, W]."""
        maps: dict[str, list[Array]] = {task: [] for task in self._networks}
        for image in images:
            shared: dict[str, Array] = {}
            for task, parts in self._networks.items():
                instead = self._instead[task]
                shared = shared or run(parts.prefix, {IMAGE: image.transpose(1, 2, 0)}, self._values, instead=instead)
                (raw,) = run(parts.task, shared, self._values, instead=instead).values()
                maps[task].append(raw.transpose(2, 0, 1))
        return {task: np.stack(each) for task, each in maps.items()}


def kernels(graph: Graph, codes: AllCodes) -> dict[str, Compute]:
    """By op, what the INT8 kernels of a whole network compute, and its float ones where `codes` has no codes."""

    def codes_of(node: Node) -> Sequence[Codes]:
        return codes.get(node.weights[0].ref, ()) if node.weights else ()

    read_as_codes = {n.inputs[0] for n in graph.nodes if n.op == "linear" and codes_of(n)}

    def on_codes(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        return ops.find(node.op).run(node, _rounded(inputs, codes_of(node)), weights, see)

    def linear(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        x = _rounded(inputs, codes_of(node))
        if node.attributes["activation"] == "gelu" and node.name in read_as_codes:
            weight, bias = weights[0]
            return gelu_coarse(x[0] @ weight.T + bias)
        return ops.find(node.op).run(node, x, weights, see)

    def attention(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        if not codes_of(graph[node.inputs[0]]):
            return ops.find(node.op).run(node, inputs, weights, see)
        rows = len(inputs[0])
        q, k, v = inputs[0].reshape(rows, 3, node.attributes["heads"], -1).transpose(1, 2, 0, 3)
        return products(q, k, v).transpose(1, 0, 2).reshape(rows, -1)

    def experts(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        if not codes_of(node):
            return ops.find(node.op).run(node, inputs, weights, see)
        x, (index, score), residual = inputs
        out = residual.copy()
        for at, weight in enumerate(node.weights):
            before, hidden = codes[weight.ref]
            tokens, choice = (index == at).nonzero()
            w1, b1, w2, b2 = weights[at]
            inner = rounded(gelu_coarse(rounded(x[tokens], before) @ w1.T + b1), hidden)
            out[tokens] += (inner @ w2.T + b2) * score[tokens, choice, None]
        return out

    def inverted_residual(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        project = node.weights[-1]
        if project.ref not in codes:
            return ops.find(node.op).run(node, inputs, weights, see)
        *first, (depthwise, second), (mix, third) = weights
        x, a = inputs[0], node.attributes
        for weight, bias in first:
            x = convolve(_rounded([x], codes_of(node))[0], weight, bias, *_POINT)
        x = convolve(levels(x), depthwise_codes(depthwise), second, a["stride"], a["padding"])
        x = convolve(rounded(x, codes[project.ref][0]), mix, third, *_POINT)
        return x + inputs[0] if a["shortcut"] else x

    def separable_step(node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        mix = node.weights[1]
        if mix.ref not in codes:
            return ops.find(node.op).run(node, inputs, weights, see)
        (taps, first), (weight, second) = weights
        high, wide = (k // 2 for k in node.attributes["kernel"])
        inner = gelu_coarse(convolve(inputs[0], taps, first, (1, 1), ((high, high), (wide, wide))))
        return inputs[0] + convolve(rounded(inner, codes[mix.ref][0]), weight, second, *_POINT)

    return {
        "patch_embed": on_codes,
        "convolution": on_codes,
        "inverted_residual": inverted_residual,
        "separable_step": separable_step,
        "linear": linear,
        "attention": attention,
        "experts": experts,
    }


def _rounded(inputs: Sequence[Any], codes: Sequence[Codes]) -> Sequence[Any]:
    """The inputs, the first one as its codes hold it where it has some."""
    return [rounded(inputs[0], codes[0]), *inputs[1:]] if codes else inputs


def rounded(x: Array, codes: Codes) -> Array:
    """x as INT8 codes hold it."""
    code = np.clip(np.rint(x * (1 / codes.step) - codes.centre / codes.step), -127, 127)
    out: Array = code * codes.step + codes.centre
    return out


def levels(x: Array) -> Array:
    """What ReLU6 leaves of x, in 127 steps: what an INT8 depthwise step reads."""
    out: Array = np.clip(np.rint(x * np.float32(LEVELS / 6)), 0, LEVELS) * np.float32(6 / LEVELS)
    return out


def depthwise_codes(weight: Array) -> Array:
    """A depthwise layer's weight as kernels/depthwise_i8.h rounds it: a tap's error goes on to the next one."""
    taps = weight.reshape(len(weight), -1)
    above, below = (np.maximum(t, 0).sum(1) for t in (taps, -taps))
    room = np.float32(TAPS_SUM - taps.shape[1])
    step = np.maximum(np.maximum(np.abs(taps).max(1) / np.float32(126), np.maximum(above, below) / room), 1e-30)
    out, carry = np.empty_like(taps), np.zeros_like(step)
    for k, tap in enumerate((taps / step[:, None]).T):
        value = tap + carry
        code = np.rint(value)
        carry = value - code
        out[:, k] = code * step
    return out.reshape(weight.shape)


def gelu_coarse(x: Array) -> Array:
    """GELU as the kernels compute it where INT8 follows."""
    z = np.clip(x, -4, 4)
    p = np.full_like(z, PHI[0])
    for c in PHI[1:]:
        p = p * (z * z) + c
    return x * (z * p + 0.5)


def own_codes(x: Array, axis: int) -> tuple[Array, Array]:
    """Codes of x by its own largest magnitudes along `axis`, and what one of them is worth."""
    reach = np.abs(x).max(axis, keepdims=True)
    inverse = np.divide(127, reach, out=np.zeros_like(reach), where=reach > 0)
    return np.clip(np.rint(x * inverse), -127, 127), reach / 127


def products(q: Array, k: Array, v: Array) -> Array:
    """Attention [.., tokens, size] as kernels/attention_i8.h computes it; sums of codes are whole, so exact."""
    (queries, per_query), (keys, per_key), (values, per_value) = own_codes(q, -1), own_codes(k, -1), own_codes(v, -2)
    scores = queries @ keys.swapaxes(-1, -2) * per_key.swapaxes(-1, -2)
    scores = (scores - scores.max(-1, keepdims=True)) * (per_query / math.sqrt(q.shape[-1]))
    levels = np.rint(254 * np.exp(scores))
    out: Array = levels @ values * per_value / levels.sum(-1, keepdims=True)
    return out
