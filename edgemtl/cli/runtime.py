"""`edgemtl runtime`: what a device needs to run programs, without the compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemtl.cli import _text

app = typer.Typer(help="What a device needs to run programs, without the compiler.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def pack(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write the wheels to.")],
    machine: Annotated[str | None, typer.Option(help="x86_64 or aarch64; by default this machine's.")] = None,
    python: Annotated[
        str | None, typer.Option(help="The device's Python, such as 3.11; by default this one's.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write TVM's runtime library as small wheels, for a device that has no room for TVM's compiler.

    For another machine they are made from TVM's own wheel, which is downloaded once (95 MB) and kept in
    ~/.cache/edgemtl or $EDGEMTL_CACHE.
    """
    from edgemtl.runtime.pack import pack as write
    from edgemtl.runtime.sizes import show_size

    console = _text.console(stderr=True)
    with console.status("packing"):
        packed = write(out, machine, python)
    sizes = {str(wheel): wheel.stat().st_size for wheel in packed.wheels}
    if json:
        _text.as_json({"wheels": sizes, "installed_bytes": packed.installed})
        return
    lines = [f"{path}: {show_size(size)}" for path, size in sizes.items()]
    lines.append(f"installed {show_size(packed.installed)}; copy the folder to the device, and there:")
    lines.append("pip install edgemtl")
    lines.append(f"pip install --no-index --find-links {out.name} edgemtl-tvm-runtime")
    for line in lines:
        _text.console().print(_text.clean(line), soft_wrap=True)
