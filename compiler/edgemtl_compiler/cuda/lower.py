"""From a graph to a launch plan: kernels, grids, arguments, and a place in scratch for every tensor.

The launches of a node are in ops/OP.py. Nodes are taken in order, and what an op's file returns for one is what the
files of the nodes that read it find: a tensor, or something that they make part of their own launch, such as a layer
normalisation that is computed where it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

import numpy as np

from edgemtl.errors import CompileError
from edgemtl.graph import Graph, Node, Weight
from edgemtl.graph.ops import want
from edgemtl.runtime.cuda.plan import ALIGN, Argument, Kind, Launch, Plan, Precision
from edgemtl_compiler.cuda import TYPES, ops

ROWS, COLUMNS, DEPTH = 32, 64, 64  # of a linear layer's block and step; kernels/linear.h
THREADS = 128
UNIT = 16  # a row that is multiplied has whole units of so many values


@dataclass(frozen=True)
class Tensor:
    """A tensor between launches: `size` bytes, `item` of them a value.

    tile: a map's pixels lie in squares of so many a side, one after the other; row by row where it is 1.
    """

    name: str
    size: int
    item: int = 4
    tile: int = 1


V = TypeVar("V")
Passed = Tensor | Weight | Argument | int | float


@dataclass
class Lowering:
    """One graph on its way. Arguments are resolved at the end, when every tensor's life is known."""

    graph: Graph
    item: int  # bytes of a value that is multiplied: 2 or 4
    batch: int
    launches: list[tuple[str, tuple[int, int, int], int, int, tuple[Passed, ...]]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)  # of the graph's inputs and of the nodes that are done
    tables: dict[Kind, list[tuple[int, ...]]] = field(default_factory=lambda: {"experts": [], "ints": []})

    def __post_init__(self) -> None:
        self.params = [w.ref for w in self.graph.weights]
        for name, shape in self.graph.inputs.items():
            self.values[name] = self.tensor(name, self.batch * prod(shape))

    def tensor(self, name: str, count: int, *, rounded: bool = False, tile: int = 1) -> Tensor:
        """A new one; rounded: its values are as they are multiplied, otherwise they have four bytes."""
        item = self.item if rounded else 4
        return Tensor(name, count * item, item, tile)

    def value(self, node: Node, number: int, form: type[V]) -> V:
        """An input of a node, if it is of this form. Raises ValueError."""
        name = node.inputs[number]
        found = self.values[name]
        if not isinstance(found, form):
            raise ValueError(f"there is none that reads {name}")
        return found

    def read(self, node: Node, number: int, *, rounded: bool = False, tiled: bool = False) -> Tensor:
        """An input that is a tensor, with values as `tensor` tells them. Raises ValueError for another one."""
        found = self.value(node, number, Tensor)
        kind = "rounded" if rounded else "whole"
        want(found.item == (self.item if rounded else 4), f"it reads {kind} values, and {found.name} has others")
        want(tiled or found.tile == 1, f"it reads a map row by row, and {found.name} lies in tiles")
        return found

    def table(self, kind: Kind, values: Sequence[int]) -> Argument:
        """Numbers on the device: of parameters, for their addresses ("experts"), or as they are ("ints")."""
        self.tables[kind].append(tuple(values))
        return kind, len(self.tables[kind]) - 1

    def launch(self, kernel: str, grid: Sequence[int], threads: int, shared: int, *args: Passed) -> None:
        width, height, depth = (*grid, 1, 1)[:3]
        self.launches.append((kernel, (width, height, depth), threads, shared, args))

    def linear(self, kernel: str, rows: int, width: int, *args: Passed, blocks_down: int | None = None) -> None:
        """A launch of one of the kernels that are a linear layer; `blocks_down` the rows, if not one per 32."""
        grid = (blocks(rows, ROWS) if blocks_down is None else blocks_down, blocks(width, COLUMNS))
        self.launch(kernel, grid, THREADS, linear_shared(self.item), *args)

    def rows(self, node: Node) -> int:
        """Tokens or pixels of a node's output, over the whole batch."""
        return self.batch * prod(node.shape[:-1])


def linear_shared(item: int) -> int:
    """Bytes of shared memory of a linear layer's block: two steps of both sides, and the tables of rows."""
    return 2 * ROWS * (DEPTH + 16 // item) * item + 2 * COLUMNS * DEPTH * item + 4 * ROWS * 4


def blocks(count: int, each: int) -> int:
    return -(-count // each)


def whole_units(*counts: int) -> None:
    """Raises ValueError unless rows of so many values can be multiplied."""
    wrong = [n for n in counts if n % UNIT]
    want(not wrong, f"rows of {', '.join(map(str, wrong))} values; the CUDA kernels need multiples of {UNIT}")


def lower(graph: Graph, precision: Precision, head: int, batch: int = 1) -> Plan:
    """The plan of a graph for `batch` images and no architecture yet. Its parameters are the graph's weights, in order.

    precision: that linear layers and experts are stored and multiplied in, on tensor cores unless it is "f32"; `head`:
    values of an attention head. Raises CompileError, naming the node, for an op or a shape without a kernel.
    """
    for node in graph.nodes:  # first of all: what is missing is more than what does not fit
        ops.find(node)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise CompileError(f"target cuda has programs of one input and one output; {graph.name} has others")
    to = Lowering(graph, np.dtype(TYPES[precision]).itemsize, batch)
    for node in graph.nodes:
        try:
            to.values[node.name] = ops.find(node)(to, node)
        except ValueError as error:
            raise CompileError(f"target cuda has no kernel for {node.name} ({node.op}): {error}") from None
    (result,) = graph.outputs
    if to.values[result] != to.tensor(result, batch * prod(graph.shape(result))):
        raise CompileError(f"target cuda has no kernel that writes {result} as the output of {graph.name}")
    places, scratch = _place(to)
    numbers = {ref: i for i, ref in enumerate(to.params)}

    def resolve(arg: Passed) -> Argument:
        match arg:
            case Tensor():
                return places[arg.name]
            case Weight():
                return "weight", numbers[arg.ref]
            case int():
                return "int", arg
            case float():
                return "float", arg
        return arg

    return Plan(
        arch="sm_00",
        cubin="none",
        precision=precision,
        head=head,
        batch=batch,
        input=4 * batch * prod(*graph.inputs.values()),
        output=4 * batch * prod(graph.shape(result)),
        scratch=scratch,
        params=len(to.params),
        experts=tuple(to.tables["experts"]),
        ints=tuple(to.tables["ints"]),
        launches=tuple(
            Launch(kernel=k, grid=grid, threads=threads, shared=shared, args=tuple(map(resolve, args)))
            for k, grid, threads, shared, args in to.launches
        ),
    )


def _place(to: Lowering) -> tuple[dict[str, Argument], int]:
    """Where every tensor lies: the graph's input and output in theirs, the others in scratch, where two share bytes
    only if one is dead before the other is born. Also the size of scratch.
    """
    uses: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for number, (*_, args) in enumerate(to.launches):
        for arg in args:
            if isinstance(arg, Tensor):
                uses.setdefault(arg.name, []).append(number)
                sizes[arg.name] = blocks(arg.size, ALIGN) * ALIGN
    placed: list[tuple[int, int, int, int]] = []  # first and last launch, begin and end of the bytes
    places: dict[str, Argument] = dict.fromkeys(to.graph.inputs, ("input", 0))
    places |= dict.fromkeys(to.graph.outputs, ("output", 0))
    for name in sorted(uses.keys() - places.keys(), key=lambda name: (-sizes[name], uses[name])):
        first, last, at = min(uses[name]), max(uses[name]), 0
        for _, _, begin, end in sorted((p for p in placed if p[0] <= last and p[1] >= first), key=lambda p: p[2]):
            if at + sizes[name] <= begin:
                break
            at = max(at, end)
        placed.append((first, last, at, at + sizes[name]))
        places[name] = ("scratch", at)
    return places, max((end for *_, end in placed), default=0)
