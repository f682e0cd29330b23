"""A library of kernels alone, loaded for tests."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

from edgemtl_compiler.cpu import targets, tvm_adapter
from edgemtl_compiler.cpu.targets import Target

# Four lanes and no fused multiply-add: what NEON's kernels share with the generic source.
PLAIN = Target("x86_64-plain", "x86_64", ("sse2",)) if platform.machine() == "x86_64" else None
ALL = [t for t in (*targets.TARGETS.values(), PLAIN) if t is not None and targets.runs_here(t)]


class Kernels:
    """A library of kernels alone: `kernels("linear", x, w, out)` passes arrays without copying them."""

    def __init__(self, path: Path) -> None:
        self._module = tvm_adapter.load_library(path)

    def __call__(self, name: str, *args: Any) -> None:
        self._module[f"edgemtl_{name}"](*(tvm_ffi.from_dlpack(a) if isinstance(a, np.ndarray) else a for a in args))

    def threads(self, n: int) -> None:
        self._module["edgemtl_set_threads"](n)
