"""How weights lie in a bundle ("panel16-f32"): the order in which the kernels read them, so that loading packs nothing.

A linear layer W [N, K] becomes panels of 16 output channels, [ceil(N / 16)][K][16], zero padded, and then its bias
padded the same way: one AVX-512 load, two AVX2 loads or four NEON loads per step of K. Every tensor is a 1-D float32
array of a multiple of 16 floats, so that a file of them keeps each on a 64-byte boundary; an expert is padded to whole
pages, so that it can be mapped and dropped alone. `entries` lists what a model's bundle holds; the compiler, the packer
and the unpacker all follow that one list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.manifest import PAGE
from edgemtl.config import ModelConfig
from edgemtl.errors import BundleError, CheckpointError

LANES = 16  # output channels of a panel, and floats of a 64-byte line
PAGE_FLOATS = PAGE // 4

Array = NDArray[np.float32]
Kind = Literal["vector", "norm", "linear", "gate", "depthwise", "expert"]


def round_up(n: int, unit: int = LANES) -> int:
    """The least multiple of `unit` that is at least n."""
    return -(-n // unit) * unit


def _padded(values: Array, size: int) -> Array:
    out = np.zeros(size, np.float32)
    out[: values.size] = values.ravel()
    return out


def linear_size(n: int, k: int) -> int:
    """Floats that a packed [n, k] linear layer takes."""
    return round_up(n) * (k + 1)


def pack_linear(weight: Array, bias: Array) -> Array:
    """Panels of weight [N, K], then bias [N]."""
    n, k = weight.shape
    wide = np.zeros((round_up(n), k), np.float32)
    wide[:n] = weight
    panels = wide.reshape(-1, LANES, k).transpose(0, 2, 1)
    return np.concatenate([panels.ravel(), _padded(bias, round_up(n))])


def unpack_linear(packed: Array, n: int, k: int) -> tuple[Array, Array]:
    """Weight [n, k] and bias [n] of what `pack_linear` made."""
    split = round_up(n) * k
    weight = packed[:split].reshape(-1, k, LANES).transpose(0, 2, 1).reshape(-1, k)[:n]
    return np.ascontiguousarray(weight), packed[split : split + n].copy()


def expert_size(dim: int, hidden: int) -> int:
    """Floats that a packed expert takes, padding to whole pages included."""
    return round_up(linear_size(hidden, dim) + linear_size(dim, hidden), PAGE_FLOATS)


def pack_expert(w1: Array, b1: Array, w2: Array, b2: Array) -> Array:
    """w1 [H, C], b1 [H], w2 [C, H], b2 [C]: two packed linear layers, padded to whole pages."""
    hidden, dim = w1.shape
    return _padded(np.concatenate([pack_linear(w1, b1), pack_linear(w2, b2)]), expert_size(dim, hidden))


def unpack_expert(packed: Array, dim: int, hidden: int) -> tuple[Array, Array, Array, Array]:
    """w1, b1, w2, b2 of what `pack_expert` made."""
    w1, b1 = unpack_linear(packed, hidden, dim)
    w2, b2 = unpack_linear(packed[linear_size(hidden, dim) :], dim, hidden)
    return w1, b1, w2, b2


def pack_rows(*rows: Array) -> Array:
    """Each array flat and padded to whole lines: vectors, a norm's weight and bias, a depthwise layer's nine taps."""
    return np.concatenate([_padded(r, round_up(r.size)) for r in rows])


@dataclass(frozen=True)
class Entry:
    """One tensor of a bundle: where it lies, and which tensors of the model's state make it.

    `sources` pairs each state key with the shape that its values have there. For an expert they are banks of `bank`
    experts, of which it is number `row`, and the shapes leave out the bank's axis.
    """

    part: str
    tensor: str
    kind: Kind
    sources: tuple[tuple[str, tuple[int, ...]], ...]
    row: int = 0
    bank: int = 0

    @property
    def ref(self) -> str:
        return f"{self.part}:{self.tensor}"

    @property
    def size(self) -> int:
        """Floats in the packed tensor."""
        shapes = [shape for _, shape in self.sources]
        match self.kind:
            case "linear":
                return linear_size(shapes[0][0], prod(shapes[0][1:]))
            case "gate":
                return linear_size(shapes[0][1], shapes[0][0])
            case "depthwise":
                return 10 * round_up(shapes[0][0])
            case "expert":
                hidden, dim = shapes[0]
                return expert_size(dim, hidden)
        return sum(round_up(prod(shape)) for shape in shapes)

    def pack(self, values: list[Array]) -> Array:
        match self.kind:
            case "linear":
                return pack_linear(values[0].reshape(len(values[0]), -1), values[1])
            case "gate":
                return pack_linear(values[0].T, np.zeros(values[0].shape[1], np.float32))
            case "depthwise":
                weight, bias = values
                return pack_rows(*weight.reshape(-1, 9).T, bias)
            case "expert":
                return pack_expert(*values)
        return pack_rows(*values)

    def unpack(self, packed: Array) -> list[Array]:
        if packed.dtype != np.float32 or packed.shape != (self.size,):
            raise BundleError(
                f"weight {self.ref} is {packed.dtype} {list(packed.shape)}; this model needs float32 [{self.size}]"
            )
        shapes = [shape for _, shape in self.sources]
        match self.kind:
            case "linear":
                weight, bias = unpack_linear(packed, shapes[0][0], prod(shapes[0][1:]))
                return [weight.reshape(shapes[0]), bias]
            case "gate":
                rows, columns = shapes[0]
                return [np.ascontiguousarray(unpack_linear(packed, columns, rows)[0].T)]
            case "depthwise":
                taps = packed.reshape(10, -1)[:, : shapes[0][0]]
                return [np.ascontiguousarray(taps[:9].T).reshape(shapes[0]), taps[9].copy()]
            case "expert":
                hidden, dim = shapes[0]
                return list(unpack_expert(packed, dim, hidden))
        starts = np.cumsum([0] + [round_up(prod(s)) for s in shapes])
        return [packed[i : i + prod(s)].reshape(s).copy() for i, s in zip(starts, shapes, strict=False)]


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of the bundle of a model, in the order in which a frame meets them."""
    c = config.dim

    def linear(part: str, tensor: str, key: str, n: int, *k: int) -> Entry:
        return Entry(part, tensor, "linear", ((f"{key}.weight", (n, *k)), (f"{key}.bias", (n,))))

    def norm(part: str, tensor: str, key: str) -> Entry:
        return Entry(part, tensor, "norm", ((f"{key}.weight", (c,)), (f"{key}.bias", (c,))))

    bb = "backbone"
    yield linear("trunk", "patch_embed", f"{bb}.patch_embed.proj", c, 3, config.patch, config.patch)
    yield Entry("trunk", "cls_token", "vector", ((f"{bb}.cls_token", (1, 1, c)),))
    yield Entry("trunk", "pos_embed", "vector", ((f"{bb}.pos_embed", (1, config.tokens, c)),))
    for i in range(config.depth):
        name, key = f"blocks.{i}", f"{bb}.blocks.{i}"
        yield norm("trunk", f"{name}.norm1", f"{key}.norm1")
        yield linear("trunk", f"{name}.attn.qkv", f"{key}.attn.qkv", 3 * c, c)
        yield linear("trunk", f"{name}.attn.proj", f"{key}.attn.proj", c, c)
        yield norm("trunk", f"{name}.norm2", f"{key}.norm2")
        if i not in config.moe_blocks:
            yield linear("trunk", f"{name}.mlp.fc1", f"{key}.mlp.fc1", config.mlp_hidden, c)
            yield linear("trunk", f"{name}.mlp.fc2", f"{key}.mlp.fc2", c, config.mlp_hidden)
            continue
        held = config.held[config.moe_blocks.index(i)]
        gates = {t: f"task.{t}" for t in config.task_names} if config.gate == "multi" else {"shared": "trunk"}
        for gate, part in gates.items():
            yield Entry(part, f"{name}.gate", "gate", ((f"{key}.mlp.gate.{gate}.w_gate", (c, len(held))),))
        bank, h = f"{key}.mlp.experts", config.expert_hidden
        sources = (
            (f"{bank}.htoh4.weight", (h, c)),
            (f"{bank}.htoh4.bias", (h,)),
            (f"{bank}.h4toh.weight", (c, h)),
            (f"{bank}.h4toh.bias", (c,)),
        )
        for row, expert in enumerate(held):
            yield Entry(f"experts.{i}", str(expert), "expert", sources, row, len(held))
    for task in config.tasks:
        part, key, d = f"task.{task.name}", f"heads.{task.name}", config.head_dim
        yield norm(part, "head.norm", f"{key}.norm")
        yield linear(part, "head.proj", f"{key}.proj", (config.patch // config.head_stride) ** 2 * d, c)
        for step in ("step0", "step1"):
            taps = ((f"{key}.{step}.depthwise.weight", (d, 1, 3, 3)), (f"{key}.{step}.depthwise.bias", (d,)))
            yield Entry(part, f"head.{step}.depthwise", "depthwise", taps)
            yield linear(part, f"head.{step}.pointwise", f"{key}.{step}.pointwise", d, d, 1, 1)
        yield linear(part, "head.out", f"{key}.out", task.channels, d, 1, 1)


def pack_state(config: ModelConfig, state: Mapping[str, NDArray[np.generic]]) -> dict[str, dict[str, Array]]:
    """Part -> tensor name -> packed array, of the state of a whole model.

    Raises CheckpointError when a tensor is missing or has another shape than `config` says.
    """
    parts: dict[str, dict[str, Array]] = {}
    for entry in entries(config):
        values = []
        for key, shape in entry.sources:
            if key not in state:
                raise CheckpointError(f"the model's state has no {key!r}, which its configuration needs")
            value, want = state[key], (entry.bank, *shape) if entry.bank else shape
            if value.shape != want:
                raise CheckpointError(f"{key!r} has shape {list(value.shape)}; the configuration needs {list(want)}")
            values.append(np.asarray(value[entry.row] if entry.bank else value, np.float32))
        parts.setdefault(entry.part, {})[entry.tensor] = entry.pack(values)
    return parts


def unpack_state(
    config: ModelConfig, get: Callable[[str, str], Array], *, stored: ModelConfig | None = None
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
            values = [np.ascontiguousarray(values[0][:, columns])]
        for (key, _), value in zip(entry.sources, values, strict=True):
            if entry.bank:
                banks.setdefault(key, []).append(value)
            else:
                state[key] = value
    return state | {key: np.stack(rows) for key, rows in banks.items()}
