"""`edgemtl deploy`: a folder to copy to a board, with everything that a test on it needs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from edgemtl.cli import _text


def deploy(
    bundle: Annotated[Path, typer.Argument(help="A bundle with a part for the board, NAME.edgemtl.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new folder to write.")],
    board: Annotated[str | None, typer.Option(help="The board; by default that of the bundle.")] = None,
    bitstream: Annotated[
        Path | None, typer.Option(help="edgemtl.bit of a build, with its .hwh and .json beside it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the driver as a wheel, the model's files for the board, its golden frames, and board_test.py."""
    from edgemtl.fpga.deploy import make
    from edgemtl.runtime.sizes import show_size

    made = make(bundle, out, board=board, bit=bitstream, estimated=_estimated(bundle, board))
    if json:
        _text.as_json({"folder": str(made.folder), "files": made.files, "bitstream": made.bitstream})
        return
    lines = [f"{out / name}: {show_size(size)}" for name, size in made.files.items()]
    if not made.bitstream:
        lines.append("no bitstream: give --bitstream, or copy the .bit, .hwh and .json of one build into the folder")
    lines.append(f"copy {out} to the board and read README.md there; without a board: python board_test.py --virtual")
    for line in lines:
        _text.console().print(_text.clean(line), soft_wrap=True)


def _estimated(bundle: Path, board: str | None) -> dict[str, dict[str, int]]:
    """Modelled cycles of a frame by task and unit; nothing where the compiler, which models them, is not installed."""
    if importlib.util.find_spec("edgemtl_compiler") is None:
        return {}
    from edgemtl.bundle.reader import Bundle
    from edgemtl.fpga import program
    from edgemtl.fpga.board import find
    from edgemtl_compiler.fpga import estimate as est

    with Bundle.open(bundle) as opened:
        config, found = opened.manifest.model, find(board or program.described(opened)[0].target)
    return {t: est.by_unit(est.estimate(config, t, found).layers) for t in config.task_names}
