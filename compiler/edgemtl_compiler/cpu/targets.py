"""The machines that programs can be built for: compiler flags, and the CPU features that a device must then have.

Instruction sets are spelled out one by one (never -march=native, and -mtune in place of -mcpu), so that `needs` in the
manifest says the whole truth: a device whose /proc/cpuinfo lists them can run the program.
"""

from __future__ import annotations

import difflib
import platform
from dataclasses import dataclass

from edgemtl.errors import CompileError
from edgemtl.runtime import cpu

_CPU_PRECISIONS = ("f32", "f16", "int8")
# What g++ and LLVM call a feature where it is not what the kernel calls it.
_COMPILER_NAMES = {"avx512_vnni": "avx512vnni", "avx_vnni": "avxvnni"}
_TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}


@dataclass(frozen=True)
class Target:
    """One kind of CPU. `needs` are its features as /proc/cpuinfo names them; `precisions` those that it is of use for:
    a target that differs from a plainer one only by INT8 instructions would make other programs needlessly choosy.
    """

    name: str
    machine: str  # as platform.machine() gives it
    needs: tuple[str, ...]
    flags: tuple[str, ...] = ()  # for g++, besides one -m per feature on x86
    attributes: tuple[str, ...] = ()  # for LLVM, besides the features on x86
    precisions: tuple[str, ...] = _CPU_PRECISIONS

    @property
    def cxx_flags(self) -> tuple[str, ...]:
        """Flags of g++ that make it use exactly the features."""
        return (*(f"-m{feature}" for feature in self._x86_features), *self.flags)

    @property
    def triple(self) -> str:
        """The machine as compilers name it; a cross-compiler is called TRIPLE-g++."""
        return _TRIPLES[self.machine]

    @property
    def llvm(self) -> dict[str, object]:
        """What TVM is told, consistent with the kernels' flags."""
        cpu_kind = "x86-64" if self.machine == "x86_64" else "generic"
        attributes = [f"+{name}" for name in (*self._x86_features, *self.attributes)]
        return {"kind": "llvm", "mtriple": self.triple, "mcpu": cpu_kind, "mattr": attributes}

    @property
    def _x86_features(self) -> tuple[str, ...]:
        return tuple(_COMPILER_NAMES.get(f, f) for f in self.needs) if self.machine == "x86_64" else ()


_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl")
_WIDE = ("-mprefer-vector-width=512",)

AVX512VNNI = Target("x86_64-avx512vnni", "x86_64", (*_AVX512, "avx512_vnni"), _WIDE, precisions=("int8",))
AVX512 = Target("x86_64-avx512", "x86_64", _AVX512, _WIDE)
AVX2VNNI = Target("x86_64-avx2vnni", "x86_64", (*_AVX2, "avx_vnni"), precisions=("int8",))
AVX2 = Target("x86_64-avx2", "x86_64", _AVX2)
# Cores that order instructions themselves need no order from GCC, whose order runs out of registers in the product.
_OUT_OF_ORDER = ("-fno-schedule-insns",)
# armv8.2-a is what the dot product asks for, and brings atomics, crc32 and asimdrdm with it.
A76 = Target(
    "aarch64-a76",
    "aarch64",
    ("asimd", "asimddp", "asimdhp", "atomics", "crc32", "asimdrdm"),
    ("-march=armv8.2-a+dotprod+fp16", "-mtune=cortex-a76", *_OUT_OF_ORDER),
    ("neon", "dotprod", "fullfp16"),
)
A72 = Target("aarch64-a72", "aarch64", ("asimd",), ("-march=armv8-a", "-mtune=cortex-a72", *_OUT_OF_ORDER), ("neon",))
A53 = Target("aarch64-a53", "aarch64", ("asimd",), ("-march=armv8-a", "-mtune=cortex-a53"), ("neon",))
TARGETS = {t.name: t for t in (AVX512VNNI, AVX512, AVX2VNNI, AVX2, A76, A72, A53)}  # of each machine, best first


def runs_here(target: Target) -> bool:
    """Whether this machine can run the target's programs."""
    return target.machine == platform.machine() and set(target.needs) <= cpu.features()


def resolve_all(name: str, precision: str = "f32") -> tuple[Target, ...]:
    """The targets that `name` stands for: one target; "cpu", the best one that this machine runs; "x86_64" or
    "aarch64", all of that machine. Only those of use for `precision` count. Raises CompileError.
    """
    useful = [t for t in TARGETS.values() if precision in t.precisions]
    if not useful:
        raise CompileError(
            f"no CPU target multiplies {precision}, which is for GPUs: choose --target cuda, or --precision f16, whose"
            " weights are as small"
        )
    machines = tuple(dict.fromkeys(t.machine for t in useful))
    known = f"choose cpu, onnx, {', '.join(machines)} (all of a machine) or one of {', '.join(t.name for t in useful)}"
    if name == "cpu":
        if not (fit := [t for t in useful if runs_here(t)]):
            raise CompileError(f"no CPU target runs on this {platform.machine()} machine; {known}")
        return (max(fit, key=lambda t: (len(t.needs), t.name.endswith(f"-{cpu.core()}"))),)  # the first of equals
    if name in machines:
        return tuple(t for t in useful if t.machine == name)
    if name not in TARGETS:
        near = difflib.get_close_matches(name, ("cpu", "onnx", *machines, *(t.name for t in useful)), 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise CompileError(f"there is no target {name!r}{hint}; {known}")
    if TARGETS[name] not in useful:
        raise CompileError(f"target {name} is for {' and '.join(TARGETS[name].precisions)}, not {precision}; {known}")
    return (TARGETS[name],)


def resolve(name: str, precision: str = "f32") -> Target:
    """The one target called `name`; "cpu" is the best that this machine runs. Raises CompileError."""
    found = resolve_all(name, precision)
    if len(found) > 1:
        raise CompileError(f"{name} stands for {len(found)} targets: {', '.join(t.name for t in found)}; choose one")
    return found[0]
