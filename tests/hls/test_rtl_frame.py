"""Whole frames with every product and attention on the SystemVerilog twins, the other units in NumPy: equal to the C
simulation's frame. The cycles (origin: rtl-sim) are printed and written to build/rtl/frame.json. Slow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import twins
from csim_units import CSim
from hls_models import integers, lively, pictures
from numpy.typing import NDArray
from rtl_models import RTL, library

from edgemtl.fpga.contract import LANES, LANES_QUERY, LANES_ROW
from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga import rtl
from edgemtl_compiler.fpga.estimate import attention_cycles, linear_cycles
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.fpga.program import build as build_program


@pytest.fixture(scope="module")
def units() -> twins.TwinUnits:
    return twins.TwinUnits(
        twins.LinearTwin(library("linear", {"LANES_ROW": LANES_ROW})), twins.AttentionTwin(library("attention"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("task", ["semseg", "depth"])
def test_micro_frame(
    csim: CSim, quantised: tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]], units: twins.TwinUnits, task: str
) -> None:
    _, network, images = quantised
    pixels = np.ascontiguousarray(images[0].transpose(1, 2, 0))
    got = network.run(pixels, task, units=units)
    np.testing.assert_array_equal(got, csim.frame(build_program(network), pixels, task))
    assert len(np.unique(got)) > 4


@pytest.mark.slow
def test_tiny_frame(csim: CSim, capsys: pytest.CaptureFixture[str]) -> None:
    """A seeded `tiny`, one task; calibrated on drawn pictures, since equality does not depend on them. The estimate of
    the same calls is within 2 %.
    """
    units = twins.TwinUnits(
        twins.LinearTwin(library("linear", {"LANES_ROW": LANES_ROW})), twins.AttentionTwin(library("attention"))
    )
    model = lively("tiny")
    with torch.no_grad():
        network = integers(model, pictures(32, *model.config.image_size), max_saturation=1.0)
    frame = pictures(1, *model.config.image_size, seed=5)[0]
    pixels, task = np.ascontiguousarray(frame.transpose(1, 2, 0)), model.config.task_names[0]
    want = csim.frame(build_program(network), pixels, task)
    began = time.perf_counter()
    got = network.run(pixels, task, units=units)
    seconds = time.perf_counter() - began
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(got)) > 4
    found = {
        "linear": counted(units.products, units.linear_unit.cycles, linear_cycles),
        "attention": counted(units.attentions, units.attention_unit.cycles, attention_cycles),
    }
    report = {
        "origin": "rtl-sim",
        "model": "tiny, seeded weights",
        "task": task,
        "tokens": model.config.tokens,
        **found,
        "lanes": {"row": LANES_ROW, "in": LANES, "out": LANES, "query": LANES_QUERY},
        "note": "each call waits for the one before it, so a product's first tile is never prefetched",
        "simulation_seconds": round(seconds, 1),
    }
    assert len(units.attentions) == model.config.depth
    out = rtl.cache(RTL) / "frame.json"
    out.write_text(json.dumps(report, indent=2) + "\n")
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
    for unit in found.values():
        assert abs(unit["cycles"] / unit["estimate (model)"] - 1) < 0.02


def counted(calls: list[tuple[int, int, int]], cycles: int, estimate: Callable[[int, int, int], int]) -> dict[str, int]:
    """The twin's cycles beside the estimate of the same calls."""
    return {"calls": len(calls), "cycles": cycles, "estimate (model)": sum(estimate(*shape) for shape in calls)}
