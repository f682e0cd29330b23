"""DSP, LUT, FF, BRAM and URAM of the units, against the part.

DSP48E2: one multiplies 27 x 18 bits signed (AMD UG579), so a wider product takes several; two INT8 products share one
(hls/include/mul2.h). LUT and FF are a range: what yosys 0.23 finds in the modules of hls/rtl
(tests/hls/rtl_cost.py), times their number, and an allowance for the units without a twin. The low end has the
additions behind a multiplier and its registers inside the DSPs, where a DSP48E2 has room for them; at the high end they
are LUTs and FFs (hls/rtl/README.md). Yosys knows no timing, and Vivado packs better than it: trust LUT to a half, FF to
a factor of two.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.errors import CompileError
from edgemtl.fpga import contract
from edgemtl.fpga.board import Facts
from edgemtl_compiler.fpga.estimate.cycles import Lanes
from edgemtl_compiler.fpga.estimate.memory import memory_map
from edgemtl_compiler.fpga.estimate.schema import Memory, Resource, Unit

YOSYS = "yosys 0.23 of the parts in hls/rtl, times their number"
DSP_RULE = "27 x 18 bit products of DSP48E2"


@dataclass(frozen=True)
class Cost:
    """DSPs, and LUTs and FFs as (low, high)."""

    dsp: int
    lut: tuple[int, int]
    ff: tuple[int, int]


def units(lanes: Lanes) -> dict[str, Cost]:
    """Cost of every unit but its memories."""
    dots = lanes.row // 2 * lanes.outputs  # of two rows and a channel, `inputs` multipliers each
    width, slots, out = contract.MAX_HEAD_WIDTH, lanes.query, lanes.outputs
    # Per dot of 16 inputs packed_dot.sv, then operands and sums of mac_array.sv; per channel linear_epilogue.sv; then
    # weight_tiles.sv and the issue.
    part = lanes.inputs / 16
    linear = Cost(
        dsp=dots * lanes.inputs + out * (1 + 1 + 2),  # scale, GELU, score (32 x 17)
        lut=(dots * (int(169 * part) + 128) + out * 1055 + 2600, dots * (int(611 * part) + 128) + out * 1138 + 2600),
        ff=(dots * (int(181 * part) + 161) + out * 324 + 1750, dots * (int(1331 * part) + 161) + out * 502 + 1750),
    )
    # Weight times value in LUTs (mul2.h) and its sum: 213 LUT, 98 FF of attention_slot.sv. Per pair of queries
    # packed_dot.sv with a head's width, per query exp2_weight.sv; then attention_mean.sv, the key stream, the ring.
    weigh, pairs = slots * width, slots // 2
    attention = Cost(
        dsp=pairs * width + slots + contract.LANES_LEAVE * (4 + 1),  # pairs of queries; power; mean (34 x 28) and scale
        lut=(weigh * 213 + pairs * 1088 + slots * 394 + 12_500, weigh * 213 + pairs * 3151 + slots * 401 + 12_600),
        ff=(weigh * 98 + pairs * 604 + slots * 68 + 7400, weigh * 98 + pairs * 5196 + slots * 197 + 8300),
    )
    norm = Cost(lanes.norm * (1 + 2 + 2) + 6, (8500, 12_000), (9000, 20_000))  # square, reciprocal, gamma; variance
    gate = Cost(4, (2500, 5000), (2500, 6000))
    depthwise = Cost(16 + 2 * 2, (2500, 4000), (1500, 4000))
    narrow = Cost(16, (1200, 2400), (1000, 3000))
    # Turning eight words between banks and rows, twice read, twice written; ports; the descriptors' checks; counters.
    other = Cost(10, (21_000, 30_000), (15_000, 35_000))
    return {
        "linear": linear, "attention": attention, "layer_norm": norm, "gate": gate, "depthwise": depthwise,
        "narrow": narrow, "top, ports and memories": other,
    }  # fmt: skip


def by_unit(lanes: Lanes) -> tuple[Unit, ...]:
    """As units of the schema."""
    out = []
    for name, cost in units(lanes).items():
        out.append(
            Unit(
                name=name,
                resources=(
                    Resource(name="DSP48E2", low=cost.dsp, high=cost.dsp, source=DSP_RULE),
                    Resource(name="LUT", low=cost.lut[0], high=cost.lut[1], source=YOSYS),
                    Resource(name="FF", low=cost.ff[0], high=cost.ff[1], source=YOSYS),
                ),
            )
        )
    return tuple(out)


def totals(lanes: Lanes, board: Facts, memories: tuple[Memory, ...] | None = None) -> tuple[Resource, ...]:
    """Sums over the units and memories, with the part's limits."""
    memories = memories if memories is not None else memory_map(lanes, board.memories)
    costs = list(units(lanes).values())
    lutram = sum(m.blocks for m in memories if m.kind == "LUTRAM")
    dsp = sum(c.dsp for c in costs)
    figures = [
        ("DSP48E2", dsp, dsp, DSP_RULE),
        ("LUT", sum(c.lut[0] for c in costs) + lutram, sum(c.lut[1] for c in costs) + lutram, YOSYS),
        ("FF", sum(c.ff[0] for c in costs), sum(c.ff[1] for c in costs), YOSYS),
    ]
    for kind in ("BRAM36", "URAM288"):
        blocks = sum(m.blocks for m in memories if m.kind == kind)
        figures.append((kind, blocks, blocks, "geometry of the blocks"))
    return tuple(
        Resource(
            name=name, low=low, high=high, limit=board.limit(name), available=board.available(name), source=source
        )
        for name, low, high, source in figures
    )  # fmt: skip


def over(resources: tuple[Resource, ...]) -> list[Resource]:
    """What does not fit: even the low end of a range is above the limit."""
    return [r for r in resources if r.limit is not None and r.low > r.limit]


def check(resources: tuple[Resource, ...], board: Facts) -> None:
    """Raises CompileError naming each resource that is short, and by how much."""
    short = [
        f"{r.name}: {r.low:.0f} needed, {r.limit:.0f} may be used of {r.available:.0f}, {r.low - r.limit:.0f} too many"
        for r in over(resources)
        if r.limit is not None
    ]
    if short:
        raise CompileError(f"this configuration does not fit {board.name}: {'; '.join(short)}; use fewer lanes")
