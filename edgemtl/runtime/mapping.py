"""Which weights are mapped: the trunk, and of every active task its gates, its head and the experts of its path.

Each of them is a mapping of its own: the kernel reads ahead around a fault (64 KiB on Linux) but never beyond a
mapping, so what is not asked for does not become resident. Leaving a task unmaps what no other active task needs.
Mappings are private and copy-on-write, because DLPack has no read-only arrays everywhere; nothing writes to them.
"""

from __future__ import annotations

import gc
import mmap
from collections.abc import Iterable, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from edgemtl.bundle.reader import Bundle
from edgemtl.config import ModelConfig
from edgemtl.errors import BudgetError, BundleError
from edgemtl.runtime.prefault import Prefault, address
from edgemtl.runtime.residency import Range, Residency, measure
from edgemtl.runtime.sizes import show_size

Packed = np.ndarray[Any, np.dtype[Any]]


class Segment(NamedTuple):
    """What is mapped as one: a whole part (`tensor` empty), or one expert's slot of a part."""

    part: str
    tensor: str = ""

    @property
    def group(self) -> str:
        """The name under which people see it: "trunk", "experts", or the task of gates and head."""
        return self.part.split(".", 1)[1] if self.part.startswith("task.") else self.part.split(".", 1)[0]


def segments(config: ModelConfig, tasks: Iterable[str]) -> set[Segment]:
    """Everything that `tasks` need."""
    out = set()
    for task in tasks:
        out |= {Segment("trunk"), Segment(f"task.{task}")}
        for block, experts in zip(config.moe_blocks, config.path(task), strict=True):
            out |= {Segment(f"experts.{block}", str(e)) for e in experts}
    return out


def span(bundle: Bundle, segment: Segment) -> tuple[int, int]:
    """Offset in the file and size in bytes of a segment."""
    places = bundle.parts[segment.part]
    if segment.tensor:
        return places[segment.tensor].offset, places[segment.tensor].size
    start = min(p.offset for p in places.values())
    return start, max(p.offset + p.size for p in places.values()) - start


def sizes(bundle: Bundle, wanted: Iterable[Segment]) -> dict[str, int]:
    """Bytes by group, in this order: "trunk", each task, "experts"."""
    out: dict[str, int] = {}
    for segment in sorted(wanted, key=lambda s: (s.part != "trunk", bool(s.tensor), s)):
        out[segment.group] = out.get(segment.group, 0) + span(bundle, segment)[1]
    return out


def check_budget(bundle: Bundle, tasks: Iterable[str], budget: int | None, called: Sequence[str] | None = None) -> None:
    """Raises BudgetError, with the sum written out, when the weights of `tasks` are more than `budget` bytes.

    called: what to call the tasks in it.
    """
    tasks = tuple(tasks)
    by_group = sizes(bundle, segments(bundle.manifest.model, tasks))
    total = sum(by_group.values())
    if budget is None or total <= budget:
        return
    experts = by_group.pop("experts", 0)
    terms = [f"{'trunk' if g == 'trunk' else f'{g} gates and head'} {show_size(n)}" for g, n in by_group.items()]
    terms.append(f"experts {show_size(experts)}")
    raise BudgetError(
        f"{' and '.join(called or tasks)} would need {' + '.join(terms)} = {show_size(total)}, which is more than the"
        f" memory budget of {show_size(budget)} ({total} > {budget} bytes)"
    )


class WeightMap:
    """The mapped segments of one bundle.

    `get` hands out views without copying. A segment can be unmapped only when no view of it is left; one that still
    has views (an exception's traceback may hold some) is kept in `leaving`, counted, and tried again later.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.upload = None  # nothing goes to a device
        self._bundle = bundle
        self._maps: dict[Segment, mmap.mmap] = {}
        self._leaving: list[tuple[Segment, mmap.mmap]] = []
        self._ahead: tuple[frozenset[Segment], Prefault] | None = None  # what is read ahead, or was

    @property
    def held(self) -> frozenset[Segment]:
        return frozenset(self._maps)

    def map(self, wanted: Iterable[Segment]) -> None:
        """Map segments not yet mapped; all or none. Raises BundleError where the system refuses."""
        new: dict[Segment, mmap.mmap] = {}
        try:
            for segment in sorted(wanted):
                if segment not in self._maps:
                    self._bundle.use(segment.part)
                    start, size = span(self._bundle, segment)
                    slack = start % mmap.ALLOCATIONGRANULARITY  # 0 unless the machine's pages are larger than 4 KiB
                    new[segment] = mmap.mmap(
                        self._bundle.fd, size + slack, access=mmap.ACCESS_COPY, offset=start - slack
                    )
        except (OSError, ValueError) as e:
            for m in new.values():
                m.close()
            raise BundleError(f"{self._bundle.path}: cannot map {segment.part}: {e}") from None
        self._maps |= new

    def unmap(self, unwanted: Iterable[Segment]) -> None:
        """Unmap segments; their views must be gone. Ends a `prefault` that may be reading one of them."""
        unwanted = frozenset(unwanted)
        if self._ahead and not unwanted.isdisjoint(self._ahead[0]):
            self._ahead[1].stop()
            self._ahead = None
        for segment in unwanted:
            self._leaving.append((segment, self._maps.pop(segment)))
        left = [pair for pair in self._leaving if not _closed(pair[1])]
        if left:
            gc.collect()  # views in reference cycles
            left = [pair for pair in left if not _closed(pair[1])]
        self._leaving = left

    def prefault(self, wanted: Iterable[Segment]) -> None:
        """Begin to read mapped segments into memory, in a thread. Raises RuntimeError where there is none."""
        if self._ahead:
            self._ahead[1].stop()
        segments = frozenset(wanted)
        self._ahead = segments, Prefault(self._maps[segment] for segment in sorted(segments))
        self._ahead[1].start()

    def settle(self, wanted: Set[Segment]) -> None:
        """Wait for the end of a `prefault`, if all that it reads is wanted."""
        if self._ahead and self._ahead[0] <= wanted:
            self._ahead[1].wait()

    def get(self, part: str, tensor: str) -> Packed:
        """A view of one mapped weight, in its type, 1-D, 64-byte aligned. Keep it only while its task is active."""
        segment = Segment(part, tensor if part.startswith("experts.") else "")
        place = self._bundle.parts[part][tensor]
        start = span(self._bundle, segment)[0]
        mapped = self._maps[segment]
        return np.frombuffer(
            mapped, place.dtype, place.size // place.dtype.itemsize, place.offset - start + _slack(start)
        )

    def residency(self, model: int) -> Residency:
        """Of everything mapped, in a bundle with `model` bytes of weights."""
        return measure(self.ranges(), model)

    def ranges(self) -> list[Range]:
        """(group, first address, end address) of everything mapped, in whole pages, what is leaving included."""
        out = []
        for segment, mapped in (*self._maps.items(), *self._leaving):
            start = address(mapped)
            out.append((segment.group, start, start - -len(mapped) // mmap.PAGESIZE * mmap.PAGESIZE))
        return out


def _slack(start: int) -> int:
    return start % mmap.ALLOCATIONGRANULARITY


def _closed(mapped: mmap.mmap) -> bool:
    try:
        mapped.close()
    except BufferError:  # views of it exist
        return False
    return True
