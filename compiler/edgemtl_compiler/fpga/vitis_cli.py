"""`python -m edgemtl_compiler.fpga.vitis_cli ACTION [UNIT]`, which bitstreams/Makefile calls; an error exits with 2."""

from __future__ import annotations

import sys
from pathlib import Path

from edgemtl.errors import CompileError, EdgeMTLError
from edgemtl_compiler.fpga import reports, vitis, vivado

ROOT = Path(__file__).resolve().parents[3]


def job(name: str) -> vitis.Job:
    """The job of a unit in this checkout; raises CompileError for an unknown name."""
    root = ROOT
    if name not in vitis.UNITS:
        raise CompileError(f"there is no unit {name!r}; choose one of {', '.join(vitis.UNITS)}")
    if not (root / "hls" / "src").is_dir():
        raise CompileError(f"there are no kernels in {root / 'hls'}: run this from a checkout of edgemtl")
    build = root / "build" / "vitis"
    return vitis.Job(vitis.UNITS[name], root / "hls", build / "vectors", build / name)


def show_tools() -> int:
    """Prints each tool with what it is for; 1 where no generation is complete."""
    print(f"written for {vitis.PAIR}; never run with them yet")
    for name, use in (
        ("v++", "csynth, 2023.2 and newer"),
        ("vitis-run", "csim, cosim, export beside v++"),
        ("vitis_hls", "csim, csynth, cosim, export, 2022.2 to 2024.2"),
        ("vivado", "block design and bitstream; reports"),
    ):
        tool = vitis.find(name)
        print(f"{name:10} {tool.why_not or f'{tool.shown} ({tool.path})'}: {use}")
    try:
        which, tools = vitis.generation()
    except CompileError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"will use {' and '.join(t.shown for t in tools.values())} ({which} commands)")
    return 0


def build(clock: str) -> list[Path]:
    """The bitstream at `clock` MHz: whatever is missing of synthesis and export first, then Vivado."""
    if not (clock.isascii() and clock.isdigit() and 50 <= int(clock) <= 600):
        raise CompileError(f"CLOCK takes 50 to 600 MHz; given {clock!r}")
    top, script = job("top"), ROOT / "bitstreams" / "zcu104.tcl"
    vivado.tool()  # before the hours that synthesis takes
    if not (top.work / "synthesised").is_file():
        vitis.run(top, "csynth")
    if not vivado.exported(top):
        vitis.run(top, "export")
    return vivado.build(top, script, ROOT / "build" / "zcu104", float(clock))


def main() -> int:
    action, unit = (*sys.argv[1:], "top")[:2] if sys.argv[1:] else ("", "")
    try:
        if action == "tools":
            return show_tools()
        if action == "config":
            for name in vitis.UNITS:
                vitis.write(job(name))
                print(job(name).work / "hls_config.cfg")
        elif action == "report":
            print(reports.read([vitis.csynth_report(job(unit))]).model_dump_json(indent=2))
        elif action == "zcu104":
            for path in build(sys.argv[2] if sys.argv[2:] else "300"):
                print(path)
        elif action in vitis.ACTIONS:
            vitis.run(job(unit), action)
        else:
            raise CompileError(
                f"there is no action {action!r}; choose tools, config, {', '.join(vitis.ACTIONS)}, report or zcu104"
            )
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
