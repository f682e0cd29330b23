"""Cycles of a frame: every step's compute against its DDR time, as the loops of hls/src overlap them.

Overlap that the sources have: a weight tile is loaded while the one before meets the rows, across products, experts
and calls (the first tile of the next product is loaded beside the last tile of this one); sums of a row beside the
normalising of the row before; both passes of the attention; its means beside its next block. All else is serial.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edgemtl.fpga import contract
from edgemtl.fpga.board import Facts
from edgemtl.fpga.contract import UNITS
from edgemtl_compiler.fpga.descriptor import GELU_QUADS, Product, Step, tile_quads
from edgemtl_compiler.fpga.estimate import cycles
from edgemtl_compiler.fpga.estimate.cycles import CALL, DDR_LATENCY, Lanes
from edgemtl_compiler.fpga.estimate.schema import Layer
from edgemtl_compiler.fpga.estimate.workload import Workload
from edgemtl_compiler.fpga.image import QUAD

BURST = 256  # bytes: 16 beats of 128 bit, the longest AXI3 burst
OUTSTANDING = 16  # bursts under way per port, as the pragma says


COUNTED = {"top": "program", "head norm": "norm"}  # units that the kernel's counters call otherwise


def by_unit(layers: Iterable[Layer]) -> dict[str, int]:
    """Cycles by the names of edgemtl.fpga.counters, for comparison with what a kernel counted."""
    out = dict.fromkeys(UNITS, 0)
    for layer in layers:
        out[COUNTED.get(layer.unit, layer.unit)] += layer.own_cycles
        out["linear"] += layer.cycles - layer.own_cycles
    return {name: cycles for name, cycles in out.items() if cycles}


def bytes_per_cycle(board: Facts, clock_hz: float, ports: int = 4) -> float:
    """What the weights' ports bring: the least of 75 % of the DDR's peak, the ports, and the bursts in flight."""
    burst = BURST / (BURST + DDR_LATENCY * 16 / OUTSTANDING)
    port = 16.0 * ports
    return min(board.ddr.share * board.ddr.bytes_per_second / clock_hz, port * burst)


@dataclass(frozen=True)
class Tile:
    """One weight tile: quads to load, cycles to compute, cycles that go before (table of GELU, picking of rows)."""

    quads: int
    compute: int
    before: int = 0


class Clockwork:
    """Adds up a frame. `ahead`: the first tile of the next product is already on chip."""

    def __init__(self, work: Workload, board: Facts, clock_hz: float, lanes: Lanes) -> None:
        self.work, self.lanes = work, lanes
        self.rate = bytes_per_cycle(board, clock_hz)
        self.ahead = False

    def layers(self) -> tuple[Layer, ...]:
        steps, out = self.work.steps, [self._program()]
        for i, step in enumerate(steps):
            later = next((s for s in steps[i + 1 :] if s.products), None)
            coming = None if later is None or later.products[0].expert else self._tiles(later.products[0])[0]
            out.append(self._layer(step, coming))
        return tuple(out)

    def load(self, quads: int) -> int:
        """A sequential read over all four ports, from the call to the last word."""
        return DDR_LATENCY + math.ceil(quads * QUAD / self.rate) + CALL if quads else 0

    def _program(self) -> Layer:
        """Reading and checking the descriptors: a word per four cycles, about 30 cycles of checks each."""
        size = self.work.program_bytes
        spent = DDR_LATENCY + size // 16 * 4 + 30 * len(self.work.steps)
        return Layer(
            name="program", unit="top", cycles=spent, own_cycles=spent, compute_cycles=spent,
            ddr_cycles=math.ceil(size / 16), ddr_bytes=size,
        )  # fmt: skip

    def _layer(self, step: Step, coming: Tile | None) -> Layer:
        serial = step.own(self.load, self.lanes)
        tiles = [t for p in step.products for t in self._tiles(p)]
        spent = serial
        if tiles:
            spent += 0 if self.ahead else self.load(tiles[0].quads)
            for i, tile in enumerate(tiles):
                then = tiles[i + 1] if i + 1 < len(tiles) else coming
                spent += tile.before + max(tile.compute, self.load(then.quads) if then else 0)
            self.ahead = coming is not None
        compute = serial + sum(t.before + t.compute for t in tiles)
        quads = step.tables + sum(p.quads for p in step.products)
        size = quads * QUAD + self._moved(step)
        ddr = math.ceil(size / self.rate)
        rows = sum(cycles.groups(p.rows, self.lanes) * self.lanes.row for p in step.products)
        return Layer(
            name=step.name, unit=step.kind, cycles=spent, own_cycles=serial, compute_cycles=compute, ddr_cycles=ddr,
            ddr_bytes=size, macs=step.macs, rows=rows, bound="ddr" if ddr > compute else "compute",
        )  # fmt: skip

    def _moved(self, step: Step) -> int:
        """Pixels and outputs."""
        if step.kind == "embed":
            return self.work.pixel_bytes
        return self.work.output_bytes if step.kind in ("narrow", "tokens") else 0

    def _tiles(self, product: Product) -> list[Tile]:
        chunks = -(-product.inputs // contract.LANES)
        most = contract.LANES * min(contract.TILE_BLOCKS // chunks, 32) if product.expert else self.lanes.tile
        out = []
        for first in range(0, product.outputs, most):
            channels = min(most, product.outputs - first)
            quads = -(-channels // contract.LANES) * tile_quads(product.inputs)
            before = 0
            if first == 0:
                before += self.load(GELU_QUADS) if product.gelu else 0
                before += product.rows * -(-chunks // contract.LANES_ROW) + 8 + CALL if product.pick else 0
            compute = cycles.tile_cycles(product.rows, product.inputs, channels, self.lanes, product.least)
            out.append(Tile(quads, compute, before))
        return out
