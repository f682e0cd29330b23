"""Yosys counts of the twins: a small array in the normal suite, both units at full size in the slow one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import rtl_cost
from rtl_models import RTL

from edgemtl.errors import CompileError
from edgemtl_compiler.fpga.estimate.cycles import Lanes
from edgemtl_compiler.fpga.estimate.memory import memory_map
from edgemtl_compiler.fpga.estimate.resources import units

needs_yosys = pytest.mark.skipif(shutil.which("yosys") is None, reason="no Yosys: apt-get install yosys")


@needs_yosys
def test_two_products_per_dsp() -> None:
    """2 rows x 16 inputs x 1 channel are 32 products, on 16 DSP48E2, and the DSPs absorb additions and registers."""
    found = rtl_cost.cost(RTL, "mac_array", {"ROWS": 2, "IN": 16, "OUT": 1})
    assert found["DSP"] == found["families"]["xc7"]["DSP"] == 16
    assert found["BRAM36"] == found["URAM"] == 0
    for what in ("LUT", "FF"):
        low, high = found[what]
        assert 0 < low < 0.8 * high


def test_count() -> None:
    cells = {"DSP48E2": 3, "RAMB36E2": 2, "RAMB18E2": 1, "URAM288": 4, "LUT1": 5, "LUT6": 6, "RAM32M16": 1}
    cells |= {"SRL16E": 2, "CARRY4": 9, "MUXF7": 9, "FDRE": 7, "FDSE": 1}
    assert rtl_cost.count(cells) == {"DSP": 3, "BRAM36": 2.5, "URAM": 4, "LUT": 21, "FF": 8}


def test_cells_of_a_report_with_lines_that_are_no_json() -> None:
    report = """
{
   "modules": {
      "\\\\inner": {
         "num_cells_by_type": {
            "LUT2": 3
         }
      }
   },
       $paramod\\inner\\N=s32'10     16
       gelu_lane                    16
      "design": {
         "num_cells_by_type": {
            "LUT2": 48,
            "FDRE": 1
         }
      }
}
"""
    assert rtl_cost.cells(report) == {"LUT2": 48, "FDRE": 1}


@needs_yosys
def test_a_part_without_uram_takes_bram(tmp_path: Path) -> None:
    (tmp_path / "ring.sv").write_text(
        "module ring (input wire clk, we, input wire [12:0] a, b, input wire [35:0] d, output logic [35:0] q);\n"
        '(* ram_style = "ultra" *) logic [35:0] memory[0:8191];\n'
        "always_ff @(posedge clk) begin q <= memory[a]; if (we) memory[b] <= d; end\nendmodule\n"
    )
    found = rtl_cost.synthesise(tmp_path, "ring", "xc7")
    assert found["URAM"] == 0
    assert found["BRAM36"] >= 8  # 288 kbit


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CompileError, match="there is no family 'xc6'; choose one of xc7, xcup"):
        rtl_cost.synthesise(RTL, "linear", "xc6")
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(CompileError, match="apt-get install yosys"):
        rtl_cost.synthesise(RTL, "linear", "xcup")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"unit": "linear", "DSP": 1088, "BRAM36": 46.0, "URAM": 0, "LUT": [1000, 2000], "FF": [3, 4]}
    monkeypatch.setattr(rtl_cost, "cost", lambda sources, unit: report)
    out = tmp_path / "new" / "cost.json"
    assert rtl_cost.main([str(RTL), "--unit", "linear", "-o", str(out)]) == 0
    assert "linear: 1088 DSP, 46 BRAM36, 0 URAM, LUT 1,000 to 2,000, FF 3 to 4 (yosys)" in capsys.readouterr().out
    assert json.loads(out.read_text()) == [report]
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    assert rtl_cost.main([str(RTL)]) == 2
    assert "error: the cost of the RTL needs yosys" in capsys.readouterr().err


@needs_yosys
def test_a_unit_that_is_not_there() -> None:
    with pytest.raises(CompileError, match="yosys cannot synthesise the nothing unit"):
        rtl_cost.synthesise(RTL / "none", "nothing", "xcup")


@needs_yosys
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("unit", "products"), [("linear", 8 * 16 * 16), ("attention", 4 * 64)])
def test_full_size(unit: str, products: int, capsys: pytest.CaptureFixture[str]) -> None:
    """At least a DSP per two products, within 80 % of the XCZU7EV, and what `edgemtl estimate` counts within 5 %."""
    found = rtl_cost.cost(RTL, unit)
    with capsys.disabled():
        print(f"\n{json.dumps(found)}")
    assert products / 2 <= found["DSP"] <= 1382
    assert found["BRAM36"] <= 249
    assert found["URAM"] <= 76
    assert found["LUT"][1] < 184_000
    counted = units(Lanes())[unit]
    lutram = sum(m.blocks for m in memory_map(Lanes()) if m.kind == "LUTRAM" and m.name.startswith(unit))
    assert found["DSP"] == pytest.approx(counted.dsp, rel=0.01)
    assert found["LUT"] == pytest.approx([n + lutram for n in counted.lut], rel=0.05)
    assert found["FF"] == pytest.approx(list(counted.ff), rel=0.05)
