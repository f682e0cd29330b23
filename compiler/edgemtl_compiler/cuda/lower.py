"""From a list of operations to a launch plan: kernels, grids, arguments, and a place in scratch for every tensor.

Grids follow from shapes alone. That of the experts' products has a block for every 32 choices and one more per expert,
which is enough for any routing: queues of n1 + n2 + … choices have at most (n1 + n2 + …) / 32 + experts tiles of 32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.runtime.cuda.plan import ALIGN, Argument, Launch, Plan, Precision
from edgemtl_compiler.cuda import TYPES

if TYPE_CHECKING:
    from edgemtl_compiler.cpu.tvm_adapter import Called

HEADS = (16, 32, 64, 128)  # sizes of an attention head that there is a kernel for
ROWS, COLUMNS, DEPTH = 32, 64, 64  # of a linear layer's block and step; kernels/linear.h
THREADS, DISPATCH_THREADS = 128, 256
QUERIES, WARPS, ROUTED, NORMED = 16, 4, 4, 4  # kernels/attention.h, experts.h, conv_head.h
LEAST_SHARED = 99 << 10  # bytes that a block may have on every GPU from compute capability 8.0 on


@dataclass(frozen=True)
class Tensor:
    """A tensor between launches; `size` in bytes."""

    name: str
    size: int


@dataclass
class _Lowering:
    """One function on its way. Arguments are resolved at the end, when every tensor's life is known."""

    config: ModelConfig
    item: int  # bytes of a value that is multiplied: 2 or 4
    batch: int
    weights: Mapping[str, int]  # reference -> number of the parameter
    launches: list[tuple[str, tuple[int, int, int], int, int, tuple[Any, ...]]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    experts: list[tuple[int, ...]] = field(default_factory=list)
    ints: list[tuple[int, ...]] = field(default_factory=list)

    def tensor(self, name: str, count: int, item: int = 4) -> Tensor:
        self.tensors[name] = Tensor(name, count * item)
        return self.tensors[name]

    def launch(self, kernel: str, grid: Sequence[int], threads: int, shared: int, *args: Any) -> None:
        """args: tensors, "input", references of weights, ("experts" | "ints", number), numbers."""
        width, height, depth = (*grid, 1, 1)[:3]
        self.launches.append((kernel, (width, height, depth), threads, shared, args))

    def linear(self, kernel: str, rows: int, width: int, *args: Any, blocks: int | None = None) -> None:
        """A launch of one of the kernels that are a linear layer; `blocks` along the rows, if not one per 32."""
        grid = (_blocks(rows, ROWS) if blocks is None else blocks, _blocks(width, COLUMNS))
        self.launch(kernel, grid, THREADS, linear_shared(self.item), *args)

    @property
    def rows(self) -> int:
        return self.batch * self.config.tokens


def linear_shared(item: int) -> int:
    """Bytes of shared memory of a linear layer's block: two steps of both sides, and the tables of rows."""
    return 2 * ROWS * (DEPTH + 16 // item) * item + 2 * COLUMNS * DEPTH * item + 4 * ROWS * 4


def attention_shared(size: int) -> int:
    return WARPS * QUERIES * (2 + size) * 4


def route_shared(dim: int, path: int) -> int:
    return ROUTED * (dim + 2 * path) * 4


def _blocks(count: int, each: int) -> int:
    return -(-count // each)


def check_config(config: ModelConfig) -> None:
    """Raises CompileError, naming the setting, for a shape that the kernels do not cover."""
    if config.gate != "multi":
        raise CompileError("a model with one shared gate has no task paths to compile; convert it with to_multi_gate")
    if (size := config.dim // config.heads) not in HEADS:
        raise CompileError(
            f"dim / heads is {size}; the CUDA kernels have attention heads of {', '.join(map(str, HEADS))} values"
        )
    sizes = {
        "dim": config.dim,
        "dim * mlp_ratio": config.mlp_hidden,
        "dim * expert_ratio": config.expert_hidden,
        "head_dim": config.head_dim,
        "3 * patch * patch": 3 * config.patch**2,
    }
    for what, value in sizes.items():
        if value % 16:
            raise CompileError(f"{what} is {value}; the CUDA kernels need a multiple of 16")
    if (shared := route_shared(config.dim, config.experts)) > LEAST_SHARED:
        raise CompileError(
            f"dim {config.dim} with {config.experts} experts takes {shared} bytes of shared memory for the gate, more"
            f" than the {LEAST_SHARED} that every GPU has"
        )


def lower(
    calls: Sequence[Called],
    params: Sequence[str],
    config: ModelConfig,
    *,
    precision: Precision,
    arch: str,
    cubin: str,
    batch: int,
    sizes: tuple[int, int],
) -> Plan:
    """The plan of a function. `params`: its weights in order; `precision`: of what is multiplied; `sizes`: bytes of
    its input and its output, for the whole batch.
    """
    to = _Lowering(config, np.dtype(TYPES[precision]).itemsize, batch, {ref: i for i, ref in enumerate(params)})
    for call in calls:
        _OPERATIONS[call.kernel.removeprefix("edgemtl_")](to, call)
    places, scratch = _place(to, calls[-1].result)

    def resolve(arg: Any) -> Argument:
        if isinstance(arg, Tensor):
            return places[arg.name]
        if arg == "input":
            return "input", 0
        if isinstance(arg, str):
            return "weight", to.weights[arg]
        if isinstance(arg, tuple):
            return arg
        return ("float", arg) if isinstance(arg, float) else ("int", arg)

    return Plan(
        arch=arch,
        cubin=cubin,
        precision=precision,
        head=config.dim // config.heads,
        batch=batch,
        input=sizes[0],
        output=sizes[1],
        scratch=scratch,
        params=len(params),
        experts=tuple(to.experts),
        ints=tuple(to.ints),
        launches=tuple(
            Launch(kernel=k, grid=grid, threads=threads, shared=shared, args=tuple(map(resolve, args)))
            for k, grid, threads, shared, args in to.launches
        ),
    )


def _place(to: _Lowering, result: str) -> tuple[dict[str, Argument], int]:
    """Where every tensor lies: the function's result in its output, the others in scratch, where two share bytes only
    if one is dead before the other is born. Also the size of scratch.
    """
    uses: dict[str, list[int]] = {}
    for number, (*_, args) in enumerate(to.launches):
        for arg in args:
            if isinstance(arg, Tensor):
                uses.setdefault(arg.name, []).append(number)
    placed: list[tuple[int, int, int, int]] = []  # first and last launch, begin and end of the bytes
    places: dict[str, Argument] = {result: ("output", 0)}
    for name, numbers in sorted(uses.items(), key=lambda u: (-to.tensors[u[0]].size, u[0])):
        if name == result:
            continue
        size = _blocks(to.tensors[name].size, ALIGN) * ALIGN
        first, last, at = min(numbers), max(numbers), 0
        for _, _, begin, end in sorted((p for p in placed if p[0] <= last and p[1] >= first), key=lambda p: p[2]):
            if at + size <= begin:
                break
            at = max(at, end)
        placed.append((first, last, at, at + size))
        places[name] = ("scratch", at)
    return places, max((end for *_, end in placed), default=0)


def _value(to: _Lowering, name: Any) -> Any:
    """A call's argument: an earlier result, or what it is."""
    return to.tensors.get(name, name)


def _patch_embed(to: _Lowering, call: Called) -> None:
    image, w, cls, position = (_value(to, a) for a in call.args)
    c, out = to.config, to.tensor(call.result, prod(call.shape))
    args = (image, w, cls, position, out, to.rows, c.dim, *c.image_size, c.patch)
    to.linear("patch_embed", to.rows, c.dim, *args)


def _attention(to: _Lowering, call: Called) -> None:
    x, norm, qkv, proj = (_value(to, a) for a in call.args)
    c, name = to.config, call.result
    wide = to.tensor(f"{name}.qkv", 3 * to.rows * c.dim, to.item)
    heads = to.tensor(f"{name}.heads", to.rows * c.dim, to.item)
    out = to.tensor(name, to.rows * c.dim)
    to.linear("norm_linear", to.rows, 3 * c.dim, x, norm, qkv, wide, to.rows, c.dim, 3 * c.dim, c.norm_eps)
    grid = (_blocks(c.tokens, QUERIES), c.heads, to.batch)
    to.launch("attention", grid, WARPS * 32, attention_shared(c.dim // c.heads), wide, heads, c.tokens, c.heads)
    to.linear("linear_residual", to.rows, c.dim, heads, proj, x, out, to.rows, c.dim, c.dim)


def _mlp(to: _Lowering, call: Called) -> None:
    x, norm, up, down = (_value(to, a) for a in call.args)
    c, h = to.config, to.config.mlp_hidden
    hidden = to.tensor(f"{call.result}.hidden", to.rows * h, to.item)
    out = to.tensor(call.result, to.rows * c.dim)
    to.linear("norm_linear_gelu", to.rows, h, x, norm, up, hidden, to.rows, c.dim, h, c.norm_eps)
    to.linear("linear_residual", to.rows, c.dim, hidden, down, x, out, to.rows, h, c.dim)


def _experts(to: _Lowering, call: Called) -> None:
    x, norm, gate, held, columns, *experts = (_value(to, a) for a in call.args)
    c, name, h, k = to.config, call.result, to.config.expert_hidden, to.config.top_k
    count, pairs = len(experts), to.rows * k
    to.experts.append(tuple(to.weights[ref] for ref in experts))
    to.ints.append(tuple(columns))
    table, path = ("experts", len(to.experts) - 1), ("ints", len(to.ints) - 1)
    normed = to.tensor(f"{name}.normed", to.rows * c.dim, to.item)
    index, score = to.tensor(f"{name}.index", pairs), to.tensor(f"{name}.score", pairs)
    start, order = to.tensor(f"{name}.start", count + 1), to.tensor(f"{name}.order", pairs)
    hidden = to.tensor(f"{name}.hidden", pairs * h, to.item)
    parts, out = to.tensor(f"{name}.parts", pairs * c.dim), to.tensor(name, to.rows * c.dim)
    args = (x, norm, gate, path, normed, index, score, to.rows, c.dim, held, count, k, int(c.renormalise))
    to.launch("route", (_blocks(to.rows, ROUTED),), ROUTED * 32, route_shared(c.dim, count), *args, c.norm_eps)
    to.launch("dispatch", (count,), DISPATCH_THREADS, 2 * DISPATCH_THREADS // 32 * 4, index, start, order, pairs)
    tiles = min(pairs, pairs // ROWS + count)
    to.linear("expert_up", pairs, h, normed, table, start, order, hidden, c.dim, h, count, k, blocks=tiles)
    queues = (hidden, table, start, order, score, parts, c.dim, h, count, k)
    to.linear("expert_down", pairs, c.dim, *queues, blocks=tiles)
    to.launch("combine", (to.rows,), THREADS, 0, parts, index, x, out, c.dim, k)


def _head(to: _Lowering, call: Called) -> None:
    x, norm, proj, *steps, last = (_value(to, a) for a in call.args)
    c, name, d = to.config, call.result, to.config.head_dim
    patches, tile = c.tokens - 1, c.patch // c.head_stride
    rows, pixels, wide = to.batch * patches, patches * tile**2, tile**2 * d
    tiles = (*c.grid, tile)
    maps = [to.tensor(f"{name}.map{i}", to.batch * pixels * d) for i in range(3)]
    to.linear("head_project", rows, wide, x, norm, proj, maps[0], rows, c.dim, wide, patches, c.norm_eps)
    for i in range(2):
        taps, mix = steps[2 * i : 2 * i + 2]
        count = to.batch * pixels
        to.linear("separable_step", count, d, maps[i], taps, mix, maps[i + 1], count, d, *tiles)
    _to_map(to, call, maps[2], last, tiles)


def _conv_head(to: _Lowering, call: Called) -> None:
    x, norm, *convs, last = (_value(to, a) for a in call.args)
    c, name, d = to.config, call.result, to.config.head_dim
    (high, wide), dim, patches = c.grid, c.dim, c.tokens - 1
    rows = to.batch * patches
    source = to.tensor(f"{name}.normed", rows * dim, to.item)
    args = (x, norm, source, rows, patches, dim, c.norm_eps)
    to.launch("normalise_patches", (_blocks(rows, NORMED),), NORMED * 32, 0, *args)
    for i, w in enumerate(convs):
        out = to.tensor(f"{name}.map{i}", rows * d)
        to.linear("conv_relu", rows, d, source, w, out, rows, dim, d, high, wide)
        if i < len(convs) - 1:
            source = to.tensor(f"{name}.doubled{i}", 4 * rows * d, to.item)
            to.launch("double_map", (4 * high * wide, 1, to.batch), THREADS, 0, out, source, high, wide, d)
            high, wide, rows, dim = 2 * high, 2 * wide, 4 * rows, d
    _to_map(to, call, out, last, (high, wide, 1))


def _to_map(to: _Lowering, call: Called, x: Tensor, last: str, tiles: tuple[int, int, int]) -> None:
    """The head's 1x1 step, of a map of so many tiles down and across, each so many pixels wide."""
    down, across, tile = tiles
    channels, out = call.shape[1], to.tensor(call.result, prod(call.shape))
    grid = (_blocks(down * across * tile**2, THREADS), _blocks(channels, 16), to.batch)
    to.launch("to_map", grid, THREADS, 0, x, last, out, channels, to.config.head_dim, *tiles)


_OPERATIONS = {
    "patch_embed": _patch_embed,
    "attention": _attention,
    "mlp": _mlp,
    "experts": _experts,
    "head": _head,
    "conv_head": _conv_head,
}
