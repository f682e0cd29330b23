"""From the exported IP to a bitstream: bitstreams/design.tcl in Vivado, then reports and record as JSON.

Like `vitis`, it has never met the tool: the tests run the Tcl under tclsh against stubs that know the design's pins.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from edgemtl.errors import BoardError, CompileError
from edgemtl.fpga import bitstream, handoff, registers
from edgemtl.fpga.board import Facts, folders
from edgemtl_compiler.fpga import reports, vitis

OLDEST = (2022, 2)
REPORTS = ("utilization.rpt", "timing_summary.rpt", "power.rpt")


def tool() -> vitis.Tool:
    """Vivado; raises CompileError where it is missing or too old."""
    found = vitis.usable(vitis.find("vivado"), OLDEST)
    if found.why_not:
        raise CompileError(
            f"Vivado is missing: {found.why_not}; this flow is written for {vitis.PAIR}: "
            "type source INSTALLATION/settings64.sh"
        )
    return found


def exported(job: vitis.Job) -> Path | None:
    """Where Vitis HLS put the IP, if it did: the folder of the first component.xml."""
    return next((p.parent for p in sorted(job.work.rglob("component.xml"))), None)


def arguments(ip: Path, work: Path, board: Facts, clock_mhz: float) -> list[str]:
    """What design.tcl takes; names are those of the driver."""
    pairs = {
        "ip": ip,
        "kernel": registers.VLNV,
        "work": work,
        "clock": f"{clock_mhz:g}",
        "part": board.part,
        "board": board.vivado,
        "script": folders()[board.name].resolve() / "board.tcl",
        "name": board.name,
        "base": f"{board.registers.base:#x}",
        "span": registers.SPAN,
        "jobs": os.cpu_count() or 1,
    }
    return [str(word) for pair in pairs.items() for word in pair]


def build(job: vitis.Job, script: Path, out: Path, clock_mhz: float) -> list[Path]:
    """Run Vivado and write edgemtl.bit, .hwh, .json and reports.json to `out`; gives their paths.

    Raises CompileError where a tool is missing, too old, or fails.
    """
    vivado, ip = tool(), exported(job)
    if ip is None:
        raise CompileError("there is no exported IP: type make -C bitstreams export")
    job.check("bitstream")
    work = job.work.parent / "bitstream"
    work.mkdir(parents=True, exist_ok=True)
    inputs = arguments(ip, work, job.board, clock_mhz)
    command = [vivado.path, "-mode", "batch", "-notrace", "-source", str(script), "-tclargs", *inputs]
    print(" ".join(command), flush=True)
    try:
        code = subprocess.run(command, cwd=work, check=False).returncode
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be started: {error.strerror}") from None
    if code:
        log = work / "vivado.log"
        raise CompileError(f"the bitstream was not built: vivado ended with {code}; see above and {log}")
    return collect(work, out, job.board.name, f"Vivado {'.'.join(map(str, vivado.version or ()))}", clock_mhz)


def collect(work: Path, out: Path, board: str, tool: str, clock_mhz: float) -> list[Path]:
    """What Vivado left in `work`, checked against the driver's registers; the record and reports beside it."""
    bit, written = work / bitstream.NAME, []
    try:
        handoff.check(handoff.read(bit.with_suffix(".hwh")), bit.with_suffix(".hwh"))
        out.mkdir(parents=True, exist_ok=True)
        for path in (bit, bit.with_suffix(".hwh")):
            written.append(Path(shutil.copy(path, out / path.name)))
        bitstream.write_record(out / bit.name, board=board, clock_hz=clock_mhz * 1e6, tool=tool)
    except (BoardError, OSError) as error:
        raise CompileError(f"Vivado's files cannot be used: {error}") from None
    (out / "reports.json").write_text(reports.read([work / name for name in REPORTS]).model_dump_json(indent=2) + "\n")
    return [*written, out / "edgemtl.json", out / "reports.json"]
