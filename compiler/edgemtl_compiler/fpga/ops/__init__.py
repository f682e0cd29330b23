"""The ops that the accelerator has: one file each, called as in edgemtl/graph/ops; there is no list to add one to.

A file says how a node's integers are made from float weights and ranges, how they lie in the weight image, which
descriptor runs them, and what that costs in the estimate. What they compute is the graph op's `integer`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer.gelu import REACH
from edgemtl.graph.run import Values
from edgemtl_compiler.fpga.descriptor import Record, Step
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float, Range, key
from edgemtl_compiler.quantise.factors import Codes

Add = Callable[[bytes], int]  # appends whole quads to the weight image and gives their address


def seen(ranges: Mapping[str, Range], name: str) -> Range:
    """A value's range. Raises CompileError where there is none."""
    if name not in ranges:
        raise CompileError(f"there is no range of {name}: calibrate this model again")
    return ranges[name]


@dataclass
class Quantiser:
    """One task's graph, its float weights and ranges: what an op asks when a node's integers are made.

    `codes` says what a node's INT8 output means. Streams are INT16 in units of a power of two: the trunk's has
    `stream_bits` fraction bits. `percentile` and `max_saturation` as for `quantise`.
    """

    config: ModelConfig
    graph: Graph
    values: Values
    ranges: Mapping[str, Range]
    stream_bits: int
    percentile: float
    max_saturation: float
    codes: dict[str, Codes] = field(default_factory=dict)

    def range(self, name: str) -> Range:
        """Of a value of the graph. Raises CompileError where calibration has not seen it."""
        return seen(self.ranges, key(self.graph.name, name))

    def weights(self, node: Node, at: int = 0) -> list[Float]:
        """The arrays of one of a node's weight tensors."""
        return [a.astype(np.float64) for a in self.values(node.weights[at])]

    def reader(self, node: Node) -> Float:
        """The weight [N, C] that alone reads a node's INT8 output; a gate reads along."""
        found = [find(u).reads(u, self) for u in self.graph.users(node.name) if u.op != "route"]
        if len(found) != 1 or found[0] is None:
            raise CompileError(f"{node.name}: the accelerator needs one product that reads this {node.op}")
        return found[0]

    def unit(self, node: Node) -> float:
        """What one step of the stream that a node's output is on stands for."""
        return 2.0 ** -(self.head_bits if node.name.startswith("head.") else self.stream_bits)

    @cached_property
    def head_bits(self) -> int:
        """Fraction bits of the head's stream; its projection's GELU also reads its input in the stream's units."""
        nodes = [n for n in self.graph.nodes if n.name.startswith("head.") and find(n).on_stream(n)]
        below = -float(self.range(f"{nodes[0].name}.inner").low.min())
        return factors.stream_bits(max(*(self.range(n.name).most for n in nodes), min(below, REACH) / 1.5))

    def reach(self, name: str, r: Range, groups: int) -> NDArray[np.float64]:
        """Greatest magnitude per group of channels [groups]. Raises CompileError where too much would saturate."""
        reach = factors.clipped(r, self.percentile, groups)
        sample = np.abs(r.sample).reshape(len(r.sample), groups, -1)
        share = float((sample > reach[:, None]).mean())
        if share > self.max_saturation:
            raise CompileError(
                f"{share:.2%} of the calibrated values of {name} would saturate at percentile {self.percentile:g}; "
                f"the limit is {self.max_saturation:.2%}: raise the percentile"
            )
        return reach


class FpgaOp(ABC):
    """An op of the accelerator. All but `quantise` may be left out where there is nothing to say."""

    def check(self, node: Node, graph: Graph) -> None:
        """Raises CompileError, by `refusal`, for a node that the accelerator cannot run though it has the op."""
        return

    @abstractmethod
    def quantise(self, node: Node, q: Quantiser) -> tuple[Any, Codes | None]:
        """The node's integers, as the graph op's `integer` wants them, and what its output's codes mean if INT8."""

    def on_stream(self, node: Node) -> bool:
        """Whether the output is an INT16 stream."""
        return False

    def reads(self, node: Node, q: Quantiser) -> Float | None:
        """The weight [N, C] that the node's first input meets."""
        return None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record | None:
        """Adds the node's tables to the weight image. Gives the descriptor; none where another node's runs it too."""
        return None

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step | None:
        """The descriptor's work in a frame; `queues` has the rows of each expert of the path, by node."""
        return None


@functools.cache
def names() -> tuple[str, ...]:
    """Every op that the accelerator has."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__)))


def find(node: Node) -> FpgaOp:
    """The accelerator's side of a node's op. Raises CompileError for one that it lacks."""
    if node.op not in names():
        raise refusal(node)
    op = importlib.import_module(f"{__name__}.{node.op}").OP
    assert isinstance(op, FpgaOp)
    return op


def refusal(node: Node, why: str = "") -> CompileError:
    """That the accelerator has no such node, why, and what to do instead."""
    hint = "compile this model with --target cpu, onnx or torch"
    if node.name.startswith("head."):
        hint = (
            "it has the light head alone; measure this model's backbone with `edgemtl quantise --host-heads` or"
            " `edgemtl estimate --scope backbone`"
        )
    return CompileError(f"the accelerator has no {node.op} for {node.name}{why and f', {why}'}: {hint}")
