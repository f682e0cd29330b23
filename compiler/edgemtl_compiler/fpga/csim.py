"""The accelerator's C simulation: the HLS sources, compiled with the machine's C++ compiler into a library."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from edgemtl.errors import CompileError

FLAGS = ("-std=c++14", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unknown-pragmas")
TWINS = ("linear", "attention")  # the units that have one
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")


def build(
    sources: Path,
    out: Path,
    *,
    sanitize: bool = False,
    packed: bool = False,
    compiler: str = "",
    headers: Path | None = None,
    twins: bool = False,
) -> Path:
    """Compile the `hls` folder `sources` into the shared library `out`, with warnings as errors.

    `packed` takes two products from one multiplier, as the synthesised unit does; `headers` is a folder whose ap_int.h
    is used in place of the shim's. With `twins` the linear and the attention unit are left to their Verilated twins,
    which edgemtl_csim_twins must name before the first frame. Raises CompileError.
    """
    found = shutil.which(compiler) if compiler else shutil.which("g++") or shutil.which("clang++")
    if found is None:
        wanted = compiler or "C++ compiler"
        raise CompileError(f"C simulation needs a {wanted} and none was found; type: apt-get install g++")
    flags = [*FLAGS, *(SANITIZE if sanitize else ("-O3", "-march=native"))]
    flags += ["-DEDGEMTL_PACKED"] if packed else []
    other = [
        "-isystem",
        str(headers),
        "-Wno-maybe-uninitialized",
        "-Wno-uninitialized",
    ]  # their constructors set no bits
    flags += other if headers else [f"-I{sources / 'csim' / 'ap'}"]
    units = [str(p) for p in sorted((sources / "src").glob("*.cpp")) if not (twins and p.stem in TWINS)]
    units += [str(sources / "csim" / f"{name}.cpp") for name in ("exports", *(("twin",) if twins else ()))]
    command = [found, *flags, f"-I{sources / 'include'}", f"-I{sources / 'csim'}", *units, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["the compiler failed"]
        raise CompileError(f"the HLS kernels do not compile: {lines[0]}")
    return out
