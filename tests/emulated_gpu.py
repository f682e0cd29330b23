"""The emulated GPU (edgemtl_compiler/cuda/kernels/emulated.h) in place of NVIDIA's driver, for tests without a GPU.

With EDGEMTL_TEST_EMULATED_GPU=1 the whole of tests/suite runs backend tvm-cuda on it: `make test-emulated-gpu`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgemtl.errors import CompileError
from edgemtl.runtime.cuda import driver

if TYPE_CHECKING:
    from edgemtl_compiler.bundle import Built

WANTED = os.environ.get("EDGEMTL_TEST_EMULATED_GPU") == "1"
FORWARD, BACKWARD, SHUFFLED = range(3)  # orders in which threads and blocks get their turn


def no_nvcc() -> str:
    """Why nothing can be compiled for a real GPU here; empty when it can."""
    from edgemtl_compiler.cuda import toolchain

    try:
        toolchain.find_nvcc()
    except CompileError as e:
        return str(e)
    return ""


def no_gpu() -> str:
    """Why no test can run on a real GPU here; empty when one can."""
    return driver.unusable() or no_nvcc()


class Emulation:
    """What the emulation tells beside what a driver does."""

    def __init__(self, path: str) -> None:
        self.path, self._lib = path, driver.library(path)
        self._lib.emulated_bytes.restype = ctypes.c_size_t

    @property
    def bytes(self) -> int:
        """Of device memory that are given out."""
        return int(self._lib.emulated_bytes())

    def limit(self, size: int) -> None:
        """The most device memory that is given out from now on."""
        self._lib.emulated_limit(ctypes.c_size_t(size))

    def launches(self, kernel: str) -> int:
        """Of a kernel, so far."""
        return int(self._lib.emulated_launches(kernel.encode()))

    def order(self, which: int, seed: int = 0) -> None:
        self._lib.emulated_order(which, ctypes.c_uint64(seed))


def compiled(model: Any, path: Path, **options: Any) -> Built:
    """A bundle of `model` at `path` for GPUs (by default sm_90, in f16), checked in the emulation: without code for any
    GPU, so no nvcc is needed; the emulation does not look at it.
    """
    from edgemtl_compiler import compile_bundle
    from edgemtl_compiler.cuda import toolchain

    none = path.parent / "none"
    none.write_bytes(b"no code")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toolchain, "find_nvcc", lambda: "true")
        patch.setattr(toolchain, "cubin", lambda *_: none)
        patch.setattr(driver, "LIBRARY", "no GPU, please")
        return compile_bundle(model, path, **{"targets": ["cuda"], "arches": ["sm_90"], "precision": "f16", **options})


@contextmanager
def installed(precision: str, head: int) -> Iterator[Emulation]:
    """`edgemtl.runtime.cuda.driver` finds the emulation of kernels with these settings, and no GPU."""
    from edgemtl_compiler.cuda import toolchain

    before, driver.LIBRARY = driver.LIBRARY, str(toolchain.emulation(precision, head))
    try:
        yield Emulation(driver.LIBRARY)
    finally:
        driver.LIBRARY = before
