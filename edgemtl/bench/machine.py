"""What the machine and the kernel say: CPU, memory of this process. What it can do at most: peak.py."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """The CPU's name, cores this process may use, its features that matter, and the load before the run."""
    from edgemtl.runtime import cpu

    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return {
        "cpu": found[1] if found else platform.processor() or platform.machine(),
        "cpus": cpu.count(),
        "features": sorted(cpu.features() & set(cpu.NOTABLE)),
        "load": os.getloadavg()[0],
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
