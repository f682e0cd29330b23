"""The record of each change of the active tasks: what it moved, how long it took, what the first frame paid."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgemtl.runtime.cuda.weights import Upload

WINDOW = 64  # later frames kept for the median
ENOUGH = 3  # of them before it means anything


@dataclass
class Switch:
    """One change of the active tasks.

    kind: "cold" when a task was made ready for the first time in this engine (its code was loaded), else "warm".
    mapped, dropped: bytes of weights newly mapped (0 of a prepared path) and unmapped; None where the backend keeps its
    own copies.
    seconds: duration of `activate`.
    upload_ms: how long copies to a GPU took there, beside the host's work; known from the first frame on.
    written: bytes that the first frame wrote to an accelerator beside its pixels: registers; None for other backends.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    kind: Literal["cold", "warm"]
    mapped: int | None = None
    dropped: int | None = None
    seconds: float = 0.0
    first_frame_ms: float | None = None
    written: int | None = None
    upload_ms: float | None = None
    upload: Upload | None = field(default=None, repr=False)
    _later: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW), repr=False)

    def frame(self, ms: float, written: int | None = None) -> None:
        """Note a frame's duration, and bytes written, under the set of tasks that this switch led to."""
        if self.first_frame_ms is None:
            self.first_frame_ms, self.written = ms, written
            self.upload_ms = self.upload.milliseconds if self.upload else None
        else:
            self._later.append(ms)

    @property
    def first_frame_penalty_ms(self) -> float | None:
        """First frame minus the median of up to 64 latest ones of the same set; None until three of them ran."""
        if self.first_frame_ms is None or len(self._later) < ENOUGH:
            return None
        return self.first_frame_ms - statistics.median(self._later)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "from": list(self.before),
            "to": list(self.after),
            "kind": self.kind,
            "bytes_mapped": self.mapped,
            "bytes_dropped": self.dropped,
            "bytes_written": self.written,
            "upload_ms": self.upload_ms,
            "activate_ms": 1e3 * self.seconds,
            "first_frame_ms": self.first_frame_ms,
            "first_frame_penalty_ms": self.first_frame_penalty_ms,
        }
