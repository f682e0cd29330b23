"""What the machine can do at most: roofs that no program passes.

The FMA roof is a loop of multiply-adds that never leaves the registers, the INT8 roof one of dot products of bytes, the
read roof a loop that reads memory once; all are compiled here (kernels/roof.cc).
`python -m edgemtl.bench.worker {"peak": SOURCE, ...}` measures one of them in a fresh process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.bench.process import ProcessError, child, environment

FMA, READ, DOT = "fma roof", "read roof", "int8 roof"
SOURCES = {FMA: "edgemtl_roof_fma", DOT: "edgemtl_roof_dot", READ: "edgemtl_roof_read"}
_READ_FLOATS = 1 << 25  # 128 MiB a thread: more than any cache holds


def fresh(threads: int, seconds: float, target: str = "cpu") -> dict[str, float]:
    """The rate of every source that can be measured here, each in a process of its own."""
    found = {}
    for source in SOURCES:
        request = {"peak": source, "threads": threads, "seconds": seconds, "target": target}
        with contextlib.suppress(ProcessError, ValueError, IndexError):  # there is no compiler
            lines = child("edgemtl.bench.worker", request, 120, environment(threads))
            found[source] = float(json.loads(lines[-1])["rate"])
    return found


def sentence(found: Mapping[str, float], threads: int) -> str:
    """One line for a report: every source with its figure."""
    roofs = [f"FMA roof {found[FMA]:.0f} GFLOP/s"] if FMA in found else []
    roofs += [f"INT8 roof {found[DOT]:.0f} GOP/s"] if found.get(DOT) else []
    roofs += [f"reading memory {found[READ]:.1f} GB/s"] if READ in found else []
    return f"{', '.join(roofs) or 'no roof'} with {threads} thread(s) (measured)"


def measure(source: str, threads: int, seconds: float, target: str = "cpu") -> float:
    """GFLOP/s of FMA, GB/s of READ, GOP/s of DOT (0 on a CPU without such instructions): the sum over threads that all
    run the loop at the same time. Raises CompileError where it cannot be compiled.
    """
    with tempfile.TemporaryDirectory(prefix="edgemtl-roof-") as folder:
        library = ctypes.CDLL(str(build("roof.cc", Path(folder) / "roof.so", target)))
    function: Any = getattr(library, SOURCES[source])
    function.restype = ctypes.c_double
    together, found = threading.Barrier(threads), [0.0] * threads

    def work(i: int) -> None:
        values = np.zeros(_READ_FLOATS if source == READ else 1, np.float32)
        values += 1  # so that every page is there
        together.wait()
        data = (ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(values.size)) if values.size > 1 else ()
        found[i] = function(*data, ctypes.c_double(seconds))  # without the interpreter's lock

    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(found)


def build(source: str, out: Path, target: str) -> Path:
    """The library `out` of a file of the kernels' folder, for `target`. Raises CompileError."""
    targets: Any = importlib.import_module("edgemtl_compiler.cpu.targets")
    toolchain: Any = importlib.import_module("edgemtl_compiler.toolchain")
    flags = [*toolchain.FLAGS, *targets.resolve(target, "int8").cxx_flags]
    file = str(toolchain.KERNELS / source)
    toolchain.run([toolchain.find_compiler(), *flags, "-shared", "-o", str(out), file], f"compiling {source}")
    return out
