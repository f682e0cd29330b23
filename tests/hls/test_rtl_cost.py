"""Yosys counts of the twins: a small array in the normal suite, both units at full size in the slow one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rtl_models import RTL

from edgemtl.errors import CompileError
from edgemtl_compiler.hls import rtl_cost

needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="no Yosys: apt-get install yosys")


@needs_yosys
def test_two_products_per_dsp() -> None:
    """4 rows x 8 inputs x 2 channels are 64 products, on 32 DSP48E2."""
    found = rtl_cost.synthesise(RTL, "mac_array", "xcup", {"ROWS": 4, "IN": 8, "OUT": 2})
    assert found["DSP"] == 32
    assert found["BRAM36"] == found["URAM"] == 0
    assert found["LUT"] > 0
    assert found["FF"] > 0


def test_count() -> None:
    cells = {"DSP48E2": 3, "RAMB36E2": 2, "RAMB18E2": 1, "URAM288": 4, "LUT1": 5, "LUT6": 6, "RAM32M16": 1}
    cells |= {"SRL16E": 2, "CARRY4": 9, "MUXF7": 9, "FDRE": 7, "FDSE": 1}
    assert rtl_cost.count(cells) == {"DSP": 3, "BRAM36": 2.5, "URAM": 4, "LUT": 21, "FF": 8}


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompileError, match="there is no family 'xc6'; choose one of xc7, xcup"):
        rtl_cost.synthesise(RTL, "linear", "xc6")
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(CompileError, match="apt-get install yosys"):
        rtl_cost.synthesise(RTL, "linear", "xcup")


@needs_yosys
def test_a_unit_that_is_not_there() -> None:
    with pytest.raises(CompileError, match="yosys cannot synthesise the nothing unit"):
        rtl_cost.synthesise(RTL / "none", "nothing", "xcup")


@needs_yosys
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("unit", "products"), [("linear", 8 * 16 * 16), ("attention", 4 * 64)])
def test_full_size(unit: str, products: int) -> None:
    """At least a DSP per two products, and within 80 % of the XCZU7EV on its own."""
    found = rtl_cost.cost(RTL, unit)
    print(found)
    assert products / 2 <= found["DSP"] <= 1382
    assert found["BRAM36"] <= 249
    assert found["URAM"] <= 76
    assert found["LUT"][0] < 184_000
