"""A float network and its ranges to INT8 layers for the CPU kernels, read off the graph.

Weights get one scale per output channel, activations static codes of one byte. What a LayerNorm writes is scaled
channel by channel at no cost: its weight and bias are divided by the channels' scales and its readers' columns
multiplied, after SmoothQuant (Xiao et al., ICML 2023) and CoQMoE (2506.08496); attention's output likewise, through
the rows of the values' projection. The folded network computes the same function. Attention's products are INT8 where
qkv is, with scales that the kernel finds. Inverted residuals are INT8, the 1x1 half of a head's step, and 1x1
convolutions but the last; wider convolutions stay float, as gates, softmax and the residual stream do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from edgemtl.bundle.layout import Array, Codes
from edgemtl.bundle.packing import LANES, quantise_rows
from edgemtl.config import ModelConfig
from edgemtl.graph import Node, Weight, network, weights
from edgemtl.graph.ops._activations import gelu
from edgemtl_compiler.quantise.calibrate import Range, key
from edgemtl_compiler.quantise.fake_int8 import MOST_TAPS

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # how much of a channel's range goes into the next weights
CUTS = (1.0, 0.9, 0.8, 0.7, 0.6)  # of the calibrated range: some values saturate, the others get finer codes
UNFOLDED = Codes(1.0)  # codes of an input whose scale has been folded into its producer


@dataclass(frozen=True)
class Unit:
    """Layers that are INT8 or float together. codes: by reference of its weights."""

    name: str
    codes: dict[str, tuple[Codes, ...]]


@dataclass(frozen=True)
class Quantised:
    """`state` is the folded network's, float32, the same function as before; `units` what may become INT8 of it."""

    config: ModelConfig
    state: dict[str, Array]
    units: tuple[Unit, ...]

    def codes(self, without: Collection[str] = ()) -> dict[str, tuple[Codes, ...]]:
        """Codes of all INT8 weights, by reference; units named in `without` stay float."""
        kept = (u.codes for u in self.units if u.name not in without)
        return {ref: codes for unit in kept for ref, codes in unit.items()}


def quantise(config: ModelConfig, state: Mapping[str, Array], ranges: Mapping[str, Range]) -> Quantised:
    """The network in INT8, all its tasks, by the ranges that `edgemtl_compiler.quantise.calibrate` measured."""
    builder = _Builder(config, {k: np.array(v, np.float32) for k, v in state.items()}, ranges)
    return Quantised(config, builder.state, tuple(builder.units))


def balance(r: Range, weight: Array) -> Array:
    """Scales [C] of an input that only `weight` [N, C] reads, so that its codes leave the least error behind it."""
    reach = np.maximum(np.maximum(-r.low, r.high), 0)
    most = max(float(reach.max()), 1e-6)
    share = np.maximum(reach / most, 1e-3)
    rows = r.sample.astype(np.float32)
    exact = rows @ weight.T
    best, least = share, math.inf
    for power, cut in product(POWERS, CUTS):
        scale = (most * cut / 127 * share**power).astype(np.float32)
        seen = np.clip(np.rint(rows / scale), -127, 127)
        error = _error(seen, weight * scale, exact)
        if error < least:
            best, least = scale, error
    return best.astype(np.float32)


def hidden_codes(r: Range, weight: Array) -> Codes:
    """Codes of GELU's output, for GELU inputs of range `r`, so that they leave the least error behind `weight`."""
    output = gelu(r.sample).astype(np.float32)
    ends = gelu(np.array([r.low.min(), r.high.max(), 0.0]))
    low = -0.17 if r.low.min() < -0.7518 else float(ends.min())  # GELU's own minimum, or what is reached of it
    high = max(float(ends.max()), low + 1e-4)
    exact = output @ weight.T
    best, least = Codes(1.0), math.inf
    for cut in (*CUTS, 0.5, 0.4, 0.3):
        step = float(np.float32((high * cut - low) / 254))
        centre = float(np.float32(low + 127 * step))
        seen = np.clip(np.rint((output - centre) / step), -127, 127)
        error = _error(seen, weight, exact, Codes(step, centre))
        if error < least:
            best, least = Codes(step, centre), error
    return best


def tensor_codes(r: Range, weight: Array) -> Codes:
    """Codes of an input that others read as well, so that they leave the least error behind `weight` [N, C]."""
    low, high = min(float(r.low.min()), 0.0), max(float(r.high.max()), 0.0)
    rows = r.sample.astype(np.float32)
    exact = rows @ weight.T
    best, least = Codes(1.0), math.inf
    for cut in (*CUTS, 0.5, 0.4, 0.3):
        step = max(float(np.float32((high - low) * cut / 254)), 1e-8)
        centre = float(np.float32(low * cut + 127 * step))
        error = _error(np.clip(np.rint((rows - centre) / step), -127, 127), weight, exact, Codes(step, centre))
        if error < least:
            best, least = Codes(step, centre), error
    return best


def _error(seen: Array, weight: Array, exact: Array, codes: Codes = UNFOLDED) -> float:
    """Squared error of the INT8 product of codes `seen` with `weight` quantised."""
    w, scale = quantise_rows(weight)
    got = ((seen * np.float32(codes.step) + np.float32(codes.centre)) @ w.astype(np.float32).T) * scale
    return float(np.square(got - exact).sum())


class _Builder:
    """Folds `state` in place, node by node in the order of a frame; a method per op says which units it starts."""

    def __init__(self, config: ModelConfig, state: dict[str, Array], ranges: Mapping[str, Range]) -> None:
        self.config, self.state, self.ranges = config, state, ranges
        self.units: list[Unit] = []
        self.folded: set[str] = set()  # values whose scale is in the weights beside them
        self.nodes: dict[str, Node] = {}  # of all tasks, by the key of their ranges
        self.users: dict[str, list[Node]] = {}  # a node that differs from task to task is here for each
        for task in config.task_names:
            for node in network(config, task).nodes:
                name = key(task, node.name)
                self.nodes.setdefault(name, node)
                for value in node.inputs:
                    users = self.users.setdefault(key(task, value), [])
                    users += [node] if node not in users else []
        for name, node in self.nodes.items():
            if build := getattr(self, f"_{node.op}", None):
                build(name, node, name.removesuffix(node.name))

    def _patch_embed(self, name: str, node: Node, task: str) -> None:
        each = zip(self.config.image_mean, self.config.image_std, strict=True)
        pixels = [(end - mean) / std for mean, std in each for end in (0, 1)]  # black and white, as the model's input
        low, high = min(pixels), max(pixels)
        pixel = Codes(float(np.float32((high - low) / 254)), float(np.float32((high + low) / 2)))
        self.units.append(Unit(name, {node.weights[0].ref: (pixel,)}))

    def _layernorm(self, name: str, node: Node, task: str) -> None:
        """Fold its output's scales where linear layers, experts and gates alone read it."""
        users = self.users[name]
        if not all(u.op in ("linear", "experts", "route") and u.inputs.count(node.name) == 1 for u in users):
            return
        first = {u.weights[0].sources[0][0]: u.op for u in users}  # an expert's is its whole bank's
        matrices = [self.state[at] for at, op in first.items() if op != "route"]
        scale = balance(self.ranges[name], np.concatenate([m.reshape(-1, node.shape[1]) for m in matrices]))
        for at, _ in node.weights[0].sources:
            self.state[at] /= scale
        for at, op in first.items():
            self.state[at] *= scale[:, None] if op == "route" else scale
        self.folded.add(name)

    def _attention(self, name: str, node: Node, task: str) -> None:
        """Fold its output's scales into the values that it reads and the projection that reads it."""
        before, (after,), channels = self.nodes[task + node.inputs[0]], self.users[name], node.shape[1]
        weight, bias = (self.state[at] for at, _ in before.weights[0].sources)
        projection = self.state[after.weights[0].sources[0][0]]
        scale = balance(self.ranges[name], projection)
        weight[2 * channels :] /= scale[:, None]
        bias[2 * channels :] /= scale
        projection *= scale
        self.folded.add(name)

    def _linear(self, name: str, node: Node, task: str) -> None:
        """Its input's scales are folded, or it is a map's pixels; with GELU between them, a second layer joins it."""
        unit, given = name, key(task[:-1], node.inputs[0])
        if given not in self.folded and (given not in self.nodes or self.nodes[given].op != "reshape"):
            return
        first = UNFOLDED if given in self.folded else self._of_tensor(given, node.weights[0])
        codes: dict[str, tuple[Codes, ...]] = {node.weights[0].ref: (first,)}
        users = self.users[name]
        if node.attributes["activation"] == "gelu" and all(u.op == "linear" for u in users):
            unit = name.rpartition(".")[0]
            for user in users:
                second = self.state[user.weights[0].sources[0][0]]
                codes[user.weights[0].ref] = (hidden_codes(self.ranges[f"{name}.inner"], second),)
        self.units.append(Unit(unit, codes))

    def _convolution(self, name: str, node: Node, task: str) -> None:
        """1x1, unless it gives the raw map: that kernel writes planes, and is float."""
        a, weight = node.attributes, node.weights[0]
        if weight.kind == "linear" and a["stride"] == (1, 1) and a["activation"] == "none" and self.users.get(name):
            self.units.append(Unit(name, {weight.ref: (self._of_tensor(key(task[:-1], node.inputs[0]), weight),)}))

    def _inverted_residual(self, name: str, node: Node, task: str) -> None:
        """Where the kernel covers it. Without a first step it is at the start, where codes cost most."""
        *first, taps, project = node.weights
        if not first or node.attributes["middle"] % LANES or math.prod(taps.sources[0][1][1:]) > MOST_TAPS:
            return
        given = key(task[:-1], node.inputs[0])
        codes: dict[str, tuple[Codes, ...]] = {w.ref: (self._of_tensor(given, w),) for w in first}
        high = min(6.0, max(float(self.ranges[f"{name}.depthwise"].high.max()), 1e-4))  # what ReLU6 leaves
        codes[project.ref] = (Codes(float(np.float32(high / 254)), float(np.float32(high / 2))),)
        self.units.append(Unit(name, codes))

    def _separable_step(self, name: str, node: Node, task: str) -> None:
        """Its 1x1 half, where the kernel covers the step."""
        mix = node.weights[1]
        if node.attributes["kernel"] == (3, 3) and node.shape[2] % LANES == 0:
            matrix = self.state[mix.sources[0][0]]
            inner = hidden_codes(self.ranges[f"{name}.depthwise"], matrix.reshape(len(matrix), -1))
            self.units.append(Unit(name, {mix.ref: (inner,)}))

    def _of_tensor(self, given: str, weight: Weight) -> Codes:
        """Codes of the whole value `given`, which the 1x1 layer `weight` reads."""
        matrix = self.state[weight.sources[0][0]]
        return tensor_codes(self.ranges[given], matrix.reshape(len(matrix), -1))

    def _experts(self, name: str, node: Node, task: str) -> None:
        """Every expert held, also those on no task's path."""
        codes: dict[str, tuple[Codes, ...]] = {}
        for w in weights(self.config):
            if w.part == node.weights[0].part:
                second = self.state[w.sources[2][0]][w.row]
                codes[w.ref] = (UNFOLDED, hidden_codes(self.ranges[f"{name}.fc1.{w.tensor}"], second))
        self.units.append(Unit(name, codes))
