"""The kernels' C simulation as the virtual board's kernel: hls/ compiled once, kept by the hash of its sources."""

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
from edgemtl.fpga.virtual import Memory
from edgemtl.runtime import cpu

_ONE = threading.Lock()  # the simulated kernel has one set of memories per process, as the board has


def sources() -> Path | None:
    """The `hls` folder of the checkout that edgemtl_compiler comes from, if it comes from one."""
    spec = importlib.util.find_spec("edgemtl_compiler")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).resolve().parents[2] / "hls"
    return folder if (folder / "csim" / "exports.cpp").is_file() else None


def obstacle() -> str | None:
    """Why the C simulation cannot be built here, with what helps; None when it can."""
    if sources() is None:
        return "the kernels' sources are not installed: run it from a checkout of edgemtl (pip install -e .)"
    if not (shutil.which("g++") or shutil.which("clang++")):
        return "the kernels' C simulation needs a C++ compiler: apt-get install g++"
    return None


def library() -> Path:
    """The compiled C simulation, from the cache ($EDGEMTL_CACHE or ~/.cache/edgemtl) or built now (some 20 s).

    Raises BoardError where it cannot be built, CompileError where it does not compile.
    """
    if reason := obstacle():
        raise BoardError(f"the virtual board cannot run: {reason}")
    from edgemtl_compiler.hls.csim import FLAGS, build

    folder = sources()
    assert folder is not None
    digest = hashlib.sha256(repr((FLAGS, platform.machine(), sorted(cpu.features()))).encode())
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".h", ".cpp")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    cache = Path(os.environ.get("EDGEMTL_CACHE") or Path.home() / ".cache" / "edgemtl")
    out = cache / f"csim-{digest.hexdigest()[:16]}.so"
    if not out.is_file():
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BoardError(f"cannot write {cache}: {error.strerror}; set EDGEMTL_CACHE to another folder") from None
        temporary = out.with_suffix(f".{os.getpid()}.tmp")
        try:
            os.replace(build(folder, temporary), out)
        finally:
            temporary.unlink(missing_ok=True)
    return out


class CSimKernel:
    """Calls the accelerator's top function; see `virtual.Kernel`."""

    def __init__(self, path: Path | None = None) -> None:
        lib = ctypes.CDLL(str(path or library()))
        self._frame = lib.edgemtl_csim_frame
        pointer, number = ctypes.c_void_p, ctypes.c_uint32
        self._frame.argtypes = [pointer] * 4 + [number] + [pointer, number] * 3 + [number]
        self._frame.restype = ctypes.c_int

    def __call__(self, banks: Sequence[Memory], program: Memory, pixels: Memory, output: Memory, task: int) -> int:
        tail = [v for m in (program, pixels, output) for v in (m.ctypes.data, m.nbytes // 16)]
        with _ONE:
            return int(self._frame(*(b.ctypes.data for b in banks), banks[0].nbytes // 16, *tail, task))
