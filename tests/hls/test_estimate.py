"""The estimate: cycles against published and counted loops, bytes against the packed image, and what it refuses."""

from __future__ import annotations

import itertools
import math
import re

import ablation
import pytest
from hls_models import HLS, integers, lively, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.errors import BoardError, CompileError
from edgemtl.fpga.board import find
from edgemtl.graph.count import count
from edgemtl.model import preset
from edgemtl_compiler.fpga.estimate import (
    Lanes,
    Report,
    attention_cycles,
    estimate,
    lanes_of,
    linear_cycles,
    sweep,
)
from edgemtl_compiler.fpga.estimate.cycles import loop, norm_cycles
from edgemtl_compiler.fpga.estimate.frame import Clockwork, bytes_per_cycle
from edgemtl_compiler.fpga.estimate.memory import bram36, uram288
from edgemtl_compiler.fpga.estimate.workload import balanced, workload
from edgemtl_compiler.fpga.program import build

ZCU104 = find("zcu104")


def ms(report: Report) -> float:
    """The frame's milliseconds."""
    assert report.timing is not None
    return report.timing.milliseconds


# Eight loops of a public csynth report (HanderRi/AMD-Pervasive-AI, a dense variant of Edge-MoE; Vitis HLS 2022.2):
# trip count, interval, iteration latency, latency.
PUBLISHED = [
    (3096, 2, 17, 6206),  # compute_add
    (3096, 1, 3, 3097),  # read_x
    (9216, 3, 26, 27670),  # patch_embed_accumulate_compute
    (384, 2, 12, 778),  # patch_embed_output
    (65472, 16, 27, 1047562),  # load_linear_weights
    (17028, 1, 59, 17085),  # finalize_attn
    (102168, 1, 6, 102172),  # compute_q_matmul_k
    (102168, 1, 11, 102177),  # compute_attn_matmul_v
]


@pytest.mark.parametrize(("trip", "interval", "depth", "latency"), PUBLISHED)
def test_published_loops(trip: int, interval: int, depth: int, latency: int) -> None:
    assert abs(loop(trip, interval, depth) - latency) <= 1


def test_the_goals() -> None:
    """At 300 MHz within 80 % of the part: Edge-MoE's backbone with all experts cold, and the tiny model with a head."""
    moe = estimate(preset("edge-moe"), "depth", ZCU104, scope="backbone")
    assert ms(moe) <= 3.0
    assert moe.workload["macs"] == 782_719_488
    assert moe.workload["rows_per_expert"] == [17, 17] + [16] * 14
    tiny = estimate(preset("tiny"), "semseg", ZCU104)
    assert ms(tiny) <= 3.0
    for report in (moe, tiny):
        assert report.switch is not None
        assert report.switch.bytes_written <= 64 * 1024
        assert report.switch.microseconds < 50
        assert report.ddr is not None
        moved = sum(layer.ddr_bytes for layer in report.layers) - report.ddr.program_bytes
        assert moved == report.ddr.bound_bytes
        for r in report.resources:
            assert r.limit is not None
            assert r.available is not None
            assert r.low <= r.limit <= 0.8 * r.available


@pytest.mark.parametrize("changes", [{}, {"depth": 1}, {"head_stride": 8, "dim": 96, "heads": 2, "expert_ratio": 2.0}])
def test_weight_bytes_are_the_image(changes: dict[str, object]) -> None:
    """With every expert routed, a task reads the trunk, its own tables and the experts: all but the other tasks'."""
    model = lively("micro", **changes)
    config = model.config
    program = build(integers(model, pictures(32, *config.image_size)))
    path = len(config.path("depth")[0]) if config.moe_blocks else 1
    rows = balanced(config.tokens * config.top_k, path)
    assert all(rows)
    work = workload(config, "depth")
    others = sum(program.task_bytes) - program.task_bytes[config.task_names.index("depth")]
    assert work.weight_bytes == program.banks.nbytes - others
    assert work.program_bytes == program.words.nbytes
    assert work.output_bytes == 16 * program.output_words(program.task("depth"))


@pytest.mark.parametrize("name", ["tiny", "edge-moe", "micro"])
def test_macs_agree_with_the_benchmark(name: str) -> None:
    config = preset(name)
    for task in config.task_names:
        counted = count(config, task)
        assert workload(config, task).macs == counted.total
        assert workload(config, task, scope="backbone").macs == counted.backbone


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 1025), inputs=st.integers(1, 96), outputs=st.integers(1, 96), row=st.sampled_from([4, 8, 16])
)
def test_linear_cycles_count_the_multiplier_array(rows: int, inputs: int, outputs: int, row: int) -> None:
    """Never below the products over the multipliers; and close to them for many rows of many inputs."""
    lanes = Lanes(row=row)
    macs = rows * 16 * inputs * 16 * outputs
    cycles = linear_cycles(rows, 16 * inputs, 16 * outputs, lanes)
    assert cycles >= macs / lanes.macs
    if rows % row == 0 and rows >= 8 * row and inputs >= row:
        assert cycles <= 1.05 * macs / lanes.macs + 2 + 4 * inputs + 24


@pytest.mark.parametrize(("tokens", "heads"), [(1, 1), (3, 2), (4, 3), (129, 3), (1025, 3)])
def test_attention_counts_every_key_of_every_block(tokens: int, heads: int) -> None:
    blocks = math.ceil(tokens / 4)
    keys = (blocks + 1) * tokens + min(4, tokens)
    cycles = attention_cycles(tokens, heads, 64)
    assert keys * heads < cycles < keys * heads + 16 * heads * tokens + 200
    assert attention_cycles(tokens, heads, 64, Lanes(query=8)) <= cycles or tokens < 8


def test_parallelism_where_it_helps_and_where_it_does_not() -> None:
    """Half the rows cost the trunk nearly twice the time, but not the experts, which wait for weights."""
    work = workload(preset("edge-moe"), "depth", scope="backbone")
    full, half = (
        {layer.name: layer for layer in Clockwork(work, ZCU104, 300e6, Lanes(row=r)).layers()} for r in (8, 4)
    )
    assert 1.8 < half["block0.mlp"].cycles / full["block0.mlp"].cycles < 2.1
    assert half["block1.experts"].cycles / full["block1.experts"].cycles < 1.1
    assert full["block1.experts"].bound == "ddr"
    assert full["block0.mlp"].bound == "compute"
    assert full["block0.mlp"].rows == 2 * 136  # 129 rows fill 17 groups of eight
    assert full["block1.experts"].rows == 2 * (2 * 24 + 14 * 16)


def test_ddr_follows_its_least_part() -> None:
    assert bytes_per_cycle(ZCU104, 300e6) == pytest.approx(0.75 * 17.07e9 / 300e6)
    assert bytes_per_cycle(ZCU104, 300e6, ports=1) == pytest.approx(16 * 256 / 316)
    assert bytes_per_cycle(ZCU104, 100e6) == pytest.approx(64 * 256 / 316)


def test_routing_changes_the_time() -> None:
    """All tokens to the fewest experts read fewer weights; the padding of many small queues costs rows."""
    config = preset("edge-moe")
    few = estimate(config, "depth", ZCU104, scope="backbone", queues=[129, 129] + [0] * 14)
    even = estimate(config, "depth", ZCU104, scope="backbone")
    assert few.ddr is not None
    assert even.ddr is not None
    assert few.ddr.weight_bytes < even.ddr.weight_bytes / 3
    assert ms(few) < ms(even)
    with pytest.raises(CompileError, match="16 numbers of 0 to 129 tokens that add up to 258 .* given 1, 2"):
        estimate(config, "depth", ZCU104, queues=[1, 2])
    with pytest.raises(CompileError, match="add up to 258"):
        estimate(config, "depth", ZCU104, queues=[258] + [0] * 15)


def test_blocks_of_memory() -> None:
    """UG573's geometry."""
    assert (bram36(512, 72), bram36(1024, 36), bram36(513, 72), bram36(512, 36), bram36(4096, 9)) == (1, 1, 2, 0.5, 1)
    assert (uram288(4096, 72), uram288(4097, 72), uram288(32768, 256)) == (1, 2, 32)


def test_every_array_is_in_the_memory_map() -> None:
    """Each array of struct Memory has its size there, in bits."""
    report = estimate(preset("tiny"), "edge", ZCU104)
    bits = {m.name: m.copies * m.depth * m.width for m in report.memories}
    source = (HLS / "include" / "types.h").read_text()
    header = (HLS / "include" / "contract.h").read_text()
    constants = {k: int(v) for k, v in re.findall(r"constexpr int (\w+) = (\d+);", header)}
    constants["kRowBanks"] = constants["kLanesRow"]
    names = {
        "stream": "stream", "rows": "rows", "pool": "pool", "logit": "gate: logits", "token": "queues: tokens",
        "score": "queues: scores",
    }  # fmt: skip
    fields = re.findall(r"^  u?int(\d+)_t (\w+)((?:\[[^\]]+\])+);", source, re.MULTILINE)
    assert {name for _, name, _ in fields} == {*names, "length"}
    for width, name, extents in fields:
        if name in names:
            sizes = [eval(e, {}, constants) for e in re.findall(r"\[([^\]]+)\]", extents.replace("/", "//"))]
            assert bits[names[name]] == int(width) * math.prod(sizes), name


def test_what_does_not_fit_is_refused() -> None:
    config = preset("tiny")
    with pytest.raises(CompileError, match="fit zcu104: DSP48E2: 2400 needed, 1382 may be used of 1728, 1018 too"):
        estimate(config, "depth", ZCU104, lanes=Lanes(row=16))
    with pytest.raises(CompileError, match="16 experts at most; this model has 32"):
        estimate(preset("tiny", experts=32), "depth", ZCU104)
    with pytest.raises(CompileError, match="normalised rows holds 262144 bytes; 1025 tokens .* need 396288"):
        estimate(preset("tiny", dim=384, heads=6, image_size=(512, 512)), "depth", ZCU104)
    with pytest.raises(CompileError, match="no task 'dept'; this model has semseg, depth"):
        estimate(config, "dept", ZCU104)
    with pytest.raises(BoardError, match="no board 'zcu106'; choose one of .*zcu102"):
        find("zcu106")
    for mhz in (0.0, 400.0, float("nan"), -300.0):
        with pytest.raises(BoardError, match="50 to 333 MHz"):
            ZCU104.hertz(mhz)
    with pytest.raises(CompileError, match="given 7,4"):
        lanes_of(7, 4)


def test_the_sweep_is_a_pareto_set() -> None:
    points = sweep(preset("edge-moe"), "depth", ZCU104, scope="backbone")
    fitting = [p for p in points if p.fits]
    assert len(fitting) > 3
    for a, b in itertools.pairwise(fitting):
        assert a.dsp < b.dsp
        assert a.milliseconds > b.milliseconds
    assert fitting[-1].lanes == Lanes()  # the compiled lanes are the fastest that fit


def test_the_report_survives_json() -> None:
    report = estimate(preset("tiny"), "depth", ZCU104)
    assert Report.model_validate_json(report.model_dump_json()) == report
    origins = set(re.findall(r'"origin":\s*"([^"]+)"', report.model_dump_json()))
    assert origins == {"model"}
    assert report.timing is not None
    assert report.timing.cycles == sum(layer.cycles for layer in report.layers)


def test_norm_cycles() -> None:
    assert norm_cycles(129, 192) == 130 * 12 - 1 + 130 + 4


def test_a_part_without_uram() -> None:
    """On the ZCU102 the big arrays are BRAM: it all fits, and the frame takes as long."""
    report = estimate(preset("tiny"), "depth", find("zcu102"))
    kinds = {m.name: m.kind for m in report.memories}
    assert {kinds[name] for name in ("stream", "pool", "rows")} == {"BRAM36"}
    used = {r.name: r for r in report.resources}
    assert (used["URAM288"].low, used["URAM288"].available) == (0, 0)
    here = {r.name: r for r in estimate(preset("tiny"), "depth", ZCU104).resources}
    assert used["BRAM36"].low > here["BRAM36"].low + 4 * here["URAM288"].low
    assert ms(report) == ms(estimate(preset("tiny"), "depth", ZCU104))
    with pytest.raises(CompileError, match="does not fit zcu102: DSP48E2: 2400 needed, 2016 may be used of 2520"):
        estimate(preset("tiny"), "depth", find("zcu102"), lanes=Lanes(row=16))


def test_the_page_has_these_figures() -> None:
    """docs/fpga.md: the goals' milliseconds, resources, and the table of the ideas."""
    page = (HLS.parent / "docs" / "fpga.md").read_text()
    moe = estimate(preset("edge-moe"), "depth", ZCU104, scope="backbone")
    six = {"semseg": (tuple(range(6)),) * 6}  # experts of sixteen in each of six blocks, as the shipped model has
    for report in (moe, estimate(preset("tiny", paths=six), "semseg", ZCU104)):
        assert f"**{ms(report):.3f}**" in page
        assert f"| {float(str(report.workload['operations'])) / 1e9:.3f} |" in page
    for r in moe.resources:
        used = f"{r.low:,.0f}" if r.low == r.high else f"{r.low:,.0f} to {r.high:,.0f}"
        assert f"| {r.name} | {used} | {r.limit:,.0f} | {r.available:,.0f} |" in page
    for row in ablation.table():
        assert f"{row.added} | {row.modelled:.1f} ms | {row.published} ms |" in page


def test_the_published_order_of_ideas() -> None:
    """Each of Edge-MoE's ideas, added in its paper's order, makes the frame faster here, too; all of them by far."""
    rows = ablation.table()
    assert [row.published for row in rows] == [650.3, 433.4, 353.4, 212.9, 104.3, 34.6]
    for before, after in itertools.pairwise(rows):
        assert after.modelled < 0.97 * before.modelled, after.added
    assert rows[0].modelled > 8 * rows[-1].modelled
    full = estimate(preset("edge-moe"), "depth", ZCU104, scope="backbone")
    assert rows[-1].modelled == pytest.approx(ms(full))
