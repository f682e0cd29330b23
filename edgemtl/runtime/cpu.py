"""What this CPU can do, as the kernel names it, so that no program meets an instruction that is missing.

/proc/cpuinfo alone can lie: under an emulator (qemu-user) it is the host's. So the CPU itself is asked too, through the
C library: CPUID on x86, the auxiliary vector on aarch64. A feature counts only where all that can be asked agree.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from edgemtl.bundle.manifest import Program

NOTABLE = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8",
    "asimd", "asimdhp", "asimddp", "i8mm", "sve",
)  # fmt: skip

CPUINFO = "/proc/cpuinfo"
# Feature -> (leaf, register, bit): where glibc's __x86_get_cpuid_feature_leaf says that CPU and kernel allow it.
# Leaves 0, 1 and 6 are CPUID 1, 7 and 7.1; registers 0-3 are eax, ebx, ecx, edx.
_X86 = {
    "sse2": (0, 3, 26),
    "fma": (0, 2, 12),
    "avx": (0, 2, 28),
    "f16c": (0, 2, 29),
    "avx2": (1, 1, 5),
    "avx512f": (1, 1, 16),
    "avx512dq": (1, 1, 17),
    "avx512bw": (1, 1, 30),
    "avx512vl": (1, 1, 31),
    "avx512_vnni": (1, 2, 11),
    "amx_tile": (1, 3, 24),
    "amx_int8": (1, 3, 25),
    "avx_vnni": (6, 0, 4),
    "avx512_bf16": (6, 0, 5),
}
# Feature -> (entry of the auxiliary vector, bit): AT_HWCAP is 16, AT_HWCAP2 is 26.
_AARCH64 = {
    "fp": (16, 0),
    "asimd": (16, 1),
    "crc32": (16, 7),
    "atomics": (16, 8),
    "fphp": (16, 9),
    "asimdhp": (16, 10),
    "asimdrdm": (16, 12),
    "asimddp": (16, 20),
    "sve": (16, 22),
    "i8mm": (26, 13),
    "bf16": (26, 14),
}
_CORES = {"0xd03": "a53", "0xd08": "a72", "0xd0b": "a76"}  # "CPU part" of Arm's own cores -> end of a target's name


def count(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """CPUs that this process may use: those it is bound to, and no more than its control groups' quota is worth.

    A container with `--cpus 2` sees every CPU of its machine; more threads than 2 would stop each other.
    """
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([most, *(math.ceil(q) for q in _quotas(cgroups, own))]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """CPUs that each control group of this process, and each one above it, may use on average."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups  # version 1; version 2 names no controllers
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            with suppress(OSError, ValueError):
                if controllers:
                    quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if float(quota) > 0 and float(period) > 0:  # "max" is no number, and -1 in version 1 is no limit
                    yield float(quota) / float(period)
            if folder == root:
                break


@cache
def features() -> frozenset[str]:
    """What this CPU has ("avx2", "asimd", …); empty where nothing can be known."""
    listed, asked = listed_features(), asked_features()
    if asked is None:
        return listed
    known, has = asked
    if "asimd" in known or not listed:  # an emulator's list is of another machine, or there is none
        return has
    return listed - (known - has)


def listed_features() -> frozenset[str]:
    """What /proc/cpuinfo lists for every one of its CPUs; empty where there is no such file."""
    found = re.findall(r"^(?:flags|Features)\s*:(.*)$", _cpuinfo(), re.MULTILINE)
    return frozenset.intersection(*(frozenset(line.split()) for line in found)) if found else frozenset()


def asked_features() -> tuple[frozenset[str], frozenset[str]] | None:
    """(features that could be asked for, those of them that CPU and kernel allow); None where the C library does not
    tell: on x86 that is glibc older than 2.33, or another C library.
    """
    try:
        library, machine = ctypes.CDLL(None), platform.machine()
        if machine == "aarch64" and sys.maxsize > 2**32:  # a 32-bit process gets bits of other meanings
            library.getauxval.argtypes, library.getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
            entry = library.getauxval
            return frozenset(_AARCH64), frozenset(f for f, (at, bit) in _AARCH64.items() if entry(at) >> bit & 1)
        if machine == "x86_64":
            leaf = library.__getattr__("__x86_get_cpuid_feature_leaf")
            leaf.argtypes, leaf.restype = [ctypes.c_uint], ctypes.POINTER(ctypes.c_uint32 * 8)  # the second 4: allowed
            return frozenset(_X86), frozenset(f for f, (at, r, bit) in _X86.items() if leaf(at)[0][4 + r] >> bit & 1)
    except (OSError, AttributeError):
        pass
    return None


def core() -> str:
    """Arm's name of the first core, such as "a53"; empty when it is another one. Good for a preference, no more."""
    found = re.search(r"^CPU part\s*:\s*(\S+)", _cpuinfo(), re.MULTILINE)
    return _CORES.get(found[1], "") if found else ""


def _cpuinfo() -> str:
    try:
        with open(CPUINFO) as f:
            return f.read()
    except OSError:
        return ""


def obstacle(program: Program) -> str | None:
    """Why `program` must not run on this machine; None when it may."""
    machine = platform.machine()
    if program.machine and program.machine != machine:
        return f"{program.target} is for {program.machine}, this is {machine}"
    missing = sorted(set(program.needs) - features())
    if missing:
        return f"{program.target} needs {', '.join(missing)}, which this CPU lacks"
    return None


def best(programs: Iterable[Program]) -> tuple[Program | None, str]:
    """Of the programs that may run here the one that uses most CPU features, and why; None and why when none may.

    Of equals it is the one tuned for this core, or the first. Beside one that may run, programs for other machines are
    no news.
    """
    asked = [(p, obstacle(p)) for p in programs]
    fit = [p for p, reason in asked if reason is None]
    if not fit:
        return None, "; ".join(reason for _, reason in asked if reason)
    here = core()
    chosen = max(fit, key=lambda p: (len(p.needs), bool(here) and p.target.endswith(f"-{here}")))
    uses = f"it uses {', '.join(chosen.needs)}" if chosen.needs else "it runs on any CPU of its kind"
    if here and chosen.target.endswith(f"-{here}"):
        uses += f" and is tuned for this core, {here}"
    refused = [reason for p, reason in asked if reason and p.machine in ("", platform.machine())]
    others = f" (not {'; '.join(refused)})" if refused else ""
    return chosen, f"{chosen.target}, because {uses}{others}"
