"""Kernels of another machine, run by qemu's user-mode emulator behind the same calls as `kernel_library.Kernels`.

The other side is emulated_host.cc. A message is little-endian: the name (uint32 length, bytes), the number of arguments
(uint32), and each argument: "i" int64, "f" float64, "s" uint32 n and n int64, or "t" (a tensor) uint8 DLPack type code,
uint8 bits, uint32 n, n int64, data. The answer is an error message (uint32 length, bytes; no bytes: no error) and, if
there was none, the data of all tensors in order, since any of them may be an output.
"""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.errors import CompileError
from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu.targets import A53, A76, Target

EMULATOR = "qemu-aarch64-static"
TARGETS = (A53, A76)
MODELS = {A53.name: "cortex-a53", A76.name: "cortex-a76"}  # the emulator's name of the core that lacks all else
_CODES = {"i": 0, "u": 1, "f": 2}


def missing(target: Target) -> str | None:
    """Why the target's kernels cannot be emulated here, with the command that helps; None when they can."""
    try:
        toolchain.find_compiler(target)
    except CompileError as e:
        return str(e)
    if not shutil.which(EMULATOR):
        return f"{EMULATOR} was not found: apt-get install qemu-user-static"
    return None


def build_host(target: Target, include: tuple[str, ...], out: Path) -> Path:
    """The program that loads and calls kernels."""
    paths = [flag for folder in include for flag in ("-isystem", folder)]
    command = [toolchain.find_compiler(target), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", *paths]
    source = str(Path(__file__).parent / "emulated_host.cc")
    toolchain.run([*command, "-rdynamic", "-o", str(out), source, "-ldl"], "building the emulated host")
    return out


class Emulated:
    """A library of kernels on an emulated CPU: the same calls as `kernel_library.Kernels`."""

    def __init__(self, path: Path, host: Path, target: Target) -> None:
        self.command = [EMULATOR, "-cpu", MODELS[target.name], "-L", f"/usr/{target.triple}", str(host), str(path)]
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, name: str, *args: Any) -> None:
        if self._process is None:
            self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin
        name = f"edgemtl_{name}"
        message = [struct.pack("<I", len(name)), name.encode(), struct.pack("<I", len(args))]
        self._process.stdin.write(b"".join([*message, *map(_pack, args)]))
        self._process.stdin.flush()
        if error := self._read(*struct.unpack("<I", self._read(4))).decode():
            raise ValueError(error)
        for array in args:
            if isinstance(array, np.ndarray):
                data = np.frombuffer(self._read(array.nbytes), array.dtype).reshape(array.shape)
                if not np.array_equal(data.view(np.uint8), np.ascontiguousarray(array).view(np.uint8)):
                    array[...] = data  # inputs may be read-only

    def threads(self, n: int) -> None:
        self("set_threads", n)

    def close(self) -> None:
        if self._process:
            self._process.communicate()
            self._process = None

    def _read(self, size: int) -> bytes:
        assert self._process
        assert self._process.stdout
        data = self._process.stdout.read(size)
        if len(data) != size:
            code = self._process.wait()
            self._process = None
            end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise RuntimeError(f"the emulated kernels ended with {end}")
        return data


def _pack(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        kind = struct.pack("<cBBI", b"t", _CODES[value.dtype.kind], 8 * value.dtype.itemsize, value.ndim)
        return kind + struct.pack(f"<{value.ndim}q", *value.shape) + value.tobytes()
    if isinstance(value, tuple):
        return struct.pack(f"<cI{len(value)}q", b"s", len(value), *value)
    if isinstance(value, float):
        return struct.pack("<cd", b"f", value)
    return struct.pack("<cq", b"i", value)
