"""What runs behind the virtual board's registers: hls/ in C simulation, alone or with the Verilated twins of hls/rtl.

Both are compiled once and kept by the hash of their sources. The variable EDGEMTL_FPGA_SIM chooses: "csim" (the
default), or "twin", where the linear and the attention unit are register-transfer level and count their cycles.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from edgemtl.errors import BoardError
from edgemtl.fpga.contract import LANES_ROW, REGISTER_VERSION
from edgemtl.fpga.virtual import Memory
from edgemtl.runtime import cpu

VARIABLE, CSIM, TWIN = "EDGEMTL_FPGA_SIM", "csim", "twin"
_ONE = threading.Lock()  # the simulated kernel has one set of memories per process, as the board has


def chosen() -> str:
    """ "csim" or "twin"; raises BoardError for another value of the variable."""
    kind = os.environ.get(VARIABLE) or CSIM
    if kind not in (CSIM, TWIN):
        raise BoardError(f"{VARIABLE} is {CSIM} or {TWIN}, not {kind!r}")
    return kind


def sources() -> Path | None:
    """The `hls` folder of the checkout that edgemtl_compiler comes from, if it comes from one."""
    spec = importlib.util.find_spec("edgemtl_compiler")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).resolve().parents[2] / "hls"
    return folder if (folder / "csim" / "exports.cpp").is_file() else None


def obstacle(kind: str = CSIM) -> str | None:
    """Why the simulation of this kind cannot be built here, with what helps; None when it can."""
    if sources() is None:
        return "the kernels' sources are not installed: run it from a checkout of edgemtl (pip install -e .)"
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "the kernels' C simulation needs a C++ compiler: apt-get install g++"
    if kind == TWIN:
        for tool in ("verilator", "g++", "make"):
            if shutil.which(tool) is None:
                return f"{VARIABLE}={TWIN} needs {tool}: apt-get install {tool}, or unset {VARIABLE}"
    return None


def library(*, twins: bool = False) -> Path:
    """The compiled C simulation, from the cache ($EDGEMTL_CACHE or ~/.cache/edgemtl) or built now (some 20 s).

    With `twins` the one whose linear and attention unit are left to `twin_libraries`. Raises BoardError where it cannot
    be built, CompileError where it does not compile.
    """
    if reason := obstacle():
        raise BoardError(f"the virtual board cannot run: {reason}")
    from edgemtl_compiler.fpga.csim import FLAGS, build

    folder = sources()
    assert folder is not None
    digest = hashlib.sha256(repr((FLAGS, platform.machine(), sorted(cpu.features()), twins)).encode())
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".h", ".cpp")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    cache = Path(os.environ.get("EDGEMTL_CACHE") or Path.home() / ".cache" / "edgemtl")
    out = cache / f"{'twin' if twins else 'csim'}-{digest.hexdigest()[:16]}.so"
    if not out.is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoardError(f"cannot write {cache}: {error.strerror}; set EDGEMTL_CACHE to another folder") from None
        temporary = out.with_suffix(f".{os.getpid()}.tmp")
        try:
            os.replace(build(folder, temporary, twins=twins), out)
        finally:
            temporary.unlink(missing_ok=True)
    return out


def twin_libraries() -> tuple[Path, Path]:
    """The Verilated linear and attention unit, from the cache or built now (minutes). Raises as `library` does."""
    if reason := obstacle(TWIN):
        raise BoardError(f"the virtual board cannot run: {reason}")
    from edgemtl_compiler.fpga import rtl

    folder = sources()
    assert folder is not None
    return rtl.build(folder / "rtl", "linear", {"LANES_ROW": LANES_ROW}), rtl.build(folder / "rtl", "attention")


class CSimKernel:
    """Calls the accelerator's top function; see `virtual.Kernel`."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or library()
        self._lib = _load(path)
        version = getattr(self._lib, "edgemtl_csim_register_version", lambda: 1)()
        if version != REGISTER_VERSION:
            raise BoardError(
                f"{path}: is a kernel with register map version {version}, this edgemtl's is {REGISTER_VERSION}: "
                "build it again with edgemtl.fpga.simulation.library()"
            )
        self._frame = self._lib.edgemtl_csim_frame
        pointer, number = ctypes.c_void_p, ctypes.c_uint32
        self._frame.argtypes = [pointer] * 4 + [number] + [pointer, number] * 3 + [number, pointer]
        self._frame.restype = ctypes.c_int

    def __call__(
        self, banks: Sequence[Memory], program: Memory, pixels: Memory, output: Memory, task: int, counts: Memory
    ) -> int:
        tail = [v for m in (program, pixels, output) for v in (m.ctypes.data, m.nbytes // 16)]
        first = [b.ctypes.data for b in banks]
        with _ONE:
            return int(self._frame(*first, banks[0].nbytes // 16, *tail, task, counts.ctypes.data))


class TwinKernel(CSimKernel):
    """The same with the linear and the attention unit at register-transfer level, whose cycles it counts."""

    def __init__(self, path: Path | None = None, twins: tuple[Path, Path] | None = None) -> None:
        linear, attention = (_load(p) for p in twins or twin_libraries())
        super().__init__(path or library(twins=True))
        name = self._lib.edgemtl_csim_twins
        name.argtypes, name.restype = [ctypes.c_void_p] * 2, None
        name(*(ctypes.cast(f, ctypes.c_void_p) for f in (linear.linear_run, attention.attention_run)))


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        raise BoardError(f"cannot load the simulated kernel: {error}") from None


def kernel(kind: str | None = None) -> CSimKernel:
    """The kernel of that kind, or of the chosen one; built where it is not in the cache."""
    return TwinKernel() if (kind or chosen()) == TWIN else CSimKernel()
