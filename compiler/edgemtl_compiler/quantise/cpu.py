"""A float `MultiTaskViT` and calibrated ranges to INT8 layers for the CPU kernels.

Weights get one scale per output channel, activations static codes of one byte. What a LayerNorm writes is scaled
channel by channel at no cost: its weight and bias are divided by the channels' scales and the next layer's columns
multiplied, after SmoothQuant (Xiao et al., ICML 2023) and CoQMoE (2506.08496); attention's output likewise, through
the rows of the values' projection. The folded model computes the same function. Attention's products are INT8 where qkv
is, with scales that the kernel finds. Gates, softmax, depthwise steps and the residual stream stay float.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from edgemtl.bundle.layout import Array, Codes
from edgemtl.bundle.packing import quantise_rows
from edgemtl.config import ModelConfig
from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler.quantise.calibrate import Range

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # how much of a channel's range goes into the next weights
CUTS = (1.0, 0.9, 0.8, 0.7, 0.6)  # of the calibrated range: some values saturate, the others get finer codes
SEEN = 16  # rows that an expert must have got to be calibrated on its own tokens
UNFOLDED = Codes(1.0)  # codes of an input whose scale has been folded into its producer


@dataclass(frozen=True)
class Unit:
    """Layers that are INT8 or float together. codes: by reference of its weights."""

    name: str
    codes: dict[str, tuple[Codes, ...]]


@dataclass(frozen=True)
class Quantised:
    """`state` is the folded model's, float32, the same function as before; `units` what may become INT8 of it."""

    config: ModelConfig
    state: dict[str, Array]
    units: tuple[Unit, ...]

    def codes(self, without: Collection[str] = ()) -> dict[str, tuple[Codes, ...]]:
        """Codes of all INT8 weights, by reference; units named in `without` stay float."""
        kept = (u.codes for u in self.units if u.name not in without)
        return {ref: codes for unit in kept for ref, codes in unit.items()}


def quantise(model: MultiTaskViT, ranges: Mapping[str, Range]) -> Quantised:
    """`model` in INT8, all its tasks, by the ranges that `edgemtl_compiler.quantise.calibrate.calibrate` measured."""
    state = {key: value.detach().numpy().astype(np.float32) for key, value in model.state_dict().items()}
    return _Builder(model.config, state, ranges).build()


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
    output = torch.nn.functional.gelu(torch.from_numpy(r.sample)).numpy().astype(np.float32)
    ends = torch.nn.functional.gelu(torch.tensor([r.low.min(), r.high.max(), 0.0])).numpy()
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


def _error(seen: Array, weight: Array, exact: Array, codes: Codes = UNFOLDED) -> float:
    """Squared error of the INT8 product of codes `seen` with `weight` quantised."""
    w, scale = quantise_rows(weight)
    got = ((seen * np.float32(codes.step) + np.float32(codes.centre)) @ w.astype(np.float32).T) * scale
    return float(np.square(got - exact).sum())


class _Builder:
    def __init__(self, config: ModelConfig, state: dict[str, Array], ranges: Mapping[str, Range]) -> None:
        self.config, self.state, self.ranges = config, {k: v.copy() for k, v in state.items()}, ranges
        self.units: list[Unit] = []

    def build(self) -> Quantised:
        each = zip(self.config.image_mean, self.config.image_std, strict=True)
        pixels = [(end - mean) / std for mean, std in each for end in (0, 1)]  # black and white, as the model's input
        low, high = min(pixels), max(pixels)
        pixel = Codes(float(np.float32((high - low) / 254)), float(np.float32((high + low) / 2)))
        self.units.append(Unit("patch_embed", {"trunk:patch_embed": (pixel,)}))
        for i in range(self.config.depth):
            self._attention(i)
            if i in self.config.moe_blocks:
                self._experts(i)
            else:
                self._mlp(i)
        for task in self.config.task_names:
            if f"{task}.norm" in self.ranges:  # the light head
                self._head(task)
        return Quantised(self.config, self.state, tuple(self.units))

    def _fold_norm(self, norm: str, scale: Array) -> None:
        for part in ("weight", "bias"):
            self.state[f"{norm}.{part}"] /= scale

    def _attention(self, i: int) -> None:
        key, state, dim = f"backbone.blocks.{i}", self.state, self.config.dim
        qkv, proj = f"{key}.attn.qkv", f"{key}.attn.proj"
        scale = balance(self.ranges[f"block{i}.norm1"], state[f"{qkv}.weight"])
        self._fold_norm(f"{key}.norm1", scale)
        state[f"{qkv}.weight"] *= scale
        values = slice(2 * dim, 3 * dim)
        scale = balance(self.ranges[f"block{i}.context"], state[f"{proj}.weight"])
        state[f"{qkv}.weight"][values] /= scale[:, None]
        state[f"{qkv}.bias"][values] /= scale
        state[f"{proj}.weight"] *= scale
        for layer in ("qkv", "proj"):
            name = f"blocks.{i}.attn.{layer}"
            self.units.append(Unit(name, {f"trunk:{name}": (UNFOLDED,)}))

    def _mlp(self, i: int) -> None:
        key, name = f"backbone.blocks.{i}", f"blocks.{i}.mlp"
        first, second = self.state[f"{key}.mlp.fc1.weight"], self.state[f"{key}.mlp.fc2.weight"]
        scale = balance(self.ranges[f"block{i}.norm2"], first)
        self._fold_norm(f"{key}.norm2", scale)
        first *= scale
        hidden = hidden_codes(self.ranges[f"block{i}.fc1"], second)
        self.units.append(Unit(name, {f"trunk:{name}.fc1": (UNFOLDED,), f"trunk:{name}.fc2": (hidden,)}))

    def _experts(self, i: int) -> None:
        key, state = f"backbone.blocks.{i}", self.state
        bank = f"{key}.mlp.experts"
        first, second = state[f"{bank}.htoh4.weight"], state[f"{bank}.h4toh.weight"]
        scale = balance(self.ranges[f"block{i}.norm2"], first.reshape(-1, self.config.dim))
        self._fold_norm(f"{key}.norm2", scale)
        first *= scale
        for gate in self.config.task_names if self.config.gate == "multi" else ("shared",):
            state[f"{key}.mlp.gate.{gate}.w_gate"] *= scale[:, None]
        codes: dict[str, tuple[Codes, ...]] = {}
        for row, expert in enumerate(self.config.held[self.config.moe_blocks.index(i)]):
            own = self.ranges.get(f"block{i}.fc1.{row}")
            seen = own if own is not None and own.count >= SEEN else self.ranges[f"block{i}.any{row}"]
            codes[f"experts.{i}:{expert}"] = (UNFOLDED, hidden_codes(seen, second[row]))
        self.units.append(Unit(f"blocks.{i}.experts", codes))

    def _head(self, task: str) -> None:
        key = f"heads.{task}"
        weight = self.state[f"{key}.proj.weight"]
        scale = balance(self.ranges[f"{task}.norm"], weight)
        self._fold_norm(f"{key}.norm", scale)
        weight *= scale
        self.units.append(Unit(f"{task}.head.proj", {f"task.{task}:head.proj": (UNFOLDED,)}))
