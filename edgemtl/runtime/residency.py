"""How many bytes of the mapped weights are in memory, as the kernel tells it.

/proc/self/smaps gives the resident size of every mapping of the process. Where the kernel has merged two neighbouring
mappings into one line, /proc/self/pagemap tells page by page; where that is not readable either, the merged line's
size is an upper bound for each, and `exact` is False.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from mmap import PAGESIZE
from typing import Any

import numpy as np

from edgemtl.runtime.sizes import show_size

_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) |^Rss:\s+(\d+) kB", re.MULTILINE)
Range = tuple[str, int, int]  # group, first address, end address


@dataclass(frozen=True)
class Share:
    """Bytes of one group of weights: `resident` in memory (None: not measured), `mapped` in all."""

    resident: int | None
    mapped: int


@dataclass(frozen=True)
class Residency:
    """What is mapped and resident now.

    `groups` has "trunk", each active task (its gates and head) and "experts"; `model` is the bytes of all weights in
    the bundle; `origin` is "smaps", "device" (counted in a GPU's memory) or "not measured", and `note` says why or what
    to mind.
    """

    origin: str
    groups: dict[str, Share] = field(default_factory=dict)
    model: int = 0
    exact: bool = True
    note: str = ""

    @property
    def resident(self) -> int | None:
        """Bytes in memory over all groups; None: not measured."""
        known = [s.resident for s in self.groups.values() if s.resident is not None]
        return None if self.origin == "not measured" else sum(known)

    @property
    def mapped(self) -> int:
        return sum(s.mapped for s in self.groups.values())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "origin": self.origin,
            "exact": self.exact,
            "note": self.note,
            "resident_bytes": self.resident,
            "mapped_bytes": self.mapped,
            "model_bytes": self.model,
            "groups": {name: {"resident": s.resident, "mapped": s.mapped} for name, s in self.groups.items()},
        }

    def __str__(self) -> str:
        if self.resident is None:
            return f"weights resident: not measured ({self.note}); {show_size(self.model)} in the bundle"
        return (
            f"weights resident: {show_size(self.resident)} of {show_size(self.mapped)} mapped,"
            f" {show_size(self.model)} in the bundle ({self.origin}{'' if self.exact else ', upper bound'})"
        )


def measure(ranges: Iterable[Range], model: int) -> Residency:
    """The residency of mapped address ranges, in a bundle with `model` bytes of weights."""
    ranges = list(ranges)
    try:
        with open("/proc/self/smaps") as f:
            lines = list(areas(f.read()))
    except OSError as e:
        groups: dict[str, Share] = {}
        for group, start, end in ranges:
            before = groups.get(group, Share(None, 0))
            groups[group] = Share(None, before.mapped + end - start)
        return Residency("not measured", ordered(groups), model, note=f"/proc/self/smaps: {e.strerror}")
    return attribute(ranges, lines, model, present_bytes)


def areas(smaps: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, resident bytes) of every mapping in the text of a smaps file."""
    start = end = 0
    for found in _LINE.finditer(smaps):
        if found[1]:
            start, end = int(found[1], 16), int(found[2], 16)
        else:
            yield start, end, int(found[3]) * 1024


def attribute(
    ranges: Iterable[Range],
    lines: Iterable[tuple[int, int, int]],
    model: int,
    present: Callable[[int, int], int | None],
) -> Residency:
    """Give each range the resident bytes of its lines; `present(start, end)` is asked where a line is wider."""
    lines = sorted(lines)
    starts = np.array([line[0] for line in lines], np.uint64)
    groups: dict[str, Share] = {}
    exact = True
    for group, start, end in ranges:
        resident = 0
        at = max(0, int(np.searchsorted(starts, np.uint64(start), "right")) - 1)
        while at < len(lines) and lines[at][0] < end:
            low, high, size = lines[at]
            at += 1
            if high <= start:
                continue
            if low < start or high > _page_end(end):
                counted = present(max(low, start), min(high, end))
                exact &= counted is not None
                size = min(size, min(high, end) - max(low, start)) if counted is None else counted
            resident += size
        before = groups.get(group, Share(0, 0))
        groups[group] = Share((before.resident or 0) + resident, before.mapped + end - start)
    return Residency("smaps", ordered(groups), model, exact)


def ordered(groups: dict[str, Share]) -> dict[str, Share]:
    """The trunk first, the experts last."""
    return dict(sorted(groups.items(), key=lambda g: (g[0] != "trunk", g[0] == "experts")))


def present_bytes(start: int, end: int) -> int | None:
    """Bytes of the pages in memory between two addresses, by /proc/self/pagemap; None when it cannot be read."""
    first, count = start // PAGESIZE, -(-(end - start) // PAGESIZE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as f:
            f.seek(8 * first)
            data = f.read(8 * count)
    except OSError:
        return None
    if len(data) != 8 * count:
        return None
    entries: np.ndarray[Any, np.dtype[np.uint64]] = np.frombuffer(data, np.uint64)
    return int(np.count_nonzero(entries >> np.uint64(63))) * PAGESIZE


def _page_end(address: int) -> int:
    return -(-address // PAGESIZE) * PAGESIZE
