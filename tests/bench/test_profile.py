"""The profile accounts for every multiply-accumulate of a frame, and says what bounds a kernel."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgemtl.bench import peak, profile
from edgemtl.bench.profile import Line
from edgemtl.bundle.reader import Bundle
from edgemtl.graph.count import count

FRAMES = [
    (2.0, "linear 1000 40 500000\nexperts 9000 80 250000\nlinear 1000 40 300000\nexperts 9000 160 250000\n"),
    (3.0, "linear 1000 40 500000\nexperts 9000 80 250000\nlinear 1000 40 500000\nexperts 9000 160 250000\n"),
]


def test_calls_of_one_kernel_and_size_are_one_line() -> None:
    lines, whole = profile.summarise(FRAMES)
    assert whole == 2.5
    assert lines == [
        Line("linear", 2, pytest.approx(0.9), 2000, 80),
        Line("experts", 2, pytest.approx(0.5), 18000, 240),
        Line(profile.OUTSIDE, 1, pytest.approx(1.1), 0, 0),
    ]


def test_what_bounds_a_line() -> None:
    peaks = {peak.FMA: 100.0, peak.READ: 10.0}
    assert profile.bound(Line("linear", 1, 1.0, 40_000_000, 100), peaks) == "arithmetic, 80% of its time"
    assert profile.bound(Line("experts", 1, 1.0, 1, 9_000_000), peaks) == "weights from memory, 90% of its time"
    assert profile.bound(Line("route", 1, 1.0, 5_000_000, 0), peaks).startswith("neither: arithmetic would take 10%")
    assert profile.bound(Line(profile.OUTSIDE, 1, 1.0, 0, 0), peaks) == "dispatch, allocation, copies"
    assert profile.bound(Line("linear", 1, 1.0, 1, 1), {}) == "not measured"


def test_int8_lines_are_held_to_the_int8_roof() -> None:
    peaks = {peak.FMA: 100.0, peak.DOT: 400.0}
    line, other = Line("mlp_i8", 1, 1.0, 120_000_000, 0), Line("linear", 1, 1.0, 20_000_000, 0)
    assert profile.bound(line, peaks) == "arithmetic, 60% of its time"
    assert profile.bound(line, {peak.FMA: 100.0}) == "not measured"
    assert profile.share_of_roof([line, other], 2.0, peaks) == pytest.approx(0.5)
    text = profile.table("", [line, other], 2.0, peaks).markdown()
    assert any(row.startswith("| mlp_i8 | 1 | 1.000 | 120.0 | 240.0 | 60% |") for row in text)
    assert any(row.startswith("| linear | 1 | 1.000 | 20.0 | 40.0 | 40% |") for row in text)
    assert any(row.startswith("| **whole frame** | 1 | 2.000 | 140.0 | 140.0 | 50% |") for row in text)


def test_markdown_has_the_share() -> None:
    peaks = {peak.FMA: 120.0}
    text = profile.table("", [Line("linear", 12, 2.0, 60_000_000, 5)], 4.0, peaks).markdown()
    assert any(row.startswith("| linear | 12 | 2.000 | 60.0 | 60.0 | 50% |") for row in text)
    assert any(row.startswith("| **whole frame** | 11 | 4.000 | 60.0 | 30.0 | 25% |") for row in text)


@pytest.mark.parametrize("task", ["depth", "edge"])
def test_every_multiply_accumulate_of_a_frame_is_in_it(bundle: Path, task: str) -> None:
    """Counted by the kernels as they run, against the formulas."""
    pytest.importorskip("tvm")
    if not shutil.which("g++"):
        pytest.skip("needs: apt-get install g++")
    with Bundle.open(bundle) as opened:
        config = opened.manifest.model
    image = np.random.default_rng(0).normal(size=(1, 3, *config.image_size)).astype(np.float32)
    lines, whole = profile.measure(bundle, task, image, threads=2, seconds=0.01)
    assert sum(line.macs for line in lines) == count(config, task).total
    kernels = {line.kernel: line for line in lines}
    assert kernels["experts"].calls == len(config.moe_blocks)
    assert kernels["experts"].bytes % 4096 == 0
    assert 0 < sum(line.ms for line in lines) < 2 * whole
