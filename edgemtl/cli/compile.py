"""`edgemtl compile`: from a checkpoint to a bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _fallback, _quantisation, _text

if TYPE_CHECKING:
    from edgemtl_compiler.bundle import Built


def compile_(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), as `edgemtl train` writes it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write, NAME.edgemtl.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu (the best for this machine), x86_64 or aarch64 (all of a machine), one such as x86_64-avx2 or"
            " aarch64-a53, onnx, cuda (GPU), fpga (or a board's name), torch (no program: for backend torch); may be"
            " repeated."
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(help="For cuda: the GPU's architecture, such as sm_87 (Orin), sm_89, sm_90; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the file's by default.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Keep only these tasks, such as depth,semseg.")] = None,
    letterbox: Annotated[
        bool, typer.Option("--letterbox", help="Keep a frame's shape and pad it; by default it is stretched.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(help="f32; f16 (weights stored in half precision); bf16 (cuda, onnx); int8."),
    ] = "f32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="For int8 and fpga: measure ranges anew, on a data set in the NYUD_MT layout, any folder of images, or"
            " a video; else those that `edgemtl calibrate` stored beside the checkpoint are taken."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Calibrate on so many images, evenly spaced; 32 or more.")] = 64,
    evaluate: Annotated[
        int, typer.Option(min=1, help="For int8: measure its cost on up to so many images (of the val split).")
    ] = 200,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compile a checkpoint into a bundle, and check every program in it."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch beside the C++ compiler: waiting threads must sleep
    from edgemtl_compiler import compile_bundle

    console = _text.console(stderr=True)
    with console.status("starting") as status:
        built = compile_bundle(
            checkpoint,
            out,
            targets=tuple(target or ["cpu"]),
            arches=tuple(arch or ()),
            name=name,
            tasks=[t.strip() for t in tasks.split(",") if t.strip()] if tasks is not None else None,
            letterbox=letterbox,
            calibrate=calibrate,
            images=images,
            precision=precision,
            evaluate=evaluate,
            report=status.update,
        )
    if json:
        _text.as_json(_facts(built))
    else:
        _print(built)


def _facts(built: Built) -> dict[str, Any]:
    return {
        "file": str(built.path),
        "bytes": built.size,
        "targets": list(built.targets),
        "seconds": round(built.seconds, 2),
        "max_relative_error": built.errors,
        "emulated": list(built.emulated),
        "fpga_bytes": built.boards,
        "precision": built.precision,
        "rounding_error": built.rounding or None,
        "ranges": built.ranges or None,
        "quantisation": built.quantisation.model_dump(mode="json") if built.quantisation else None,
        "fallback": _without_kernels(built),
    }


def _without_kernels(built: Built) -> dict[str, dict[str, Any]]:
    """What no kernel computes, by target; only targets with some."""
    if built.manifest is None:
        return {}
    found = {p.target: _fallback.describe(p, built.manifest.model) for p in built.manifest.programs}
    return {target: tasks for target, tasks in found.items() if tasks}


def _print(built: Built) -> None:
    from edgemtl.runtime.sizes import show_size

    checks, what = [], "largest relative error" if built.quantisation is None else "maps differ from float by at most"
    for target, errors in built.errors.items():
        worst = ", ".join(f"{task} {error:.1e}" for task, error in errors.items())
        how = "emulated on a CPU, not run on a GPU; " if target in built.emulated else ""
        checks.append(f"{target} ({how}{what}: {worst})" if errors else f"{target} (not checked: it runs elsewhere)")
    checks += [
        f"{board} (INT8, {show_size(size)}, integer goldens; ranges over {built.ranges})"
        for board, size in built.boards.items()
    ]
    what = f"programs {'; '.join(checks)}" if checks else "no program: backend torch alone runs it"
    _text.console().print(
        _text.clean(f"{built.path}: {show_size(built.size)}, {built.seconds:.1f} s, {what}"),
        soft_wrap=True,
    )
    for target, tasks in _without_kernels(built).items():
        _text.console().print(_text.clean(_fallback.line(target, tasks)), soft_wrap=True)
    if built.rounding:
        kind = {"f16": "float16", "bf16": "bfloat16"}[built.precision]
        moved = ", ".join(f"{task} {error:.1e}" for task, error in built.rounding.items())
        _text.console().print(f"rounding the weights to {kind} moved the maps by at most: {moved}", soft_wrap=True)
    if built.quantisation is not None:
        _quantisation.show(built.quantisation)
