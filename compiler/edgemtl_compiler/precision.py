"""The weights of a bundle in the precision asked for, and the model that they then are.

float16 and bfloat16: the rounded weights *are* the model from here on, so programs must equal it as closely as in
float32; how far the rounding moved the maps is said apart. INT8: the model stays the float one, and what INT8 costs is
measured.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from edgemtl.bundle.layout import AllCodes, Array, Packed, pack_state, unpack_state
from edgemtl.bundle.manifest import WeightLayout
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler.quantise.cpu import Quantised

Parts = dict[str, dict[str, Packed]]


@dataclass(frozen=True)
class Weights:
    """`parts` as the bundle holds them; `model`: what the programs are exported from and checked against."""

    layout: WeightLayout
    model: MultiTaskViT
    parts: Parts

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @cached_property
    def state(self) -> dict[str, Array]:
        """The model's tensors by key, float32: what an emitter that reads the graph takes its constants from."""
        return {key: value.detach().numpy() for key, value in self.model.state_dict().items()}

    @property
    def types(self) -> dict[str, str]:
        """NumPy type of every tensor, by reference."""
        return {f"{part}:{name}": str(a.dtype) for part, held in self.parts.items() for name, a in held.items()}


def check(precision: str, wanted: Sequence[object], calibrate: str | os.PathLike[str] | None) -> None:
    """Raises CompileError for INT8 without pictures, or for a target (of `wanted`, resolved) that has no INT8."""
    if precision == "int8" and "onnx" in wanted:
        raise CompileError(
            "target onnx has no INT8 form here: compile it alone with --precision f32, and quantise it with ONNX"
            " Runtime's own tools"
        )
    if precision == "int8" and calibrate is None:
        raise CompileError("--precision int8 needs pictures to calibrate on: add --calibrate FOLDER, 32 or more")


def single(model: MultiTaskViT) -> Weights:
    """All float32."""
    return Weights("panel16-f32", model, _pack(model, "panel16-f32"))


HALVES: dict[str, WeightLayout] = {"f16": "panel16-f16", "bf16": "panel16-bf16"}


def half(model: MultiTaskViT, precision: str = "f16") -> Weights:
    """Linear layers and experts stored in 16 bits: "f16" or "bf16". Raises CheckpointError for a value that float16
    cannot hold.
    """
    layout = HALVES[precision]
    parts = _pack(model, layout)
    state = unpack_state(model.config, lambda part, tensor: parts[part][tensor])
    rounded = copy.deepcopy(model)
    rounded.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    return Weights(layout, rounded, parts)


def int8(model: MultiTaskViT, quantised: Quantised, without: Collection[str] = ()) -> Weights:
    """All of `quantised` but the units named in `without`, which stay float32."""
    codes = quantised.codes(without)
    return Weights("panel16-i8", model, pack_int8(quantised, codes))


def pack_int8(quantised: Quantised, codes: AllCodes) -> Parts:
    """The packed weights with INT8 where `codes` says."""
    return pack_state(quantised.config, quantised.state, "panel16-i8", codes)


def _pack(model: MultiTaskViT, layout: WeightLayout) -> Parts:
    return pack_state(model.config, {key: value.numpy() for key, value in model.state_dict().items()}, layout)


def calibrated(model: MultiTaskViT, folder: Path, count: int) -> tuple[Quantised, int]:
    """`model` quantised with the ranges over `count` pictures of `folder`, and how many those were.

    Raises DataError for a folder or picture that cannot be read, and CompileError for fewer pictures than asked for or
    than calibration needs, and for activations that are not finite.
    """
    from edgemtl_compiler.quantise.calibrate import calibrate_model
    from edgemtl_compiler.quantise.cpu import quantise
    from edgemtl_compiler.quantise.pictures import pictures

    images = pictures(folder, model.config, count).images
    if 32 <= len(images) < count:
        raise CompileError(
            f"{folder} holds {len(images)} pictures to calibrate on, not {count}: add --images {len(images)}"
        )
    return quantise(model, calibrate_model(model, images)), len(images)
