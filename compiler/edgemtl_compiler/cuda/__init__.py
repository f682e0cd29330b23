"""Programs for NVIDIA GPUs. Read in this order: `lower` (from a graph to a launch plan), `ops/` (the launches of each
op), `kernels/` (what they compute), `toolchain` (nvcc, and the emulation on a CPU), `build` (the program of a bundle),
`check` (running it, on a GPU or in the emulation).
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.runtime.cuda.plan import Precision

BACKEND = "tvm-cuda"
TYPES: dict[Precision, str] = {"f32": "float32", "f16": "float16", "bf16": "uint16"}  # NumPy's, of what is multiplied


@dataclass(frozen=True)
class CudaTarget:
    """One GPU architecture, such as "sm_90", and the precision of what is multiplied."""

    name: str
    precision: Precision
