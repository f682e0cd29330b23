"""`edgemtl compile`: from a checkpoint to a bundle."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _text
from edgemtl.errors import CompileError

if TYPE_CHECKING:
    from edgemtl_compiler.bundle import Built


def compile_(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), as `edgemtl train` writes it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle to write, NAME.edgemtl.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="cpu (the best for this machine), x86_64-avx512, x86_64-avx2, onnx; may be repeated."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundle's name; the file's by default.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Keep only these tasks, such as depth,semseg.")] = None,
    letterbox: Annotated[
        bool, typer.Option("--letterbox", help="Keep a frame's shape and pad it; by default it is stretched.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compile a checkpoint into a bundle, and check every program in it against PyTorch."""
    missing = [
        package for package in ("torch", "tvm", "onnx", "onnxscript") if importlib.util.find_spec(package) is None
    ]
    if missing:
        raise CompileError(f"{', '.join(missing)} not installed; compiling needs it: pip install 'edgemtl[compile]'")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # PyTorch beside the C++ compiler: waiting threads must sleep
    from edgemtl.bundle.manifest import Preprocess
    from edgemtl_compiler import compile_bundle

    console = _text.console(stderr=True)
    with console.status("starting") as status:
        built = compile_bundle(
            checkpoint,
            out,
            targets=tuple(target or ["cpu"]),
            name=name,
            tasks=[t.strip() for t in tasks.split(",") if t.strip()] if tasks is not None else None,
            preprocess=Preprocess(mode="letterbox" if letterbox else "resize"),
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
    }


def _print(built: Built) -> None:
    from edgemtl.runtime.sizes import show_size

    checks = []
    for target, errors in built.errors.items():
        worst = ", ".join(f"{task} {error:.1e}" for task, error in errors.items())
        checks.append(
            f"{target} (largest relative error: {worst})" if errors else f"{target} (not checked: it runs elsewhere)"
        )
    _text.console().print(
        _text.clean(f"{built.path}: {show_size(built.size)}, {built.seconds:.1f} s, programs {'; '.join(checks)}"),
        soft_wrap=True,
    )
