"""Runs the cocotb tests of cocotb_streams.py on both units in Verilator, with fewer lanes. Slow."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rtl_models import RTL

RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from cocotb.runner import get_runner
sources, folder, unit, parameters = sys.argv[1:]
runner = get_runner("verilator")
quiet = ["-Wno-fatal", "-Wno-WIDTH", "-O3", f"-I{sources}"]
top = dict(hdl_toplevel=unit, build_dir=folder, timescale=("1ns", "1ps"))
runner.build(verilog_sources=[f"{sources}/{unit}.sv"], build_args=quiet, parameters=json.loads(parameters), **top)
runner.test(test_module="cocotb_streams", results_xml="results.xml", test_dir=folder, **top)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "parameters"), [("linear", {"LANES_ROW": 2}), ("attention", {"WIDTH": 16})])
def test_streams(tmp_path: Path, unit: str, parameters: dict[str, int]) -> None:
    if shutil.which("verilator") is None:
        pytest.skip("no Verilator: apt-get install verilator")
    if importlib.util.find_spec("cocotb") is None:
        pytest.skip("no cocotb: pip install cocotb==1.9.2")
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # cocotb refuses it
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(RTL), str(tmp_path), unit, json.dumps(parameters)],
        env={**kept, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    found = list(tmp_path.glob("**/results.xml"))
    assert found, text[-3000:]
    cases = list(ElementTree.parse(found[0]).getroot().iter("testcase"))
    assert [c.get("name") for c in cases if c.find("failure") is not None] == [], text[-3000:]
    assert len(cases) == 2
