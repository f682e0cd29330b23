"""A frame as the accelerator runs it: descriptors, their products, table sizes and routing, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler.fpga import limits
from edgemtl_compiler.fpga.image import QUAD

Scope = Literal["task", "backbone"]
GELU_QUADS = 17
PATCH_VALUES = limits.PATCH * limits.PATCH * 3


def tile_quads(inputs: int) -> int:
    """Quads of 16 output channels: biases and factors, then the weights."""
    return 2 + inputs // 4


@dataclass(frozen=True)
class Product:
    """rows [rows][inputs] times weights [outputs][inputs]; `least` steps per group; `pick`: rows are copied first."""

    rows: int
    inputs: int
    outputs: int
    least: int = limits.LANES_ROW
    gelu: bool = False
    expert: bool = False
    pick: bool = False

    @property
    def quads(self) -> int:
        return -(-self.outputs // limits.LANES) * tile_quads(self.inputs) + (GELU_QUADS if self.gelu else 0)


@dataclass(frozen=True)
class Step:
    """One descriptor: `kind` names the unit that works before or instead of the products; `tables` are its quads."""

    name: str
    kind: str
    products: tuple[Product, ...] = ()
    tables: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Workload:
    """Everything that a frame's cycles depend on; `queues` are the rows per expert of the path, per MoE block."""

    config: ModelConfig
    task: str
    scope: Scope
    queues: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weight image that a frame reads: the tables of trunk, task and routed experts, each once."""
        return QUAD * sum(s.tables + sum(p.quads for p in s.products) for s in self.steps)

    @property
    def macs(self) -> int:
        return sum(s.macs for s in self.steps)

    @property
    def pixel_bytes(self) -> int:
        return self.config.image_size[0] * self.config.image_size[1] * 3

    @property
    def output_bytes(self) -> int:
        """The raw map, or the tokens of the residual stream; INT16 in whole words."""
        if self.scope == "backbone":
            return 2 * self.config.tokens * self.config.dim
        pixels, channels = self.config.map_size[0] * self.config.map_size[1], self.config.task(self.task).channels
        return 16 * (channels // 16 * pixels * 2 + -(-(channels % 16) * pixels // 8))

    @property
    def program_bytes(self) -> int:
        return 4 * 16 * (1 + len(self.config.tasks) + len(self.steps))


def balanced(total: int, experts: int) -> tuple[int, ...]:
    """`total` rows over `experts`, as even as whole rows allow; the first ones take the rest."""
    return tuple(total // experts + (e < total % experts) for e in range(experts))


def routing(config: ModelConfig, task: str, queues: Sequence[int] | None) -> tuple[tuple[int, ...], ...]:
    """Rows per expert of the path and MoE block: balanced, or `queues` for every block. Raises CompileError."""
    out = []
    for path in config.path(task):
        total = config.tokens * config.top_k
        if queues is None:
            out.append(balanced(total, len(path)))
            continue
        if len(queues) != len(path) or sum(queues) != total or not all(0 <= n <= config.tokens for n in queues):
            raise CompileError(
                f"a routing gives {len(path)} numbers of 0 to {config.tokens} tokens that add up to {total} "
                f"({config.tokens} tokens times top-{config.top_k}); given {', '.join(map(str, queues))}"
            )
        out.append(tuple(queues))
    return tuple(out)


def workload(config: ModelConfig, task: str, *, scope: Scope = "task", queues: Sequence[int] | None = None) -> Workload:
    """The steps of one frame of `task`; with the scope "backbone" it ends with the last block's tokens."""
    limits.check(config, host_heads=scope == "backbone")
    routed = routing(config, task, queues)
    n, d, grid = config.tokens, config.dim, config.tokens - 1
    norm, attend = 1 + d // 8, 1 + d // 16

    def linear(name: str, kind: str, *products: Product, tables: int = 0, macs: int = 0) -> Step:
        work = sum(p.rows * p.inputs * p.outputs for p in products)
        return Step(name, kind, products, tables, macs or work)

    steps = [linear("embed", "embed", Product(grid, PATCH_VALUES, d), tables=-(-n * d // 32))]
    for i in range(config.depth):
        at = f"block{i}"
        steps += [
            Step(f"{at}.norm1", "norm", tables=norm),
            linear(f"{at}.qkv", "linear", Product(n, d, 3 * d)),
            Step(f"{at}.attention", "attention", tables=attend, macs=2 * n * n * d),
            linear(f"{at}.project", "linear", Product(n, d, d)),
            Step(f"{at}.norm2", "norm", tables=norm),
        ]
        if i not in config.moe_blocks:
            hidden = config.mlp_hidden
            steps.append(linear(f"{at}.mlp", "linear", Product(n, d, hidden, gelu=True), Product(n, hidden, d)))
            continue
        block = config.moe_blocks.index(i)
        path, hidden = config.path(task)[block], config.expert_hidden
        logits = Product(n, d, 2 * limits.MAX_EXPERTS)
        steps.append(linear(f"{at}.gate", "gate", logits, tables=3, macs=n * d * len(path)))
        products = []
        for rows in routed[block]:
            if rows:
                products.append(Product(rows, d, hidden, gelu=True, expert=True, pick=True))
                products.append(Product(rows, hidden, d, expert=True))
        steps.append(linear(f"{at}.experts", "linear", *products))
    if scope == "task":
        steps += _head(config, task)
    else:
        steps.append(Step("tokens", "tokens"))
    return Workload(config, task, scope, routed, tuple(steps))


def _head(config: ModelConfig, task: str) -> list[Step]:
    grid, width, tile = config.tokens - 1, config.head_dim, config.patch // config.head_stride
    pixels, channels = grid * tile * tile, config.task(task).channels
    project = Product(grid, config.dim, tile * tile * width, gelu=True)
    point = Product(pixels, width, width)
    out = Product(pixels, width, channels, least=2 * limits.LANES_ROW + 1)
    taps = GELU_QUADS + width // 16 * 5
    step_macs = pixels * width * (9 + width)
    return [
        Step("head.norm", "head norm", tables=1 + config.dim // 8),
        Step("head.project", "linear", (project,), 0, grid * config.dim * project.outputs),
        *(Step(f"head.step{i}", "depthwise", (point,), taps, step_macs) for i in range(2)),
        Step("head.output", "narrow", (out,), width // 16 * 2, pixels * width * channels),
    ]
