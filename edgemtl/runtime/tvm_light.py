"""TVM's runtime without TVM's Python package: importing that takes seconds, this a tenth of one.

Needed are `tvm_ffi` (calls and tensors) and libtvm_runtime.so. That lies in the small package `edgemtl_tvm_runtime`,
which `edgemtl runtime pack` makes for devices, or in the folder of the `tvm` package.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import stat
import sys
import tempfile
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgemtl.errors import BackendError

SUPPORTED = "0.27."
MOST_LOADED = 2000  # names for libraries from memory; more than are loaded at once
INSTALL = 'pip install "edgemtl[cpu]"'
PACKAGE, LIBRARY = "edgemtl_tvm_runtime", "libtvm_runtime.so"
_PLACES = {PACKAGE.replace("_", "-"): (PACKAGE, LIBRARY), "apache-tvm": ("tvm", f"lib/{LIBRARY}")}  # first one wins


def source() -> tuple[str, str]:
    """(name, version) of the package that the library is taken from. Raises PackageNotFoundError when there is none."""
    for name in _PLACES:
        try:
            return name, version(name)
        except PackageNotFoundError as e:
            missing = e
    raise missing


def library() -> Path:
    """Where the library lies; it may be that it does not. Imports nothing. Raises PackageNotFoundError."""
    package, path = _PLACES[source()[0]]
    found = importlib.util.find_spec(package)
    return Path(found.origin if found and found.origin else package).parent / path


def unusable() -> str | None:
    """Why TVM's runtime cannot be used here; None when it can. Imports nothing."""
    try:
        name, found = source()
        version("apache-tvm-ffi")
    except PackageNotFoundError as e:
        return f"{e.name} is not installed: {INSTALL}"
    if not found.startswith(SUPPORTED):
        return f"{name} {found} is installed, this edgemtl needs {SUPPORTED}x: {INSTALL}"
    return None if sys.platform == "linux" else f"programs for tvm-cpu are for Linux, this is {sys.platform}"


@cache
def ffi() -> Any:
    """The module `tvm_ffi`, with TVM's runtime library loaded. Raises BackendError.

    `tvm_ffi` imports torch when it can, for torch's own tensors, which are of no use here: it is told that there is
    none, unless torch has been imported already. Another thread must not import torch for the first time meanwhile.
    """
    try:
        hidden = "torch" not in sys.modules and "tvm_ffi" not in sys.modules
        before = os.environ.get("TVM_FFI_DISABLE_TORCH_C_DLPACK")
        if hidden:
            sys.modules["torch"] = None  # type: ignore[assignment]  # makes "import torch" an ImportError
            os.environ["TVM_FFI_DISABLE_TORCH_C_DLPACK"] = "1"
        try:
            import tvm_ffi
        finally:
            if hidden:
                del sys.modules["torch"]
                os.environ.pop("TVM_FFI_DISABLE_TORCH_C_DLPACK")
                if before is not None:
                    os.environ["TVM_FFI_DISABLE_TORCH_C_DLPACK"] = before
        ctypes.CDLL(str(library()), ctypes.RTLD_GLOBAL)
    except (ImportError, OSError) as e:  # no such package is an ImportError too
        raise BackendError(f"TVM's runtime cannot be loaded: {e}; {INSTALL}") from e
    return tvm_ffi


def load_library(code: bytes, name: str) -> Any:
    """The TVM module in a shared library's bytes; raises BackendError where the system refuses it.

    The bytes go to a file in a new folder that only this user can enter, which is gone again when this returns; where
    no folder for temporary files has room, can be written and lets code run, to a file in memory.
    """
    module = ffi()
    try:
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
            assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
            path = Path(folder) / f"{name}.so"
            path.write_bytes(code)
            return module.load_module(str(path), keep_module_alive=False)
    except Exception as first:
        try:
            return _load_from_memory(module, code, name)
        except Exception:  # what was wrong with the file in a folder says more
            place = isinstance(first, OSError) or any(w in str(first) for w in ("not permitted", "map segment"))
            hint = "; set TMPDIR to a folder with room that is not mounted noexec" if place else ""
            raise BackendError(f"the program of {name!r} cannot be loaded: {first_line(first)}{hint}") from None


_serial = itertools.count()


def _load_from_memory(module: Any, code: bytes, name: str) -> Any:
    fd = os.memfd_create(name)
    with open(fd, "wb") as file:
        file.write(code)
        file.flush()
        # a number may be used again, but the loader takes two libraries with one name for the same: slashes tell apart
        path = f"/proc/self/fd{'/' * (1 + next(_serial) % MOST_LOADED)}{fd}"
        return module.get_global_func("ffi.Module.load_from_file.so")(path, "so")


def first_line(error: Exception) -> str:
    """TVM's errors carry backtraces; people need the first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
