"""What the machine can do at most: the best SGEMM library on it, and roofs that no program passes.

A share of "the SGEMM peak" means little when the library that set the peak is slow, so every library at hand is asked
and named: PyTorch (MKL or oneDNN), OpenVINO (oneDNN), NumPy (OpenBLAS). The FMA roof is a loop of multiply-adds that
never leaves the registers, the INT8 roof one of dot products of bytes, the read roof a loop that reads memory once; all
are compiled here (kernels/roof.cc).
`python -m edgemtl.bench.worker {"peak": SOURCE, ...}` measures one of them in a fresh process.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgemtl.bench.process import ProcessError, child, environment

SIZES = (768, 1536)  # square products: one whose operands stay in the second-level cache, one larger
LIBRARIES = ("torch", "openvino", "numpy")
FMA, READ, DOT = "fma roof", "read roof", "int8 roof"
SOURCES = (*LIBRARIES, FMA, DOT, READ)
Kind = Literal["edgemtl_roof_fma", "edgemtl_roof_dot", "edgemtl_roof_read"]
_READ_FLOATS = 1 << 25  # 128 MiB a thread: more than any cache holds


def measure(source: str, threads: int, seconds: float) -> float:
    """GFLOP/s of `source` with `threads` threads; GB/s for READ; GOP/s for DOT, 0 on a CPU without such instructions.

    Wants a process of its own. Raises ImportError where a library is missing, CompileError where a roof cannot be
    compiled.
    """
    if source == FMA:
        return _roof("edgemtl_roof_fma", threads, seconds)
    if source == DOT:
        return _roof("edgemtl_roof_dot", threads, seconds)
    if source == READ:
        return _roof("edgemtl_roof_read", threads, seconds)
    make = {"torch": _torch, "openvino": _openvino, "numpy": _numpy}[source]
    return max(2e-9 * float(size) ** 3 / _fastest(make(size, threads), seconds / len(SIZES)) for size in SIZES)


def fresh(threads: int, seconds: float) -> dict[str, float]:
    """The rate of every source that can be measured here, each in a process of its own."""
    found = {}
    for source in SOURCES:
        request = {"peak": source, "threads": threads, "seconds": seconds}
        with contextlib.suppress(ProcessError, ValueError, IndexError):  # no such library, or no compiler
            lines = child("edgemtl.bench.worker", request, 120, environment(threads))
            found[source] = float(json.loads(lines[-1])["rate"])
    return found


def best_library(found: Mapping[str, float]) -> str | None:
    """The library with the highest SGEMM rate among measured sources; None without any."""
    return max((s for s in LIBRARIES if s in found), key=lambda s: found[s], default=None)


def sentence(found: Mapping[str, float], threads: int) -> str:
    """One line for a report: every source with its figure, the best library first."""
    best = best_library(found)
    libraries = [f"{s} {found[s]:.0f}" for s in LIBRARIES if s in found]
    roofs = [f"FMA roof {found[FMA]:.0f} GFLOP/s"] if FMA in found else []
    roofs += [f"INT8 roof {found[DOT]:.0f} GOP/s"] if found.get(DOT) else []
    roofs += [f"reading memory {found[READ]:.1f} GB/s"] if READ in found else []
    first = f"SGEMM peak with {threads} thread(s): {found[best]:.0f} GFLOP/s by {best}" if best else "no SGEMM library"
    return f"{first} (best of {', '.join(libraries)}; measured); {', '.join(roofs) or 'no roof measured'}"


def _fastest(call: Callable[[], object], seconds: float) -> float:
    best, end, runs = float("inf"), time.perf_counter() + seconds, 0
    while runs < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def _torch(size: int, threads: int) -> Callable[[], object]:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    a, b, out = torch.rand(size, size), torch.rand(size, size), torch.empty(size, size)
    return lambda: torch.mm(a, b, out=out)


def _numpy(size: int, threads: int) -> Callable[[], object]:
    """The number of threads comes from the environment of the process (process.environment)."""
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    out = np.empty((size, size), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _openvino(size: int, threads: int) -> Callable[[], object]:
    """One product with a constant, which oneDNN packs when it compiles the model."""
    ov: Any = importlib.import_module("openvino")
    ops: Any = importlib.import_module("openvino.opset13")
    a, b = np.random.default_rng(0).random((2, size, size), np.float32)
    data = ops.parameter([size, size], np.float32)
    model = ov.Model([ops.matmul(data, ops.constant(b), False, False)], [data])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    infer = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: infer.infer({0: a}, share_inputs=True)


def _roof(name: Kind, threads: int, seconds: float) -> float:
    """The sum over threads that all run the loop at the same time."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-roof-") as folder:
        library = ctypes.CDLL(str(_compile(Path(folder) / "roof.so")))
    function: Any = getattr(library, name)
    function.restype = ctypes.c_double
    together, found = threading.Barrier(threads), [0.0] * threads

    def work(i: int) -> None:
        values = np.zeros(_READ_FLOATS if name == "edgemtl_roof_read" else 1, np.float32)
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


def _compile(out: Path) -> Path:
    targets: Any = importlib.import_module("edgemtl_compiler.cpu.targets")
    toolchain: Any = importlib.import_module("edgemtl_compiler.toolchain")
    flags = [*toolchain.FLAGS, *targets.resolve("cpu", "int8").cxx_flags]
    source = str(toolchain.KERNELS / "roof.cc")
    toolchain.run([toolchain.find_compiler(), *flags, "-shared", "-o", str(out), source], "compiling the roofs")
    return out
