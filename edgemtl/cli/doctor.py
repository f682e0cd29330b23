"""`edgemtl doctor`: what this machine can run, and what to install for the rest. Uses no network."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgemtl.cli import _text
from edgemtl.errors import BoardError

PACKAGES = (
    "edgemtl", "edgemtl-models", "numpy", "opencv-python-headless", "opencv-python", "pydantic", "safetensors",
    "edgemtl-tvm-runtime", "apache-tvm", "apache-tvm-ffi", "onnxruntime", "onnx", "torch", "pynq",
)  # fmt: skip
COMPILERS = ("g++", "clang++", "aarch64-linux-gnu-g++", "verilator", "yosys", "vitis_hls", "vivado")


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="With --board: the bundle that is to run there.")] = None,
    board: Annotated[bool, typer.Option("--board", help="What an FPGA board needs, each with its fix.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
) -> None:
    """Show Python, packages, backends, CPU features, compilers and video support.

    Exit code 0 when at least one backend is usable (with --board: when nothing is wrong), else 2.
    """
    if board:
        _doctor_board(bundle, json)
        return
    if bundle is not None:
        raise BoardError(f"doctor looks at a bundle with --board only: edgemtl doctor --board {bundle}")
    report = examine()
    if json:
        _text.as_json(report)
    else:
        _print(report)
    if not any(b["usable"] for b in report["backends"].values()):
        raise typer.Exit(2)


def _doctor_board(bundle: Path | None, json: bool) -> None:
    from edgemtl.fpga.check import check

    points = check(bundle)
    if json:
        _text.as_json({"points": [asdict(p) for p in points], "good": all(p.good is not False for p in points)})
    else:
        words = {True: "ok", False: "WRONG", None: "-"}
        rows = [(p.name, words[p.good], p.found, p.remedy) for p in points]
        _text.console().print(_text.table(("point", "", "found", "what to do"), rows))
    if any(p.good is False for p in points):
        raise typer.Exit(2)


def examine() -> dict[str, Any]:
    """The whole report; backends are asked without importing what they need."""
    from edgemtl.errors import BackendError
    from edgemtl.runtime import backends, cpu

    found: dict[str, Any] = {}
    for name in backends.names():
        try:
            backend = backends.find(name)
            reason = backend.unusable()
            cells = {f: cell._asdict() for f, cell in backend.CAPABILITIES.items()}
        except BackendError as e:
            reason, cells = str(e), {}
        except Exception as e:  # another package's class may fail in any way
            reason, cells = f"{type(e).__name__}: {' '.join(str(e).split())}", {}
        found[name] = {"usable": reason is None, "reason": reason, "capabilities": cells}
    video = _video()
    now, following = outlook([name for name, b in found.items() if b["usable"]], video["cameras"])
    return {
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": cpu.count(),
        "cpu_features": sorted(cpu.features() & set(cpu.NOTABLE)),
        "tvm_runtime": _tvm_runtime(),
        "packages": {name: _version(name) for name in PACKAGES},
        "backends": found,
        "compilers": {name: shutil.which(name) for name in COMPILERS},
        "video": video,
        "residency": "smaps" if os.access("/proc/self/smaps", os.R_OK) else "not measured",
        "now": now,
        "next": following,
    }


def outlook(usable: Sequence[str], cameras: Sequence[str]) -> tuple[str, str]:
    """What this machine can run now, in words, and the one command to type next."""
    from edgemtl.bundle import models
    from edgemtl.bundle.reader import Bundle
    from edgemtl.errors import BackendError, EdgeMTLError
    from edgemtl.runtime import backends, tvm_light

    if not usable:
        return "nothing runs here yet: no backend is usable", tvm_light.INSTALL
    bundles = f"bundles run here, on {', '.join(usable)}"
    try:
        if not (installed := models.installed()):
            checkout = (Path(__file__).parents[2] / "Makefile").is_file()
            return f"{bundles}; no model is installed", "make demo" if checkout else models.INSTALL
        name = models.DEFAULT if models.DEFAULT in installed else min(installed)
        with Bundle.open(installed[name]) as bundle:
            backend, choice, _ = backends.choose(None, bundle)
            task = bundle.manifest.model.task_names[0]
    except EdgeMTLError as e:
        remedy = tvm_light.INSTALL if isinstance(e, BackendError) else f"{models.INSTALL} --force-reinstall"
        return f"{bundles}; the installed model does not: {e}", remedy
    program = f" with program {choice.program.target}" if choice.program else ""
    word = "" if name == models.DEFAULT else f" {name}"
    camera = cameras[0].removeprefix("/dev/video") if cameras else ""
    command = f"edgemtl run{word} {camera} --task {task}" if camera else f"edgemtl demo{word}"
    return f"model {name} runs here, on {backend.name}{program}", command


def _tvm_runtime() -> dict[str, Any] | None:
    """The library that runs programs: from which package, where, how large. None where there is none."""
    from importlib.metadata import PackageNotFoundError

    from edgemtl.runtime import tvm_light

    try:
        (package, version), path = tvm_light.source(), tvm_light.library()
        return {"package": package, "version": version, "path": str(path), "bytes": path.stat().st_size}
    except (PackageNotFoundError, OSError):
        return None


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _video() -> dict[str, Any]:
    import cv2

    registry = cv2.videoio_registry
    return {
        "readers": sorted({registry.getBackendName(b) for b in registry.getBackends()}),
        "writers": sorted({registry.getBackendName(b) for b in registry.getWriterBackends()}),
        "cameras": sorted(str(p) for p in Path("/dev").glob("video*")),
        "ffmpeg_program": shutil.which("ffmpeg"),
    }


def _print(report: dict[str, Any]) -> None:
    from edgemtl.runtime.sizes import show_size

    console = _text.console()
    console.print(f"Python {report['python']} ({report['executable']}) on {report['platform']}")
    console.print(
        f"{report['cpus']} CPU(s), {report['machine']}: {', '.join(report['cpu_features']) or 'no features known'}"
    )
    packages = [f"{n} {v}" for n, v in report["packages"].items() if v]
    console.print(f"packages: {', '.join(packages)}")
    if runtime := report["tvm_runtime"]:
        size = show_size(runtime["bytes"])
        console.print(f"TVM runtime: {runtime['package']} {runtime['version']}, {runtime['path']}, {size}")
    rows = [(n, "yes" if b["usable"] else "no", b["reason"] or "") for n, b in report["backends"].items()]
    console.print(_text.table(("backend", "usable", "why not"), rows))
    features = list(dict.fromkeys(f for b in report["backends"].values() for f in b["capabilities"]))
    rows = [
        (n, *(b["capabilities"][f]["verdict"] if f in b["capabilities"] else "?" for f in features))
        for n, b in report["backends"].items()
    ]
    console.print(_text.table(("backend", *features), rows))
    compilers = [f"{n} ({p})" for n, p in report["compilers"].items() if p]
    console.print(f"compilers and tools: {', '.join(compilers) or 'none'}")
    video = report["video"]
    console.print(f"video: read by {', '.join(video['readers'])}; cameras {', '.join(video['cameras']) or 'none'}")
    console.print(f"resident memory: {report['residency']}")
    console.print(_text.clean(f"{report['now']}. Next: {report['next']}"), soft_wrap=True)
