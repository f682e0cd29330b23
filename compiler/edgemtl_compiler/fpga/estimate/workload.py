"""A frame as the accelerator runs it: descriptors, their products, table sizes and routing, from shapes alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler.fpga import ops
from edgemtl_compiler.fpga.descriptor import Step
from edgemtl_compiler.fpga.estimate.cycles import CALL, loop
from edgemtl_compiler.fpga.image import QUAD
from edgemtl_compiler.fpga.network import graph_of

Scope = Literal["task", "backbone"]


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
    graph, routed = graph_of(config, task, scope == "backbone"), routing(config, task, queues)
    rows = dict(zip((n.name for n in graph.nodes if n.op == "experts"), routed, strict=True))
    found = (ops.find(node).step(node, graph, rows) for node in graph.nodes)
    steps = [step for step in found if step is not None]
    if scope == "backbone":
        words = config.tokens * config.dim // 8
        steps.append(Step("tokens", "tokens", own=lambda load, lanes: loop(words, 1, 6) + CALL))
    return Workload(config, task, scope, routed, tuple(steps))
