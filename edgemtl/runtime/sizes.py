"""Amounts of memory as people write and read them; MB is 10^6 bytes, MiB is 2^20."""

from __future__ import annotations

import re

from edgemtl.errors import BudgetError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_size(value: str | int) -> int:
    """Bytes of 48_000_000, "48MB", "1.5 GiB"; raises BudgetError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if found and found[2].lower() in _UNITS and (size := int(float(found[1]) * _UNITS[found[2].lower()])) > 0:
        return size
    raise BudgetError(f"{value!r} is no amount of memory; write it like 48MB, 64MiB or 48000000")


def show_size(size: int) -> str:
    """Like "24.3 MB", "36.9 kB" or "512 B"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
