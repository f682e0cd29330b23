"""`edgemtl import-stem`: ImageNet weights of EfficientNet-Lite0 as a stem that `edgemtl train` starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemtl.errors import CheckpointError


def import_stem(
    out: Annotated[Path, typer.Option("-o", "--out", help="The stem to write, NAME.safetensors.")],
    file: Annotated[
        Path | None, typer.Argument(help="EfficientNet-Lite0's .pth; the installed package's by default.")
    ] = None,
) -> None:
    """Convert EfficientNet-Lite0's published weights; nothing in the file is run, and every tensor is checked."""
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out} is not named NAME.safetensors; give -o such a name")
    from edgemtl.model import stem_files

    source = stem_files.published() if file is None else file
    state = stem_files.import_stem(source)
    stem_files.save_stem(out, state, f"EfficientNet-Lite0, {source.name}")
    values = sum(v.numel() for v in state.values())
    typer.echo(f"{out}: {values / 1e6:.2f} M values of {len(state)} tensors; train with `stem: {out}` in the recipe")
