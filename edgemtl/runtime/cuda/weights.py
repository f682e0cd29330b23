"""Weights in the GPU's memory: the trunk, and of every active task its gates, its head and the experts of its path.

The segments are those of edgemtl/runtime/mapping.py, each an allocation of its own. They go from the bundle's file
through two pinned buffers to the device, in a stream of their own, so that `map` returns while the last of them are
still on their way; what computes waits for `ready` on the device. Giving memory back may make the driver wait for all
that is under way, so dropped segments go at the next moment at which somebody waits anyhow: `sweep`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Set
from dataclasses import dataclass

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError
from edgemtl.runtime.cuda.driver import Bytes, Driver
from edgemtl.runtime.mapping import Segment, span
from edgemtl.runtime.residency import Residency, Share, ordered

STAGING = 4 << 20  # bytes of each pinned buffer


@dataclass
class Upload:
    """One copy to the device. `milliseconds` is how long it took there; waits for its end."""

    size: int
    driver: Driver
    begin: int
    end: int

    @property
    def milliseconds(self) -> float:
        self.driver.arrived(self.end)
        return self.driver.milliseconds(self.begin, self.end)


class DeviceWeights:
    """Like `edgemtl.runtime.mapping.WeightMap`, but `get` gives device addresses."""

    def __init__(self, driver: Driver, bundle: Bundle) -> None:
        self._driver, self._bundle = driver, bundle
        self._at: dict[Segment, int] = {}
        self._dropped: list[int] = []  # addresses that nobody uses, not given back yet
        self._stream = driver.stream()
        self._staging: list[Bytes] = []
        self._free: list[int] = []  # an event for each buffer: its last copy has been made
        self._begin, self.ready = driver.event(), driver.event()
        self.upload: Upload | None = None  # the last one

    @property
    def held(self) -> frozenset[Segment]:
        return frozenset(self._at)

    def map(self, wanted: Iterable[Segment]) -> None:
        """Bring segments not yet there; all or none. Raises BackendError where memory runs out, and BundleError."""
        new = sorted(segment for segment in wanted if segment not in self._at)
        if not new:
            return
        for segment in new:
            self._bundle.use(segment.part)
        self.sweep()
        made: dict[Segment, int] = {}
        with self._driver.entered():
            try:
                for segment in new:
                    made[segment] = self._driver.alloc(span(self._bundle, segment)[1])
                self._make_buffers()
                self._driver.record(self._begin, self._stream)
                for segment, address in made.items():
                    self._send(segment, address)
                self._driver.record(self.ready, self._stream)
            except BaseException:
                self._driver.synchronize(self._stream)
                for address in made.values():
                    self._driver.free(address)
                raise
        self._at |= made
        size = sum(span(self._bundle, segment)[1] for segment in made)
        self.upload = Upload(size, self._driver, self._begin, self.ready)

    def unmap(self, unwanted: Iterable[Segment]) -> None:
        """Forget segments, which nothing may be reading; `sweep` gives their memory back."""
        self._dropped += [self._at.pop(segment) for segment in list(unwanted)]

    def prefault(self, wanted: Iterable[Segment]) -> None:
        """They are on their way already."""

    def settle(self, wanted: Set[Segment]) -> None:
        """What computes waits on the device."""

    def sweep(self) -> None:
        """Give back the memory of what was dropped; waits for uploads that are under way."""
        if not self._dropped:
            return
        with self._driver.entered():
            self._driver.synchronize(self._stream)
            while self._dropped:
                self._driver.free(self._dropped.pop())

    def get(self, part: str, tensor: str) -> int:
        """Device address of one weight."""
        segment = Segment(part, tensor if part.startswith("experts.") else "")
        return self._at[segment] + self._bundle.parts[part][tensor].offset - span(self._bundle, segment)[0]

    def residency(self, model: int) -> Residency:
        """Counted from the allocations, after `sweep`; a bundle with `model` bytes of weights."""
        self.sweep()
        groups: dict[str, Share] = {}
        for segment in self._at:
            size = span(self._bundle, segment)[1]
            before = groups.get(segment.group, Share(0, 0))
            groups[segment.group] = Share((before.resident or 0) + size, before.mapped + size)
        return Residency("device", ordered(groups), model)

    def close(self) -> None:
        """Give everything back."""
        self.unmap(self.held)
        self.sweep()
        for buffer in self._staging:
            self._driver.free_pinned(buffer)
        for event in (*self._free, self._begin, self.ready):
            self._driver.end_event(event)
        self._driver.end_stream(self._stream)
        self._staging, self._free = [], []

    def _make_buffers(self) -> None:
        """Before the clock of an upload starts."""
        if not self._staging:
            self._staging = [self._driver.pinned(STAGING) for _ in range(2)]
            self._free = [self._driver.event() for _ in range(2)]
            self._turn = 0

    def _send(self, segment: Segment, address: int) -> None:
        """Submit the copies of one segment, a buffer full at a time, each buffer as soon as it is free again."""
        start, size = span(self._bundle, segment)
        for at in range(0, size, STAGING):
            count, which = min(STAGING, size - at), self._turn % 2
            self._turn += 1
            self._driver.arrived(self._free[which])
            self._read(start + at, self._staging[which][:count])
            self._driver.upload(address + at, self._staging[which].ctypes.data, count, self._stream)
            self._driver.record(self._free[which], self._stream)

    def _read(self, offset: int, to: Bytes) -> None:
        """From the file straight into pinned memory."""
        done, view = 0, to.data
        while done < len(view):
            count = os.preadv(self._bundle.fd, [view[done:]], offset + done)
            if not count:
                raise BundleError(f"{self._bundle.path}: became shorter while it was being read")
            done += count
