"""Holds measuring processes to the instructions of a target, whatever library they load.

A library that is loaded before all others answers CPUID in the CPU's place (kernels/held.cc). edgemtl needs none of it,
since its programs are built for the target. On a CPU that has no more than the target there is nothing to hide.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemtl.bench.peak import build

HELD = "x86_64-avx2"


def variables(target: str, folder: Path) -> dict[str, str]:
    """Of a process that is to be held to `target`, "cpu" being all there is. The library is built into `folder`. Raises
    CompileError where it cannot be built.
    """
    if target != HELD:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    library = build("held.cc", folder / "held.so", target).resolve()
    return {"LD_PRELOAD": str(library)}


def need(want: Mapping[str, Any]) -> None:
    """Raise RuntimeError unless this process is held to the request's target."""
    target = want.get("target", "cpu")
    held = getattr(ctypes.CDLL(None), "edgemtl_held", None)
    if target != "cpu" and not (target == HELD and held and held()):
        raise RuntimeError(f"left out: nothing holds it to {target} here (CPUID cannot be made to fault)")
