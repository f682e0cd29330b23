"""Which tensors a bundle's weights are, and how each is packed: in the order that the kernels read, so that loading
packs nothing.

Four layouts. `panel16-f32`: every tensor float32. `panel16-f16`: linear layers, convolutions and experts in float16,
the rest as before. `panel16-bf16`: the same in bfloat16, whose bits are a uint16 to NumPy. `panel16-i8`: linear layers
and experts in INT8 (their bytes as uint8), except those that stayed float32, which a tensor's type tells; the rest as
before. `packing` has the forms themselves. Every tensor is 1-D and a multiple of 64 bytes, so that a file of them keeps
each on a 64-byte boundary; an expert is padded to whole pages, so that it can be mapped and dropped alone. `entries`
reads from the graphs what a model's bundle holds; the compiler, the packer and the unpacker follow that one list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.manifest import WeightLayout
from edgemtl.bundle.packing import (
    LANES,
    LINE,
    PAGE_FLOATS,
    Array,
    Codes,
    Packed,
    expert_bytes,
    expert_size,
    from_bfloat16,
    linear_bytes,
    linear_size,
    pack_expert,
    pack_expert_i8,
    pack_linear,
    pack_linear_i8,
    pack_rows,
    round_up,
    to_bfloat16,
    unpack_expert,
    unpack_expert_i8,
    unpack_linear,
    unpack_linear_i8,
)
from edgemtl.config import ModelConfig
from edgemtl.errors import BundleError, CheckpointError
from edgemtl.graph import Weight, weights

__all__ = [
    "LANES",
    "PAGE_FLOATS",
    "AllCodes",
    "Array",
    "Codes",
    "Entry",
    "Packed",
    "entries",
    "pack_expert",
    "pack_linear",
    "pack_rows",
    "pack_state",
    "unpack_expert",
    "unpack_linear",
    "unpack_state",
]

AllCodes = Mapping[str, tuple[Codes, ...]]  # by reference of an INT8 tensor: the codes of its input, or inputs

_ITEM = {"float32": 4, "float16": 2, "uint16": 2, "uint8": 1}  # bytes per element
_TYPES = {  # of linear layers and experts
    "panel16-f32": ("float32",),
    "panel16-f16": ("float16",),
    "panel16-bf16": ("uint16",),
    "panel16-i8": ("uint8", "float32"),
}


@dataclass(frozen=True)
class Entry(Weight):
    """A weight tensor of the network (edgemtl/graph/node.py) as a bundle has it."""

    @property
    def compact(self) -> bool:
        """Whether it is of a kind that layouts other than float32 make smaller."""
        return self.kind in ("linear", "conv", "expert")

    def types(self, layout: WeightLayout) -> tuple[str, ...]:
        """Names of the NumPy types that it may have in a layout."""
        return _TYPES[layout] if self.compact else ("float32",)

    def length(self, dtype: str = "float32") -> int:
        """Elements of the packed tensor when they are of a type that `types` names."""
        shapes = [shape for _, shape in self.sources]
        match self.kind:
            case "linear" | "conv":
                n, k = shapes[0][0], prod(shapes[0][1:])
                if dtype == "uint8":
                    return linear_bytes(n, k)
                return round_up(linear_size(n, k), LINE // _ITEM[dtype])  # float16 may need half a line more
            case "gate":
                return linear_size(shapes[0][1], shapes[0][0])
            case "taps":
                return (prod(shapes[0][1:]) + 1) * round_up(shapes[0][0])
            case "expert":
                hidden, dim = shapes[0]
                return expert_bytes(dim, hidden) if dtype == "uint8" else expert_size(dim, hidden, _ITEM[dtype])
        return sum(round_up(prod(shape)) for shape in shapes)

    def nbytes(self, dtype: str = "float32") -> int:
        """Bytes of the packed tensor."""
        return self.length(dtype) * _ITEM[dtype]

    def pack(self, values: list[Array]) -> Array:
        """The float32 tensor of the values, one array per source."""
        match self.kind:
            case "linear":
                return pack_linear(values[0].reshape(len(values[0]), -1), values[1])
            case "gate":
                weight, *biases = values
                return pack_linear(weight.T, biases[0] if biases else np.zeros(weight.shape[1], np.float32))
            case "conv":
                return pack_linear(values[0].transpose(0, 3, 2, 1).reshape(len(values[0]), -1), values[1])
            case "taps":
                weight, bias = values
                return pack_rows(*weight.reshape(len(weight), -1).T, bias)
            case "expert":
                return pack_expert(*values)
        return pack_rows(*values)

    def pack_half(self, values: list[Array], dtype: str) -> Packed:
        """The tensor of a linear layer or an expert as "float16", or as "uint16", the bits of bfloat16. Raises
        CheckpointError for values beyond float16.
        """
        packed = self.pack(values)
        most = float(np.abs(packed).max(initial=0))
        if dtype == "float16" and most > float(np.finfo(np.float16).max):
            raise CheckpointError(
                f"{self.sources[0][0]!r} holds {most:.4g}, more than float16 can (65504): compile with --precision f32"
            )
        out = np.zeros(self.length(dtype), dtype)
        used = min(out.size, packed.size)  # an expert's padding to whole pages is longer in one of the two
        out[:used] = packed[:used] if dtype == "float16" else to_bfloat16(packed[:used])
        return out

    def pack_int8(self, values: list[Array], codes: tuple[Codes, ...]) -> NDArray[np.uint8]:
        """The INT8 tensor of a linear layer, or of an expert: then `codes` has those of its hidden values as well."""
        if self.kind == "expert":
            w1, b1, w2, b2 = values
            return pack_expert_i8(w1, b1, w2, b2, *codes)
        return pack_linear_i8(values[0].reshape(len(values[0]), -1), values[1], *codes[0])

    def unpack(self, packed: Packed) -> list[Array]:
        """The float32 values, one array per source; of an INT8 tensor what its codes stand for."""
        dtype = str(packed.dtype)
        allowed = tuple(_ITEM) if self.compact else ("float32",)
        if dtype not in allowed or packed.shape != (self.length(dtype),):
            raise BundleError(
                f"weight {self.ref} is {packed.dtype} {list(packed.shape)}; this model needs float32 [{self.length()}]"
            )
        if dtype == "uint16":
            packed = from_bfloat16(packed)
        shapes = [shape for _, shape in self.sources]
        match self.kind:
            case "linear":
                undo = unpack_linear_i8 if dtype == "uint8" else unpack_linear
                weight, bias = undo(packed, shapes[0][0], prod(shapes[0][1:]))
                return [weight.reshape(shapes[0]), bias]
            case "conv":
                n, k, high, wide = shapes[0]
                weight, bias = unpack_linear(packed, n, k * high * wide)
                return [np.ascontiguousarray(weight.reshape(n, wide, high, k).transpose(0, 3, 2, 1)), bias]
            case "gate":
                rows, columns = shapes[0]
                weight, bias = unpack_linear(packed, columns, rows)
                return [np.ascontiguousarray(weight.T), bias][: len(shapes)]
            case "taps":
                taps = packed.reshape(prod(shapes[0][1:]) + 1, -1)[:, : shapes[0][0]]
                return [np.ascontiguousarray(taps[:-1].T).reshape(shapes[0]), taps[-1].copy()]
            case "expert":
                hidden, dim = shapes[0]
                return list((unpack_expert_i8 if dtype == "uint8" else unpack_expert)(packed, dim, hidden))
        starts = np.cumsum([0] + [round_up(prod(s)) for s in shapes])
        return [packed[i : i + prod(s)].reshape(s).copy() for i, s in zip(starts, shapes, strict=False)]


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of the bundle of a model, in the order in which a frame meets them; batch norms are none of them.

    Raises ConfigError, naming the setting, for a model that serves training alone.
    """
    folded = ModelConfig(**{**dict(config), "head_norm": False})
    once = {w.ref: w for w in weights(folded)}
    return (Entry(**vars(w)) for w in once.values())


def pack_state(
    config: ModelConfig,
    state: Mapping[str, NDArray[np.generic]],
    layout: WeightLayout = "panel16-f32",
    codes: AllCodes | None = None,
) -> dict[str, dict[str, Packed]]:
    """Part -> tensor name -> packed array, of the state of a whole model.

    `codes` names, by reference, the tensors that become INT8 in the layout "panel16-i8".
    Raises CheckpointError when a tensor is missing, has another shape than `config` says, or does not fit float16.
    """
    if config.has_norms:
        raise CheckpointError("a bundle holds convolutions without batch norms: convert with without_training")
    parts: dict[str, dict[str, Packed]] = {}
    for entry in entries(config):
        values = []
        for key, shape in entry.sources:
            if key not in state:
                raise CheckpointError(f"the model's state has no {key!r}, which its configuration needs")
            value, want = state[key], (entry.bank, *shape) if entry.bank else shape
            if value.shape != want:
                raise CheckpointError(f"{key!r} has shape {list(value.shape)}; the configuration needs {list(want)}")
            values.append(np.asarray(value[entry.row] if entry.bank else value, np.float32))
        packed: Packed
        if layout in ("panel16-f16", "panel16-bf16") and entry.compact:
            packed = entry.pack_half(values, *entry.types(layout))
        elif codes and entry.ref in codes:
            packed = entry.pack_int8(values, codes[entry.ref])
        else:
            packed = entry.pack(values)
        parts.setdefault(entry.part, {})[entry.tensor] = packed
    return parts


def unpack_state(
    config: ModelConfig, get: Callable[[str, str], Packed], *, stored: ModelConfig | None = None
) -> dict[str, Array]:
    """The state of the model that `config` describes, from packed tensors that `get(part, tensor)` returns.

    `stored` is the configuration that the tensors were packed with, when `config` is a slice of it: then only the
    experts that the slice holds are asked for, and their columns are taken from the wider gates.

    Raises BundleError when a tensor has another size than the configuration says.
    """
    whole = {e.ref: e for e in entries(stored or config)}
    state: dict[str, Array] = {}
    banks: dict[str, list[Array]] = {}
    for entry in entries(config):
        if entry.ref not in whole:
            raise BundleError(f"the bundle's model has no {entry.ref}")
        values = whole[entry.ref].unpack(get(entry.part, entry.tensor))
        if entry.kind == "gate" and stored is not None:
            which = config.moe_blocks.index(int(entry.tensor.split(".")[1]))
            columns = [stored.held[which].index(e) for e in config.held[which]]
            values = [np.ascontiguousarray(value[..., columns]) for value in values]
        for (key, _), value in zip(entry.sources, values, strict=True):
            if entry.bank:
                banks.setdefault(key, []).append(value)
            else:
                state[key] = value
    return state | {key: np.stack(rows) for key, rows in banks.items()}
