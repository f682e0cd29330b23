"""The weights of a bundle in the precision asked for, and the model that they then are.

float16 and bfloat16: the rounded weights *are* the model from here on, so programs must equal it as closely as in
float32; how far the rounding moved the maps is said apart. INT8: the model stays the float one, and what INT8 costs is
measured.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from edgemtl.bundle.checkpoint import State
from edgemtl.bundle.layout import AllCodes, Packed, pack_state, unpack_state
from edgemtl.bundle.manifest import WeightLayout
from edgemtl.config import ModelConfig

if TYPE_CHECKING:
    from edgemtl.model.vit import MultiTaskViT
    from edgemtl_compiler.quantise.cpu import Quantised

Parts = dict[str, dict[str, Packed]]


@dataclass(frozen=True)
class Weights:
    """`parts` as the bundle holds them; `config` and `state`: the model that programs compute with them."""

    layout: WeightLayout
    config: ModelConfig
    state: State
    parts: Parts

    @cached_property
    def model(self) -> MultiTaskViT:
        """The same in PyTorch."""
        from edgemtl.model.checkpoint import model_of

        return model_of(self.config, self.state)

    @property
    def types(self) -> dict[str, str]:
        """NumPy type of every tensor, by reference."""
        return {f"{part}:{name}": str(a.dtype) for part, held in self.parts.items() for name, a in held.items()}


def single(config: ModelConfig, state: State) -> Weights:
    """All float32."""
    return Weights("panel16-f32", config, state, pack_state(config, state, "panel16-f32"))


HALVES: dict[str, WeightLayout] = {"f16": "panel16-f16", "bf16": "panel16-bf16"}


def half(config: ModelConfig, state: State, precision: str = "f16") -> Weights:
    """Linear layers and experts stored in 16 bits: "f16" or "bf16". Raises CheckpointError for a value that float16
    cannot hold.
    """
    layout = HALVES[precision]
    parts = pack_state(config, state, layout)
    return Weights(layout, config, unpack_state(config, lambda part, tensor: parts[part][tensor]), parts)


def int8(config: ModelConfig, state: State, quantised: Quantised, without: Collection[str] = ()) -> Weights:
    """All of `quantised` but the units named in `without`, which stay float32. `state`: the float model's."""
    return Weights("panel16-i8", config, state, pack_int8(quantised, quantised.codes(without)))


def pack_int8(quantised: Quantised, codes: AllCodes) -> Parts:
    """The packed weights with INT8 where `codes` says."""
    return pack_state(quantised.config, quantised.state, "panel16-i8", codes)
