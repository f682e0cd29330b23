"""What the machine and the kernel say: CPU, memory of this process, energy. What it can do at most: peak.py."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


def describe() -> dict[str, Any]:
    """The CPU's name, cores this process may use, its features that matter, and the load before the run."""
    from edgemtl.runtime import cpu

    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return {
        "cpu": found[1] if found else platform.processor() or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "features": sorted(cpu.features() & set(cpu.NOTABLE)),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def pin(threads: int) -> None:
    """Keep this process on `threads` CPUs, each of another core as far as they go; with more threads than CPUs, or
    where the system has no such call, nothing is pinned.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    mine = sorted(os.sched_getaffinity(0))
    cores: dict[str, int] = {}
    for cpu in mine:
        cores.setdefault(_siblings(cpu), cpu)
    first = list(cores.values())
    order = [*first, *(cpu for cpu in mine if cpu not in first)]
    if threads <= len(order):
        os.sched_setaffinity(0, order[:threads])


def _siblings(cpu: int) -> str:
    """The CPUs that share a core with `cpu`, as the kernel writes them."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def memory() -> dict[str, int]:
    """Bytes of this process: resident now, its anonymous part, and the peak; {} where /proc does not tell."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return {}
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "VmHWM": "peak"}
    return {names[k]: int(v) * 1024 for k, v in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE) if k in names}


class Energy:
    """Joules of the CPU packages by RAPL, where the kernel lets this user read them."""

    def __init__(self, root: Path = POWERCAP) -> None:
        zones = sorted(root.glob("intel-rapl:[0-9]*")) if root.is_dir() else []
        self._zones = [z for z in zones if z.name.count(":") == 1 and os.access(z / "energy_uj", os.R_OK)]
        self._start = self._read()

    @property
    def origin(self) -> str:
        """ "RAPL package" or "not measured"."""
        return "RAPL package" if self._zones else "not measured"

    def joules(self) -> float | None:
        """Since this object was made; None: not measured. A counter that wrapped around is counted once."""
        if not self._zones:
            return None
        total = 0.0
        for zone, before, now in zip(self._zones, self._start, self._read(), strict=True):
            wrap = int((zone / "max_energy_range_uj").read_text()) if now < before else 0
            total += 1e-6 * (now - before + wrap)
        return total

    def _read(self) -> list[int]:
        return [int((z / "energy_uj").read_text()) for z in self._zones]
