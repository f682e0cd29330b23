"""What the SystemVerilog twins cost, counted by Yosys: `python tests/hls/rtl_cost.py hls/rtl`.

DSP, BRAM and URAM are those of UltraScale+ (xcup), the part's family. LUT and FF are a range. The high end is xcup,
where Yosys leaves the additions behind a multiplier and the pipeline's registers in LUTs and FFs: its packer knows the
DSP48E1 of xc7 only. A DSP48E2 has room for both (AMD UG579). The low end is xc7 with operands of 25 bits instead of 27
(FIELD = 16), which fit a DSP48E1, so that the packer shows what DSPs absorb; memories of URAM are BRAM there. Neither
end joins two small functions in one LUT. No clock frequency is estimated: no open tool knows UltraScale+ timing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgemtl.errors import CompileError, EdgeMTLError

FAMILIES = ("xc7", "xcup")
FITS_XC7 = {"FIELD": 16}  # operands of 25 bits: packed_dot.sv
# LUTs that a cell takes; a cell of another name takes none.
LUTS = {f"LUT{n}": 1 for n in range(1, 7)} | {"INV": 1, "SRL16E": 1, "SRLC32E": 1}
LUTS |= {"RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1S": 2, "RAM128X1D": 4, "RAM256X1S": 4}
LUTS |= {"RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM256X1D": 8, "RAM512X1S": 8}


def synthesise(sources: Path, unit: str, family: str, parameters: dict[str, int] | None = None) -> dict[str, float]:
    """DSP, BRAM36, URAM, LUT and FF of `unit` in the folder `sources` (hls/rtl), its parts counted as often as used.

    Raises CompileError for a family other than xc7 and xcup, and for a missing or failing tool.
    """
    if family not in FAMILIES:
        raise CompileError(f"there is no family {family!r}; choose one of {', '.join(FAMILIES)}")
    if shutil.which("yosys") is None:
        raise CompileError("the cost of the RTL needs yosys and it was not found; type: apt-get install yosys")
    files = " ".join(str(p) for p in sorted(sources.glob("*.sv")))
    with tempfile.TemporaryDirectory() as work:
        report = Path(work) / "stat.json"
        uram = "-uram" if family == "xcup" else ""
        steps = [f"read_verilog -sv {files}"]
        steps += [f"chparam -set {name} {value} {unit}" for name, value in (parameters or {}).items()]
        steps += [f"hierarchy -top {unit}"]
        if family == "xc7":  # has no URAM
            steps += ['setattr -set ram_style "block" a:ram_style=ultra']
        steps += [f"synth_xilinx -family {family} {uram} -noiopad -noclkbuf"]  # the top may have a new name
        steps += [f"tee -q -o {report} stat -json"]
        done = subprocess.run(["yosys", "-q", "-p", "; ".join(steps)], capture_output=True, text=True, check=False)
        if done.returncode or not report.exists():
            wrong = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line]
            raise CompileError(f"yosys cannot synthesise the {unit} unit: {(wrong or ['no report'])[0]}")
        return count(cells(report.read_text()))


def cells(report: str) -> dict[str, int]:
    """Cells of the whole design by type, from the text that `stat -json` writes.

    Yosys 0.23 prints the hierarchy's lines, name and number, in the middle of the JSON where it is three deep.
    """
    stat = json.loads("\n".join(line for line in report.splitlines() if line.lstrip()[:1] in tuple('"{}')))
    whole = stat.get("design") or next(iter(stat["modules"].values()))  # one module has no hierarchy
    found: dict[str, int] = whole["num_cells_by_type"]
    return found


def count(cells: dict[str, int]) -> dict[str, float]:
    """Resources of a netlist of Xilinx cells."""

    def sum_of(*names: str) -> int:
        return sum(n for cell, n in cells.items() if cell.startswith(names))

    return {
        "DSP": sum_of("DSP48"),
        "BRAM36": sum_of("RAMB36") + sum_of("RAMB18") / 2,
        "URAM": sum_of("URAM288"),
        "LUT": sum(n * LUTS.get(cell, 0) for cell, n in cells.items()),
        "FF": sum_of("FD"),
    }


def cost(sources: Path, unit: str, parameters: dict[str, int] | None = None) -> dict[str, Any]:
    """Both families' counts of `unit` (linear, attention or mac_array) and the range; the module's text says why."""
    given = parameters or {}
    low, high = synthesise(sources, unit, "xc7", {**given, **FITS_XC7}), synthesise(sources, unit, "xcup", given)
    version = subprocess.run(["yosys", "-V"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "unit": unit,
        "parameters": given,
        "origin": "yosys",
        "tool": version,
        **{key: high[key] for key in ("DSP", "BRAM36", "URAM")},
        **{key: sorted((low[key], high[key])) for key in ("LUT", "FF")},
        "families": {"xc7": {**low, "parameters": FITS_XC7}, "xcup": high},
    }


def main(arguments: list[str] | None = None) -> int:
    """Prints a line per unit and writes the JSON."""
    parser = argparse.ArgumentParser(description="count the resources of the SystemVerilog twins with Yosys (minutes)")
    parser.add_argument("sources", type=Path, help="the folder hls/rtl")
    parser.add_argument("--unit", choices=("linear", "attention"), action="append")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write")
    given = parser.parse_args(arguments)
    try:
        reports = [cost(given.sources, unit) for unit in given.unit or ("linear", "attention")]
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for r in reports:
        print(
            f"{r['unit']}: {r['DSP']} DSP, {r['BRAM36']:g} BRAM36, {r['URAM']} URAM, "
            f"LUT {r['LUT'][0]:,} to {r['LUT'][1]:,}, FF {r['FF'][0]:,} to {r['FF'][1]:,} (yosys)"
        )
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(reports, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
