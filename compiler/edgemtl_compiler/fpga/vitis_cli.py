"""What bitstreams/Makefile calls: `python -m edgemtl_compiler.fpga.vitis_cli ACTION [UNIT [BOARD]]`, or
`bitstream [BOARD [MHZ]]`; an error exits with 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgemtl.errors import CompileError, EdgeMTLError
from edgemtl.fpga.board import DEFAULT, find
from edgemtl_compiler.fpga import reports, vitis, vivado

ROOT = Path(__file__).resolve().parents[3]


def job(name: str, board: str = DEFAULT) -> vitis.Job:
    """The job of a unit for a board in this checkout; raises CompileError or BoardError for an unknown name."""
    root = ROOT
    if name not in vitis.UNITS:
        raise CompileError(f"there is no unit {name!r}; choose one of {', '.join(vitis.UNITS)}")
    if not (root / "hls" / "src").is_dir():
        raise CompileError(f"there are no kernels in {root / 'hls'}: run this from a checkout of edgemtl")
    build = root / "build" / "vitis"
    return vitis.Job(vitis.UNITS[name], root / "hls", build / "vectors", build / board / name, find(board))


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


def build(board: str, clock: str | None) -> list[Path]:
    """The bitstream at `clock` MHz, or the board's: whatever is missing of synthesis and export first, then Vivado."""
    top, script = job("top", board), ROOT / "bitstreams" / "design.tcl"
    if clock is not None and not (clock.isascii() and clock.isdigit()):
        raise CompileError(f"CLOCK takes a number of MHz; given {clock!r}")
    hertz = top.board.clock.hz if clock is None else top.board.hertz(float(clock))
    vivado.tool()  # before the hours that synthesis takes
    if not (top.work / "synthesised").is_file():
        vitis.run(top, "csynth")
    if not vivado.exported(top):
        vitis.run(top, "export")
    return vivado.build(top, script, ROOT / "build" / board, hertz / 1e6)


def main() -> int:
    action, name, more = (*sys.argv[1:], None, None, None)[:3]
    try:
        if action == "tools":
            return show_tools()
        if action == "config":
            for unit in vitis.UNITS:
                vitis.write(found := job(unit, name or DEFAULT))
                print(found.work / "hls_config.cfg")
        elif action == "report":
            print(reports.read([vitis.csynth_report(job(name or "top", more or DEFAULT))]).model_dump_json(indent=2))
        elif action == "bitstream":
            for path in build(name or DEFAULT, more):
                print(path)
        elif action in vitis.ACTIONS:
            vitis.run(job(name or "top", more or DEFAULT), action)
        else:
            raise CompileError(
                f"there is no action {action!r}; choose tools, config, {', '.join(vitis.ACTIONS)}, report or bitstream"
            )
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
