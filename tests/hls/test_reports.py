"""Reports of the tools as one JSON: known files give known figures, damaged and hostile ones one sentence each.

The files in `reports/` are written by hand in the tools' formats, with invented figures: no tool made them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.errors import CompileError
from edgemtl_compiler.fpga.estimate.schema import Report
from edgemtl_compiler.fpga.reports import KINDS, parse, read

FOLDER = Path(__file__).parent / "reports"
FILES = sorted(FOLDER.iterdir())
XML = FOLDER / "edgemtl_top_csynth.xml"
VIVADO = [FOLDER / n for n in ("utilization.rpt", "timing_summary.rpt", "power.rpt")]


def amounts(report: Report) -> dict[str, tuple[float, float | None]]:
    assert all(r.origin == report.origin and r.low == r.high for r in report.resources)
    return {r.name: (r.low, r.available) for r in report.resources}


def given_text(text: str, name: str = "given") -> Report:
    return next(reader for mark, reader in KINDS if mark in text)(text, name)


def test_csynth_xml() -> None:
    report = parse(XML)
    assert (report.subject, report.part) == ("edgemtl_unit_linear", "xczu7ev-ffvc1156-2-e")
    assert (report.origin, report.tool) == ("vitis-hls csynth", "Vitis HLS 2025.2")
    assert amounts(report) == {
        "BRAM36": (60.5, 312),
        "DSP48E2": (790, 1728),
        "FF": (51234, 460800),
        "LUT": (60987, 230400),
        "URAM288": (40, 96),
    }
    assert report.clock
    assert report.clock.requested_hz == pytest.approx(300.3e6, rel=1e-4)
    assert report.clock.estimated_period_ns == 2.431
    assert report.timing
    assert (report.timing.cycles, report.timing.interval_cycles) == (30000, 30001)
    assert report.timing.milliseconds == pytest.approx(0.0999)
    loops = {loop.name: (loop.trip_count, loop.latency, loop.interval, loop.iteration_latency) for loop in report.loops}
    assert loops == {
        "VITIS_LOOP_40_1": (33, 29000, None, 870),
        "VITIS_LOOP_40_1/VITIS_LOOP_42_2": (12, 17, 1, 7),
        "VITIS_LOOP_70_5": (None, None, 2, 5),
    }
    (unit,) = report.units
    assert unit.name == "compute_tile"
    assert {r.name: r.low for r in unit.resources}["DSP48E2"] == 784
    assert "DDR time is missing" in report.notes[0]


def test_csynth_rpt() -> None:
    report = parse(FOLDER / "edgemtl_top_csynth.rpt")
    assert (report.subject, report.tool) == ("edgemtl_unit_norm", "Vitis HLS 2022.2")
    assert amounts(report)["BRAM36"] == (1.5, 312)
    assert amounts(report)["DSP48E2"] == (21, 1728)
    assert report.timing
    assert (report.timing.cycles, report.timing.interval_cycles) == (8000, 8001)
    assert [(x.name, x.latency, x.interval, x.iteration_latency, x.trip_count) for x in report.loops] == [
        ("VITIS_LOOP_30_1", 7990, None, None, None),
        ("VITIS_LOOP_31_2", 27, 1, 5, 24),
    ]


def test_unknown_latency_stays_unknown() -> None:
    text = XML.read_text().replace("<Worst-caseLatency>30000<", "<Worst-caseLatency>undef<")
    report = given_text(text)
    assert report.timing is None
    assert "unknown to the tool" in report.notes[-1]


def test_vivado_reports_together() -> None:
    report = read(VIVADO)
    assert (report.subject, report.part, report.origin) == ("edgemtl_wrapper", "xczu7ev-ffvc1156-2-e", "vivado")
    assert report.tool == "Vivado 2025.2"
    assert amounts(report) == {
        "LUT": (98765, 230400),
        "FF": (120001, 460800),
        "BRAM36": (101.5, 312),
        "URAM288": (44, 96),
        "DSP48E2": (801, 1728),
    }
    assert report.clock
    assert report.clock.slack_ns == -0.101
    assert report.clock.estimated_period_ns == pytest.approx(3.434)
    assert report.power
    assert (report.power.total_w, report.power.dynamic_w) == (7.654, 6.789)
    assert "timing not met" in report.notes[0]
    assert "confidence Medium" in report.notes[1]


def test_reports_of_different_runs_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="reports of one run"):
        read([*VIVADO, XML])
    other = tmp_path / "other.rpt"
    other.write_text(VIVADO[0].read_text().replace("98765", "98766"))
    with pytest.raises(CompileError, match="both give resources, and differ"):
        read([VIVADO[0], other])
    other.write_text(VIVADO[2].read_text().replace("xczu7ev-", "xczu9eg-"))
    with pytest.raises(CompileError, match="reports of one run"):
        read([VIVADO[0], other])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<DSP>790<", "<DSP>79x<", "DSP is '79x', which is no number"),
        ("<DSP>790<", "<DSP>-3<", "cannot be below 0"),
        ("<DSP>790<", "<DSP>1e999<", "no number"),
        ("<DSP>790<", f"<DSP>{'9' * 40}<", "no number"),
        ("<DSP>790<", "<DSP>nan<", "no number"),
        ("<TripCount>12<", "<TripCount>1.5<", "must be a whole number"),
        (">3.33<", ">0<", "target clock period is '0'"),
        ("<Part>xczu7ev-ffvc1156-2-e</Part>", "", "it has no UserAssignments/Part"),
        ("profile>", "report>", "is no report"),
        ("</AreaEstimates>\n    <Mod", "</AreaEstimate>\n    <Mod", "cut short or no XML"),
        ("<profile>", '<!DOCTYPE p [<!ENTITY a "b">]><profile>', "document type or entities"),
        ("<profile>", "<profile>" + "<a>" * 100, "nested or large"),
    ],
)
def test_bad_xml(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = XML.read_text()
    assert old in text
    path = tmp_path / "bad.xml"
    path.write_text(text.replace(old, new))
    with pytest.raises(CompileError, match=rf"^\S+bad.xml: .*{message}"):
        parse(path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("utilization.rpt", "| DSPs ", "| DSQs ", "no figure of DSPs"),
        ("utilization.rpt", " 101.5 ", " 10x.5 ", "BRAM36 is '10x.5'"),
        ("timing_summary.rpt", "     -0.101 ", "     NA ", "no clock constraint"),
        ("timing_summary.rpt", "{0.000 ", "0.000 ", "clock summary is missing"),
        ("power.rpt", "| 7.654 ", "| x.654 ", "total power is 'x.654'"),
        ("edgemtl_top_csynth.rpt", "|Total  ", "|Totals ", "summary of utilisation is missing"),
        ("edgemtl_top_csynth.rpt", "* Target device:", "* Target:", "does not say its part"),
    ],
)
def test_bad_text(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    text = (FOLDER / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(CompileError, match=message):
        parse(tmp_path / file)


def test_no_report(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="there is no such report file"):
        parse(tmp_path)
    (tmp_path / "a").write_bytes(b"\x00\x01")
    with pytest.raises(CompileError, match="is no text"):
        parse(tmp_path / "a")
    (tmp_path / "a").write_text("hello")
    with pytest.raises(CompileError, match="is no report of Vitis HLS or Vivado"):
        parse(tmp_path / "a")
    with open(tmp_path / "a", "wb") as f:
        f.truncate((64 << 20) + 1)
    with pytest.raises(CompileError, match="more than the 64 MiB"):
        parse(tmp_path / "a")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_never_crashes(path: Path, data: st.DataObject) -> None:
    """Cut, overwritten or doubled anywhere: a report or one sentence, nothing else."""
    text = path.read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    size = data.draw(st.integers(0, 200))
    middle = data.draw(st.one_of(st.text(max_size=20), st.just(text[at : at + size] * 2), st.just("9" * 400)))
    damaged = text[:at] + middle + data.draw(st.sampled_from(["", text[at + size :]]))
    if not any(mark in damaged for mark, _ in KINDS):
        return
    try:
        report = given_text(damaged)
    except CompileError:
        return
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_command() -> None:
    command = [sys.executable, "-m", "edgemtl_compiler.fpga.reports"]
    done = subprocess.run([*command, str(XML)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["origin"] == "vitis-hls csynth"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no report was given")
