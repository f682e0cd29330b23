"""What this CPU can do, as the kernel names it, so that no program meets an instruction that is missing."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from functools import cache

from edgemtl.bundle.manifest import Program

NOTABLE = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


@cache
def features() -> frozenset[str]:
    """Features of the first CPU in /proc/cpuinfo ("avx2", "asimd", …); empty where there is no such file."""
    try:
        with open("/proc/cpuinfo") as f:
            found = re.search(r"^(?:flags|Features)\s*:(.*)$", f.read(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


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
    """Of the programs that may run here the one that uses most CPU features, and why; None and why when none may."""
    programs = list(programs)
    refused = [reason for p in programs if (reason := obstacle(p))]
    fit = [p for p in programs if not obstacle(p)]
    if not fit:
        return None, "; ".join(refused)
    chosen = max(fit, key=lambda p: len(p.needs))  # the first of equals
    uses = f"it uses {', '.join(chosen.needs)}" if chosen.needs else "it runs on any CPU of its kind"
    others = f" (not {'; '.join(refused)})" if refused else ""
    return chosen, f"{chosen.target}, because {uses}{others}"
