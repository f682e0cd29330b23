"""The register map, from the kernel's argument list; the pragmas of hls/src/top.cpp give every argument its port."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgemtl.fpga import contract, registers

TOP = (Path(__file__).parents[2] / "hls" / "src" / "top.cpp").read_text()


@pytest.mark.parametrize(("name", "kind"), contract.ARGUMENTS)
def test_every_argument_has_its_interface(name: str, kind: str) -> None:
    """Without a pragma of its own a scalar becomes a wire in a Vivado IP, and the driver could never write it."""
    pragmas = re.sub(r"\\\s*\n\s*", "", TOP)
    lines = re.findall(rf"#pragma HLS interface (.*\bport = {name}\b.*)", pragmas)
    if kind in ("read", "write"):
        (master,) = [line for line in lines if line.startswith("m_axi")]
        assert "offset = slave" in master
    elif kind == "wire":
        assert lines == [f"ap_none port = {name}"]
    else:
        assert [line for line in lines if line.startswith("s_axilite")] == [f"s_axilite port = {name}"]


def test_layout() -> None:
    """By hand from the rule: 64-bit addresses take 12 bytes, scalars 8."""
    got = {r.name: (r.offset, r.bits) for r in registers.layout()}
    assert got["CTRL"] == (0, 32)
    assert got["ap_return"] == (0x10, 32)
    assert got["w0"] == (0x18, 64)
    assert got["w1"] == (0x24, 64)
    assert got["quads"] == (0x48, 32)
    assert got["program"] == (0x50, 64)
    assert got["task"] == (0x8C, 32)
    assert got["counters"] == (0x94, 64)
    assert "cycle" not in got
    assert len(registers.REGISTERS) == 5 + len(contract.ARGUMENTS) - 1
    assert max(r.offset for r in registers.layout()) + 8 <= registers.SPAN


def test_json() -> None:
    read = json.loads(registers.as_json())
    assert read["vlnv"] == "edgemtl:hls:edgemtl_top:2.0"
    assert read["registers"][-1] == {"name": "counters", "offset": 0x94, "bits": 64, "access": "RW"}
