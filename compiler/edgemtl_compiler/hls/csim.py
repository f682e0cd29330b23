"""C simulation: compile the HLS sources with the machine's C++ compiler and call them through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import CompileError

STATUS = {1: "a shape outside the compiled maxima", 2: "a requantisation shift outside its range"}


def build(sources: Path, out: Path, *, sanitize: bool = False) -> Path:
    """Compile every unit of the `hls` folder `sources` into the shared library `out`."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise CompileError("C simulation needs a C++ compiler and none was found; type: apt-get install g++")
    flags = ["-std=c++14", "-O3", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    if sanitize:
        flags += ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    units = sorted(str(p) for p in (sources / "src").glob("*.cpp"))
    command = [compiler, *flags, f"-I{sources / 'include'}", *units, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"the HLS kernels do not compile: {done.stderr.strip().splitlines()[0]}")
    return out


class CSim:
    """The compiled units as functions of NumPy arrays, each checked for dtype, order and shape."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))

    def linear(
        self,
        x: NDArray[np.int8],
        weight: NDArray[np.int8],
        bias: NDArray[np.int32],
        multiplier: NDArray[np.int32],
        shift: NDArray[np.uint8],
    ) -> NDArray[np.int8]:
        """Like `reference.linear`. Raises ValueError where the unit returns an error code."""
        (rows, inputs), outputs = x.shape, len(weight)
        if weight.shape[1] != inputs or not len(bias) == len(multiplier) == len(shift) == outputs:
            raise ValueError("x, weight, bias, multiplier and shift do not fit each other")
        y = np.zeros((rows, outputs), np.int8)
        arrays: list[NDArray[Any]] = [
            np.ascontiguousarray(x, np.int8),
            np.ascontiguousarray(weight, np.int8),
            np.ascontiguousarray(bias, np.int32),
            np.ascontiguousarray(multiplier, np.int32),
            np.ascontiguousarray(shift, np.uint8),
            y,
        ]
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in arrays]
        status = self._lib.edgemtl_linear(*pointers, rows, inputs, outputs)
        if status:
            raise ValueError(f"the linear unit refused: {STATUS.get(status, status)}")
        return y
