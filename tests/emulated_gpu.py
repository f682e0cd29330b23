"""The emulated GPU (edgemtl_compiler/cuda/kernels/emulated.h) in place of NVIDIA's driver, for tests without a GPU.

With EDGEMTL_TEST_EMULATED_GPU=1 the whole of tests/suite runs backend tvm-cuda on it: `make test-emulated-gpu`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from edgemtl.errors import CompileError
from edgemtl.runtime.cuda import driver

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


@contextmanager
def installed(half: bool, head: int) -> Iterator[Emulation]:
    """`edgemtl.runtime.cuda.driver` finds the emulation of kernels with these settings, and no GPU."""
    from edgemtl_compiler.cuda import toolchain

    before, driver.LIBRARY = driver.LIBRARY, str(toolchain.emulation(half, head))
    try:
        yield Emulation(driver.LIBRARY)
    finally:
        driver.LIBRARY = before
