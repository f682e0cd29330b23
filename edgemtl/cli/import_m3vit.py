"""`edgemtl import-m3vit`: from a checkpoint of M3ViT's own code to one of this project's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgemtl.cli.data import parse_size
from edgemtl.errors import CheckpointError

GATES = {"multi": "one gate per task", "single": "one gate", "conditioned": "one gate that knows its task"}


def import_m3vit(
    checkpoint: Annotated[
        Path, typer.Argument(help="A .pth file, or the folder 0.pth, 1.pth, ... of expert parallelism.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The checkpoint to write, NAME.safetensors.")],
    image_size: Annotated[
        str | None, typer.Option(help="The size HxW it was trained at, where the data set's cannot be guessed.")
    ] = None,
    resize: Annotated[str | None, typer.Option(help="Give it positions for images of this size HxW.")] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="Attention heads, where the width is none of M3ViT's.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Experts per token; 4 / the experts' ratio by default.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store half precision instead of single.")] = False,
) -> None:
    """Convert a checkpoint of M3ViT's code; nothing in it is run, and every tensor in it is accounted for."""
    if out.suffix != ".safetensors":
        raise CheckpointError(f"{out} is not named NAME.safetensors; give -o such a name")
    import edgemtl
    from edgemtl.model import m3vit_files
    from edgemtl.model.checkpoint import save_checkpoint

    sizes = (parse_size(image_size) if image_size else None, parse_size(resize) if resize else None)
    found = m3vit_files.import_m3vit(checkpoint, image_size=sizes[0], resize=sizes[1], heads=heads, top_k=top_k)
    config = found.config
    epoch = "" if found.epoch is None else f", epoch {found.epoch}"
    origin = f"edgemtl {edgemtl.__version__} import-m3vit {checkpoint.name}{epoch}"
    save_checkpoint(out, found.state, config, dtype="float16" if half else "float32", origin=origin)
    tasks = ", ".join(f"{t.name} ({t.channels})" for t in config.tasks)
    values = sum(v.numel() for v in found.state.values())
    typer.echo(
        f"{out}: {values / 1e6:.1f} M values; width {config.dim}, {config.depth} blocks, {config.heads} heads;"
        f" top-{config.top_k} of {config.experts} experts of {config.expert_hidden}, {GATES[config.gate]}"
        f" ({config.router}); images {config.image_size[0]}x{config.image_size[1]}; tasks {tasks};"
        f" {found.left_out} tensors that serve training alone left out"
    )
