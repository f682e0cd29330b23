"""The SystemVerilog twins of the linear and the attention unit, built by Verilator into libraries to call."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgemtl.errors import CompileError

# Several twins share a process: no symbol of one may be taken for another's.
SEPARATE = "-march=native -fPIC -fno-gnu-unique -fvisibility-inlines-hidden"
QUIET = ("-Wall", "-Wno-WIDTH", "-Wno-UNUSEDSIGNAL")


def cache(sources: Path) -> Path:
    """Where built models stay: the folder that EDGEMTL_CACHE names, or build/rtl of the tree that holds `sources`."""
    named = os.environ.get("EDGEMTL_CACHE")
    return Path(named) / "rtl" if named else sources.resolve().parents[1] / "build" / "rtl"


def build(sources: Path, unit: str, parameters: dict[str, int] | None = None, folder: Path | None = None) -> Path:
    """Verilate `unit` ("linear" or "attention") of the folder `sources` (hls/rtl) into a shared library.

    `parameters` are the module's, LANES_ROW or LANES_QUERY. A library is kept per hash of sources, parameters and tool
    and found again. Raises CompileError for a missing or
    failing tool.
    """
    folder = folder or cache(sources)
    for tool, package in (("verilator", "verilator"), ("g++", "g++"), ("make", "make")):
        if shutil.which(tool) is None:
            raise CompileError(f"the RTL simulation needs {tool} and it was not found; type: apt-get install {package}")
    version = subprocess.run(["verilator", "--version"], capture_output=True, text=True, check=False).stdout
    settings = [f"-G{name}={value}" for name, value in sorted((parameters or {}).items())]
    digest = hashlib.sha256(repr((version, settings, QUIET, SEPARATE)).encode())
    for path in sorted(p for p in sources.iterdir() if p.suffix in (".sv", ".svh", ".h", ".cpp")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    out = folder / f"{unit}-{digest.hexdigest()[:16]}.so"
    if out.exists():
        return out
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = ["verilator", "--cc", "--exe", "--build", "-j", "2", "-O3", "--noassert", *QUIET, *settings]
        command += ["--x-assign", "fast", "--x-initial", "unique", "--prefix", "Vunit", "--Mdir", work]
        command += ["-CFLAGS", SEPARATE, "-MAKEFLAGS", "OPT_FAST=-O3 OPT_SLOW=-O1"]
        command += ["-LDFLAGS", "-shared", "-o", "unit.so", "--top-module", unit, f"-I{sources}"]
        command += [str(sources / f"{unit}.sv"), str(sources / f"{unit}_harness.cpp")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            wrong = [line for line in (done.stderr + done.stdout).splitlines() if "rror" in line or "%Warning" in line]
            raise CompileError(f"the RTL of the {unit} unit does not build: {(wrong or ['verilator failed'])[0]}")
        os.replace(Path(work) / "unit.so", out)
    return out
