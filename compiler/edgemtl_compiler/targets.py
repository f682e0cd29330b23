"""The machines that programs can be built for: compiler flags, and the CPU features that a device must then have.

Flags are spelled out one by one (never -march=native), so that `needs` in the manifest says the whole truth: a device
whose /proc/cpuinfo lists them can run the program.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

from edgemtl.errors import CompileError
from edgemtl.runtime import cpu


@dataclass(frozen=True)
class Target:
    """One kind of CPU. `needs` are its features as the kernel, and so g++'s -m flags, name them."""

    name: str
    machine: str  # as platform.machine() gives it
    needs: tuple[str, ...]
    flags: tuple[str, ...] = ()  # for g++, besides one -m per feature

    @property
    def cxx_flags(self) -> tuple[str, ...]:
        return (*(f"-m{feature}" for feature in self.needs), *self.flags)

    @property
    def llvm(self) -> dict[str, object]:
        """What TVM is told, consistent with the kernels' flags."""
        return {"kind": "llvm", "mcpu": "x86-64", "mattr": [f"+{feature}" for feature in self.needs]}


AVX2 = Target("x86_64-avx2", "x86_64", ("avx2", "fma"))
AVX512 = Target(
    "x86_64-avx512",
    "x86_64",
    ("avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"),
    ("-mprefer-vector-width=512",),
)
TARGETS = {t.name: t for t in (AVX512, AVX2)}  # best first


def runs_here(target: Target) -> bool:
    """Whether this machine can run the target's programs."""
    return target.machine == platform.machine() and set(target.needs) <= cpu.features()


def resolve(name: str) -> Target:
    """The target called `name`; "cpu" is the best one that this machine runs. Raises CompileError."""
    known = f"choose cpu, onnx or one of {', '.join(TARGETS)}"
    if name == "cpu":
        for target in TARGETS.values():
            if runs_here(target):
                return target
        raise CompileError(f"no CPU target runs on this {platform.machine()} machine; {known}")
    if name not in TARGETS:
        raise CompileError(f"there is no target {name!r}; {known}")
    return TARGETS[name]
