"""One descriptor of the accelerator's program: its fields, and its work in the estimate.

A descriptor is what the kernel runs at a time: mostly a node of the graph, sometimes two (an MLP).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgemtl.fpga.contract import LANES, LANES_ROW, OpCode
from edgemtl.graph import Node
from edgemtl.graph.integer.gelu import ENTRIES
from edgemtl_compiler.fpga.image import QUAD

if TYPE_CHECKING:
    from edgemtl_compiler.fpga.estimate.cycles import Lanes

GELU_QUADS = 1 + 2 * ENTRIES // QUAD


class Record(NamedTuple):
    """Code and operands, as `edgemtl.fpga.contract` has them; addresses in quads."""

    code: OpCode
    at: int
    second: int = 0
    hidden: int = 0
    stride: int = 0


def tile_quads(inputs: int) -> int:
    """Quads of 16 output channels: biases and factors, then the weights."""
    return 2 + inputs // 4


@dataclass(frozen=True)
class Product:
    """rows [rows][inputs] times weights [outputs][inputs]; `least` steps per group; `pick`: rows are copied first."""

    rows: int
    inputs: int
    outputs: int
    least: int = LANES_ROW
    gelu: bool = False
    expert: bool = False
    pick: bool = False

    @property
    def quads(self) -> int:
        return -(-self.outputs // LANES) * tile_quads(self.inputs) + (GELU_QUADS if self.gelu else 0)


def _nothing(load: Callable[[int], int], lanes: Lanes) -> int:
    return 0


@dataclass(frozen=True)
class Step:
    """A descriptor's work: `kind` names the unit that works before or instead of the products; `tables` are its quads.

    `own` gives that unit's cycles, from what loading some quads takes and the lanes; they overlap with no product.
    """

    name: str
    kind: str
    products: tuple[Product, ...] = ()
    tables: int = 0
    macs: int = 0
    own: Callable[[Callable[[int], int], Lanes], int] = _nothing


def place(node: Node) -> str:
    """Where a node is, in the words of an estimate: block3, head, embed."""
    first, *rest = node.name.split(".")
    return f"block{rest[0]}" if first == "blocks" else first
