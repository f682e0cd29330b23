"""What a run of the camera demo measured: as plain data, as tables, and as a contact sheet."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edgemtl.errors import EdgeMTLError
from edgemtl.fpga import counters
from edgemtl.media.feed import Feed
from edgemtl.media.stage import Stage
from edgemtl.media.view import contact_sheet, percentiles

SHEET_TILES = 12


class Album:
    """Pictures for the contact sheet, spread over `expected` frames, and each task's resident weights."""

    def __init__(self, expected: int) -> None:
        self._every = max(1, expected // SHEET_TILES) if expected else 10
        self._seen: dict[str, int] = defaultdict(int)
        self.tiles: list[tuple[str, np.ndarray]] = []
        self.last: tuple[str, np.ndarray] | None = None
        self.resident: dict[str, int | None] = {}

    def note(self, stage: Stage, picture: np.ndarray) -> None:
        """A frame was shown."""
        task = " + ".join(stage.engine.active)
        self._seen[task] += 1
        if self._seen[task] == 2:  # the second frame after a first switch: everything it needs has been touched
            self.resident[task] = stage.engine.residency().resident
        self.last = task, picture
        fits = not self.tiles or self.tiles[0][1].shape == picture.shape
        if fits and (stage.frames - 1) % self._every == self._every // 2 and len(self.tiles) < SHEET_TILES:
            self.tiles.append(self.last)


def report(stage: Stage, album: Album, feed: Feed, seconds: float) -> dict[str, object]:
    """What the run measured, as plain data. Percentiles are of the last 65,536 frames at most."""
    ms = np.array(stage.milliseconds)
    p50, p95, p99 = percentiles(ms, (50, 95, 99))
    return {
        "frames": stage.frames,
        "dropped": feed.dropped,
        "frames_per_second": stage.frames / seconds if seconds else 0.0,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "backend": stage.engine.backend,
        "total_weight_bytes": stage.engine.residency().model,
        "resident_bytes": album.resident,
        "switches": [s.as_dict() for s in stage.engine.switches],
        "counters": {t: c.as_dict() for t, c in stage.output.timing.counts.items()} if stage.output else {},
    }


SAVED = ("sheet.png", "report.json")


def make(folder: Path) -> None:
    """The folder for what `save` writes. Raises EdgeMTLError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EdgeMTLError(f"cannot make the folder {folder}: {e.strerror or e}") from None


def save(folder: Path, found: dict[str, Any], album: Album) -> None:
    """The contact sheet and the report as files. Raises EdgeMTLError when they cannot be written."""
    assert album.last is not None
    sheet = contact_sheet(album.tiles or [album.last], columns=2)
    try:
        (folder / SAVED[0]).write_bytes(cv2.imencode(".png", sheet)[1].tobytes())
        (folder / SAVED[1]).write_text(json.dumps(found, indent=1))
    except OSError as e:
        raise EdgeMTLError(f"cannot write sheet.png and report.json into {folder}: {e.strerror or e}") from None


def print_report(found: dict[str, Any], console: Console) -> None:
    """The table after the last frame."""
    console.print("frames/s: decoding, engine, drawing and writing; ms: the engine's call and the map's colours alone")
    simulated = found["backend"] == "fpga-sim"
    where = "simulated, and no measure of a board" if simulated else "measured on this machine"
    table = Table(title=f"{where}, {found['backend']}")
    for head in ("frames", "dropped", "frames/s overall", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(head, justify="right")
    cells = [f"{found[k]:.1f}" for k in ("frames_per_second", "p50_ms", "p95_ms", "p99_ms")]
    table.add_row(str(found["frames"]), str(found["dropped"]), *cells)
    console.print(table)

    if found["counters"]:
        _print_board(found, console)
    else:
        _print_weights(found, console)


def _print_weights(found: dict[str, Any], console: Console) -> None:
    """Resident weights, and what switches mapped and let go."""
    whole = found["total_weight_bytes"]
    table = Table(title=f"resident weights with one task active, of {whole / 1e6:.2f} MB (measured: smaps)")
    table.add_column("task")
    table.add_column("resident", justify="right")
    table.add_column("share", justify="right")
    for task, size in found["resident_bytes"].items():
        known = size is not None
        table.add_row(task, f"{size / 1e6:.2f} MB" if known else "not measured", f"{size / whole:.1%}" if known else "")
    console.print(table)

    table = Table(title="task switches (measured)")
    for head in ("from", "to", "kind", "mapped", "dropped", "switch", "first frame more"):
        table.add_column(head, justify="left" if head in ("from", "to", "kind") else "right")
    for s in found["switches"]:
        mapped, dropped = (
            f"{s[k] / 1e6:.2f} MB" if s[k] is not None else "-" for k in ("bytes_mapped", "bytes_dropped")
        )
        penalty = s["first_frame_penalty_ms"]
        table.add_row(
            " ".join(s["from"]) or "-",
            " ".join(s["to"]),
            s["kind"],
            mapped,
            dropped,
            f"{s['activate_ms']:.2f} ms",
            "-" if penalty is None else f"{penalty:.2f} ms",
        )
    console.print(table)


def _print_board(found: dict[str, Any], console: Console) -> None:
    """What an accelerator counted, and what switches wrote to it."""
    for task, counted in found["counters"].items():
        console.print(f"the accelerator's counters of the last frame, {task}:")
        for line in counters.lines(counted):
            console.print(f"  {line}", highlight=False, soft_wrap=True)
    table = Table(title="task switches; written: by the first frame, beside its pixels (counted)")
    for head in ("from", "to", "written"):
        table.add_column(head, justify="right" if head == "written" else "left")
    for s in found["switches"]:
        table.add_row(" ".join(s["from"]) or "-", " ".join(s["to"]), f"{s['bytes_written']} bytes")
    console.print(table)
