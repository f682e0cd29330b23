"""nvcc, which makes a cubin of the kernels; and the emulation, which a C++ compiler makes of the same source.

The emulation is a stand-in for NVIDIA's driver (kernels/emulated_driver.cc). It computes what the kernels compute,
on a CPU, slowly; it says nothing about speed, and nothing about what only a GPU's own compiler and memory do.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgemtl.errors import CompileError
from edgemtl_compiler import toolchain

KERNELS = Path(__file__).parent / "kernels"
ARCHES = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "sm_100", "sm_120")  # Ampere to Blackwell; sm_87: Jetson Orin
_FLAGS = ("-std=c++17", "-O3")
_EMULATED = ("-std=c++17", "-O2", "-fPIC", "-shared", "-Wno-unknown-pragmas", *toolchain.HIDDEN[2:])
_MISSING = (
    "no nvcc was found ($NVCC, edgemtl[cuda], PATH, /usr/local/cuda): pip install 'edgemtl[cuda]', or install NVIDIA's"
    " CUDA toolkit"
)


def find_nvcc() -> str:
    """Path of nvcc: $NVCC, or the one of NVIDIA's Python packages, the PATH or /usr/local/cuda. Raises CompileError."""
    asked = os.environ.get("NVCC")
    if asked and not shutil.which(asked):
        raise CompileError(f"$NVCC is {asked}, which is not a program")
    for name in (asked, *_packaged(), "nvcc", "/usr/local/cuda/bin/nvcc"):
        if name and (path := shutil.which(name)):
            return path
    raise CompileError(_MISSING)


def _packaged() -> list[str]:
    """nvcc of the package nvidia-cuda-nvcc, if it is installed; it finds the rest of the toolkit beside it."""
    found = importlib.util.find_spec("nvidia")
    folders = sorted(found.submodule_search_locations or ()) if found else []
    return [str(path) for folder in folders for path in sorted(Path(folder).glob("cu*/bin/nvcc"))]


def nvcc_version() -> str:
    """For the record, such as "13.0.88"."""
    found = subprocess.run([find_nvcc(), "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"V(\d[\d.]*)", found.stdout)
    return version[1] if version else "unknown"


def check_arch(arch: str) -> str:
    """`arch`, if programs can be built for it. Raises CompileError."""
    if arch not in ARCHES:
        raise CompileError(f"there is no GPU architecture {arch!r} here; choose {', '.join(ARCHES)}")
    return arch


@functools.cache
def _folder() -> Path:
    """A folder that goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="edgemtl-cuda-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _defines(precision: str, head: int) -> tuple[str, str]:
    return f"-DEDGEMTL_{precision.upper()}", f"-DEDGEMTL_HEAD={head}"


@functools.cache
def cubin(arch: str, precision: str, head: int) -> Path:
    """The kernels for one architecture, precision and size of attention head; once per process. Raises CompileError."""
    out = _folder() / f"{check_arch(arch)}-{precision}-{head}.cubin"
    command = [find_nvcc(), *_FLAGS, f"-arch={arch}", "-cubin", *_defines(precision, head), "-o", str(out)]
    toolchain.run([*command, str(KERNELS / "kernels.cu")], f"compiling the CUDA kernels for {arch}")
    return out


@functools.cache
def emulation(precision: str, head: int) -> Path:
    """A library that stands in for libcuda.so.1 and knows the kernels of a cubin with these settings."""
    out = _folder() / f"emulated-{precision}-{head}.so"
    command = [toolchain.find_compiler(), *_EMULATED, *_defines(precision, head), "-o", str(out)]
    sources = [str(KERNELS / name) for name in ("emulated_driver.cc", "emulated.cc")]
    toolchain.run([*command, *sources], "compiling the emulation of the CUDA kernels")
    return out
