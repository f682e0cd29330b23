"""Pieces of what TVM compiles itself: activations, convolutions, and weights out of their packed tensors.

Weights are unpacked in every frame. That is simple, and right for ops that wait for a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from edgemtl.bundle.packing import LANES, round_up
from edgemtl.errors import CompileError
from edgemtl.graph import Weight
from edgemtl_compiler.cpu.emitter import Emitter, Expr
from edgemtl_compiler.cpu.tvm_adapter import relax


def activate(to: Emitter, x: Expr, activation: str) -> Expr:
    """The activation of every value."""
    match activation:
        case "relu":
            x = relax.op.nn.relu(x)
        case "relu6":
            x = relax.op.clip(x, 0, 6)
        case "gelu":
            x = relax.op.nn.gelu(x)
        case "none":
            return x
        case _:
            raise CompileError(f"TVM is not told how to compute the activation {activation}")
    return to.builder.emit(x)


def _numbers(to: Emitter, weight: Weight) -> Expr:
    """The packed tensor as float32."""
    if to.int8(weight):
        raise CompileError(
            f"{weight.ref} is INT8, for which this op has no kernel on a CPU: compile with --precision f32 or f16"
        )
    packed = to.weight(weight)
    return packed if packed.ty.dtype == "float32" else to.builder.emit(relax.op.astype(packed, "float32"))


def _part(to: Emitter, packed: Expr, begin: int, shape: tuple[int, ...]) -> Expr:
    """Values from number `begin` on, as `shape`."""
    part = to.builder.emit(relax.op.strided_slice(packed, [0], [begin], [begin + prod(shape)]))
    return to.builder.reshape(part, shape)


def vectors(to: Emitter, weight: Weight) -> list[Expr]:
    """The arrays of a tensor of the kinds "vector" and "norm", each in its shape."""
    out, at, packed = [], 0, _numbers(to, weight)
    for _, shape in weight.sources:
        out.append(_part(to, packed, at, shape))
        at += round_up(prod(shape))
    return out


def _taps(to: Emitter, weight: Weight) -> tuple[Expr, Expr | None]:
    """A convolution's weight as [down, across, inputs / groups, outputs], and its bias [outputs]."""
    b, (outputs, inputs, high, wide) = to.builder, weight.sources[0][1]
    if weight.kind == "vector":
        (array,) = vectors(to, weight)
        return b.reorder(array, (outputs, inputs, high, wide), (2, 3, 1, 0), (high, wide, inputs, outputs)), None
    packed, width = _numbers(to, weight), round_up(outputs)
    if weight.kind == "taps":
        rows = _part(to, packed, 0, (high, wide, 1, width))
    else:  # panels of a linear layer whose inputs are the taps, column by column
        order = (0, 2, 1, 3, 4)  # to [panel, down, across, inputs, lane] from [panel, across, down, inputs, lane]
        panels = _part(to, packed, 0, (width // LANES, wide, high, inputs, LANES))
        panels = b.emit(relax.op.permute_dims(panels, list(order)))
        rows = b.reorder(panels, (width // LANES, high * wide * inputs, LANES), (1, 0, 2), (high, wide, inputs, width))
    bias = _part(to, packed, high * wide * inputs * width, (outputs,))
    return b.emit(relax.op.strided_slice(rows, [3], [0], [outputs])), bias


def convolve(to: Emitter, x: Expr, weight: Weight, how: Mapping[str, Any]) -> Expr:
    """x [H, W, C], convolved with `stride`, `padding` and `groups` as a convolution has them, and the bias added."""
    taps, bias = _taps(to, weight)
    (above, below), (left, right) = how["padding"]
    out = relax.op.nn.conv2d(
        to.builder.reshape(x, (1, *(int(n) for n in x.ty.shape))),
        taps,
        strides=how["stride"],
        padding=(above, left, below, right),
        groups=how["groups"],
        data_layout="NHWC",
        kernel_layout="HWIO",
    )
    out = to.builder.emit(out)
    out = out if bias is None else to.builder.emit(relax.op.add(out, bias))
    return to.builder.reshape(out, [int(n) for n in out.ty.shape][1:])
