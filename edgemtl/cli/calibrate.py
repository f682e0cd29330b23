"""`edgemtl calibrate`: a checkpoint's ranges, stored beside it, so that compiling INT8 needs no pictures."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from edgemtl.cli import _text
from edgemtl.errors import CompileError


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), as `edgemtl train` writes it.")],
    pictures: Annotated[Path, typer.Argument(help="A data set in the NYUD_MT layout, a folder of images, or a video.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file to write; NAME.ranges.safetensors beside it by default."),
    ] = None,
    images: Annotated[int, typer.Option(min=32, help="Run so many images, evenly spaced, or all there are.")] = 256,
) -> None:
    """Run a checkpoint in float on pictures like those it will see, and store the ranges that its values take.

    `edgemtl compile` finds the file beside the checkpoint and takes it for INT8, on CPUs and on the accelerator.
    """
    if importlib.util.find_spec("edgemtl_compiler") is None:
        raise CompileError("calibrating needs the compiler: pip install 'edgemtl[compile]'")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from edgemtl.runtime.sizes import show_size
    from edgemtl_compiler.quantise.ranges import store

    with _text.console(stderr=True).status("calibrating"):
        path, found = store(checkpoint, pictures, images, out)
    _text.console().print(
        _text.clean(
            f"{path}: {len(found.ranges)} ranges over {found.images} images of {found.source},"
            f" {show_size(path.stat().st_size)}"
        ),
        soft_wrap=True,
    )
