"""A float `MultiTaskViT` and calibration images to an integer network.

Weights INT8 per output channel; activations INT8 with calibrated codes; the residual stream INT16 with one power of
two. All tasks of the model are calibrated together, so they share the trunk and the experts bit for bit and a task
switch exchanges gates and head alone. A slice is simply a model with one task.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.errors import CompileError
from edgemtl.graph.integer.fixed import fixed_point
from edgemtl.graph.integer.gelu import REACH, gelu_table
from edgemtl.graph.integer.linear import GUARD_BITS
from edgemtl.graph.integer.params import Attention, Gate, Mlp
from edgemtl.model.head import LightHead
from edgemtl.model.vit import Mlp as FloatMlp
from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler.fpga import limits
from edgemtl_compiler.fpga.network import Block, Head, Network, Step
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float, Range, calibrate_model
from edgemtl_compiler.quantise.factors import Codes

Ranges = dict[str, Range]


def _np(t: Tensor) -> Float:
    return t.detach().double().numpy()


class _Builder:
    def __init__(
        self, model: MultiTaskViT, ranges: Ranges, percentile: float, max_saturation: float, host_heads: bool
    ) -> None:
        self.model, self.config, self.ranges = model, model.config, ranges
        self.percentile, self.max_saturation, self.host_heads = percentile, max_saturation, host_heads
        names = ["embed", *(n for n in ranges if n.endswith((".attention", ".mlp", ".experts")))]
        self.bits = factors.stream_bits(max(ranges[n].most for n in names))
        self.unit = 2.0**-self.bits

    def network(self) -> Network:
        config, bb = self.config, self.model.backbone
        proj: Any = bb.patch_embed.proj
        weight = _np(proj.weight).transpose(0, 2, 3, 1).reshape(config.dim, -1)  # K in the order y, x, colour
        mean, std = (np.tile(v, config.patch * config.patch) for v in (config.image_mean, config.image_std))
        pixel = Codes(1 / (255 * std), (128 / 255 - mean) / std)
        position = _np(bb.pos_embed)[0].copy()
        position[0] += _np(bb.cls_token)[0, 0]
        gates: dict[tuple[str, int], Gate] = {}
        blocks = tuple(self._block(i, gates) for i in range(config.depth))
        return Network(
            config=config,
            stream_bits=self.bits,
            embed=factors.linear(weight, _np(proj.bias), pixel, self.unit),
            position=np.clip(np.rint(position / self.unit), -32768, 32767).astype(np.int16),
            blocks=blocks,
            gates=gates,
            heads={} if self.host_heads else {task: self._head(task) for task in config.task_names},
        )

    def _norm(self, module: Any, name: str, weight: Float) -> tuple[Any, Codes]:
        gamma, beta = _np(module.weight), _np(module.bias)
        return factors.norm(gamma, beta, module.eps, self.ranges[name], weight, self.bits)

    def _reach(self, name: str, groups: int) -> NDArray[np.float64]:
        r = self.ranges[name]
        reach = factors.clipped(r, self.percentile, groups)
        sample = np.abs(r.sample).reshape(len(r.sample), groups, -1)
        share = float((sample > reach[:, None]).mean())
        if share > self.max_saturation:
            raise CompileError(
                f"{share:.2%} of the calibrated values of {name} would saturate at percentile {self.percentile:g}; "
                f"the limit is {self.max_saturation:.2%}: raise the percentile"
            )
        return reach

    def _block(self, i: int, gates: dict[tuple[str, int], Gate]) -> Block:
        block: Any = self.model.backbone.blocks[i]
        name, dim, heads = f"block{i}", self.config.dim, self.config.heads
        weight = _np(block.attn.qkv.weight)
        norm1, codes = self._norm(block.norm1, f"{name}.norm1", weight)
        r = self.ranges[f"{name}.qkv"]
        split: list[Float] = []
        for part, groups in enumerate((heads, heads, dim)):
            here = slice(part * dim, (part + 1) * dim)
            self.ranges[f"{name}.part"] = Range(r.low[here], r.high[here], [rows[:, here] for rows in r.rows], r.count)
            split.append(self._reach(f"{name}.part", groups) / 127)
        del self.ranges[f"{name}.part"]
        q, k, v = split
        unit = np.concatenate([np.repeat(q, dim // heads), np.repeat(k, dim // heads), v])
        context = float(self._reach(f"{name}.context", 1)[0]) / 127
        exponent = q * k / math.sqrt(dim // heads) * 256 / math.log(2)
        attention = Attention(*fixed_point(exponent), *fixed_point(v / context * 2.0**-16))
        qkv = factors.linear(weight, _np(block.attn.qkv.bias), codes, unit)
        proj = block.attn.proj
        projection = factors.linear(_np(proj.weight), _np(proj.bias), factors.plain(context), self.unit)
        if isinstance(block.mlp, FloatMlp):
            fc1, fc2 = block.mlp.fc1, block.mlp.fc2
            norm2, codes = self._norm(block.norm2, f"{name}.norm2", _np(fc1.weight))
            parts = (fc1.weight, fc1.bias, fc2.weight, fc2.bias)
            mlp = self._mlp([_np(p) for p in parts], codes, self.ranges[f"{name}.fc1"], self.unit)
            return Block(norm1, qkv, attention, projection, norm2, mlp, ())
        bank = [
            _np(p) for layer in (block.mlp.experts.htoh4, block.mlp.experts.h4toh) for p in (layer.weight, layer.bias)
        ]
        norm2, codes = self._norm(block.norm2, f"{name}.norm2", bank[0].reshape(-1, dim))
        experts = []
        for e in range(len(bank[0])):
            chosen = self.ranges.get(f"{name}.fc1.{e}")
            seen = chosen if chosen is not None and chosen.count >= 16 else self.ranges[f"{name}.any{e}"]
            experts.append(self._mlp([p[e] for p in bank], codes, seen, self.unit * 2.0**-GUARD_BITS))
        held = self.config.held[self.config.moe_blocks.index(i)]
        for task in self.config.task_names:
            path = self.config.path(task)[self.config.moe_blocks.index(i)]
            slots = tuple(held.index(e) for e in path)
            gates[task, i] = factors.gate(_np(block.mlp.w_gate(task)).T[list(slots)], codes, slots)
        return Block(norm1, qkv, attention, projection, norm2, None, tuple(experts))

    def _mlp(self, parts: list[Float], codes: Codes, inner: Range, unit: float) -> Mlp:
        w1, b1, w2, b2 = parts
        table, hidden, p = factors.gelu_int8(inner, w2, self.max_saturation)
        return Mlp(factors.linear(w1, b1, codes, p), table, factors.linear(w2, b2, hidden, unit))

    def _head(self, task: str) -> Head:
        head: Any = self.model.heads[task]
        streams = [self.ranges[f"{task}.head.{n}"] for n in ("proj", "step0", "step1")]
        below = -float(self.ranges[f"{task}.proj"].low.min())  # GELU reads its input in the stream's units
        bits = factors.stream_bits(max(*(r.most for r in streams), min(below, REACH) / 1.5))
        unit = 2.0**-bits
        weight = _np(head.proj.weight)
        norm, codes = self._norm(head.norm, f"{task}.norm", weight)
        steps = []
        for i, step in enumerate((head.step0, head.step1)):
            inner = self.ranges[f"{task}.depthwise{i}"]
            taps = _np(step.depthwise.weight).reshape(-1, 9).T
            mix = _np(step.pointwise.weight)[:, :, 0, 0]
            table, hidden, p = factors.gelu_int8(inner, mix, self.max_saturation)
            steps.append(
                Step(
                    factors.depthwise(taps, _np(step.depthwise.bias), unit, p),
                    table,
                    factors.linear(mix, _np(step.pointwise.bias), hidden, unit),
                )
            )
        last = _np(head.out.weight)[:, :, 0, 0]
        final = factors.balanced(streams[-1], last, unit * 2.0**-14)
        raw = max(self.ranges[f"{task}.raw"].most, 1e-3) * 1.25 / 32767
        return Head(
            norm=norm,
            proj=factors.linear(weight, _np(head.proj.bias), codes, unit),
            gelu=gelu_table(unit),
            steps=tuple(steps),
            narrow=factors.narrow(final, unit),
            out=factors.linear(last, _np(head.out.bias), final, raw),
            unit=raw,
            stream_bits=bits,
        )


def quantise(
    model: MultiTaskViT,
    images: NDArray[np.uint8],
    *,
    percentile: float = 100.0,
    max_saturation: float = 0.001,
    host_heads: bool = False,
) -> Network:
    """The integer network of `model`, all its tasks, calibrated on uint8 RGB images [n, 3, H, W], n >= 32.

    With `host_heads` the network ends with the trunk, and its output is the residual stream: for heads that the
    accelerator lacks. `percentile` clips q, k, v and the attention's output below their greatest calibrated value.
    Raises CompileError for a model outside the compiled maxima, a head other than the light one, too few images,
    activations that are not finite or that do not fit a stream, and where more than `max_saturation` of an
    activation's calibrated values would saturate.
    """
    limits.check(model.config, host_heads=host_heads)
    foreign = [] if host_heads else [t for t, head in model.heads.items() if not isinstance(head, LightHead)]
    if foreign:
        raise CompileError(
            f"the accelerator has the light head alone, and {', '.join(foreign)} has another: give --host-heads"
        )
    if not 0 < percentile <= 100:
        raise CompileError(f"a percentile lies above 0 and up to 100; given {percentile:g}")
    training = model.training
    ranges = calibrate_model(model.eval(), images)
    model.train(training)
    try:
        return _Builder(model, ranges, percentile, max_saturation, host_heads).network()
    except ValueError as error:
        raise CompileError(f"this model cannot be quantised: {error}") from error
