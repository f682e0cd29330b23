"""The camera demo: frames in, the asked-for task's map beside them, tasks switched while it runs.

    python demos/camera.py build/rooms.edgemtl demos/rooms.mp4 --cycle 2 -o build/demo
    python demos/camera.py build/rooms.edgemtl 0                      # camera 0; keys switch the task
    python demos/camera.py build/rooms.edgemtl rtsp://192.0.2.7/stream --task depth

With a screen (and an OpenCV that has windows) it shows the picture; without one it writes a video and a contact sheet
into the output folder. Keys: 1 … 9 choose a task, n the next one, q ends; they work in the window, and in the terminal
when there is no window.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from keys import Keys
from rich.console import Console
from rich.table import Table

import edgemtl
from edgemtl.bench.stats import percentile
from edgemtl.errors import EdgeMTLError
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.output import Output, Timing
from edgemtl.sinks import Video
from edgemtl.sources import Source, open_source
from edgemtl.view import contact_sheet, label

SHEET_TILES = 12
FALLBACK_FPS = 15.0


class Show:
    """The demo's state: which task is asked for, what was measured, and the tiles of the contact sheet."""

    def __init__(self, engine: Engine, tasks: list[str], cycle: float | None, expected: int | None) -> None:
        self.engine, self.tasks, self.cycle = engine, tasks, cycle
        self.milliseconds: list[float] = []
        self.resident: dict[str, int | None] = {}
        self.tiles: list[tuple[str, np.ndarray]] = []
        self.last: tuple[str, np.ndarray] | None = None
        self.every = max(1, (expected or 0) // SHEET_TILES) if expected else 10
        self.seen: dict[str, int] = defaultdict(int)

    def choose(self, clock: float, key: str) -> bool:
        """Switch the task if the time or a key asks for it; False when the key ends the demo."""
        current = self.tasks.index(self.engine.active[0])
        wanted = current
        if self.cycle:
            wanted = int(clock / self.cycle) % len(self.tasks)
        if key.isdigit() and 1 <= int(key) <= len(self.tasks):
            wanted, self.cycle = int(key) - 1, None
        elif key == "n":
            wanted, self.cycle = (current + 1) % len(self.tasks), None
        if wanted != current:
            self.engine.activate(self.tasks[wanted])
        return key not in ("q", "\x1b")

    def frame(self, image: np.ndarray) -> np.ndarray:
        """The frame and its map side by side, drawn."""
        began = time.perf_counter()
        out = self.engine(image, color="bgr")
        task = self.engine.active[0]
        drawn = out[task].colour()
        milliseconds = 1e3 * (time.perf_counter() - began)
        self.milliseconds.append(milliseconds)
        self.seen[task] += 1
        if self.seen[task] == 2:  # the second frame after a first switch: everything it needs has been touched
            self.resident[task] = self.engine.residency().resident
        pair = np.hstack([image, drawn])
        self.last = (task, pair)
        if (len(self.milliseconds) - 1) % self.every == self.every // 2 and len(self.tiles) < SHEET_TILES:
            self.tiles.append((task, pair))
        return label(pair, f"{task}  {milliseconds:.1f} ms")


def report(show: Show, seconds: float, dropped: int) -> dict[str, object]:
    """What the run measured, as plain data."""
    ms = show.milliseconds
    return {
        "frames": len(ms),
        "dropped": dropped,
        "frames_per_second": len(ms) / seconds if seconds else 0.0,
        **{f"p{round(100 * q)}_ms": percentile(ms, q) for q in (0.5, 0.95, 0.99)},
        "backend": show.engine.backend,
        "total_weight_bytes": show.engine.residency().model,
        "resident_bytes": show.resident,
        "switches": [s.as_dict() for s in show.engine.switches],
    }


def print_report(found: dict, console: Console) -> None:
    """The table after the last frame."""
    console.print("frames/s: decoding, engine, drawing and writing; ms: the engine's call and the map's colours alone")
    table = Table(title=f"measured on this machine, {found['backend']}")
    for head in ("frames", "dropped", "frames/s overall", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(head, justify="right")
    cells = [f"{found[k]:.1f}" for k in ("frames_per_second", "p50_ms", "p95_ms", "p99_ms")]
    table.add_row(str(found["frames"]), str(found["dropped"]), *cells)
    console.print(table)

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


def play(show: Show, source: Source, out: Path | None, window: bool, limit: int | None) -> float:
    """Run until the source, the user or `limit` ends it; returns wall seconds from the first frame to the last."""
    fps = source.fps or FALLBACK_FPS
    writer = None
    began = time.perf_counter()
    try:
        with Keys(window) as keys:
            for index, frame in enumerate(source):
                clock = time.perf_counter() - began if source.live else index / fps
                if not show.choose(clock, keys.pressed()):
                    break
                pair = show.frame(frame.image)
                if window:
                    cv2.imshow("edgemtl", pair)
                elif out is not None:
                    writer = writer or Video(out / "demo.mp4", fps)
                    writer.put(frame, Output({}, Timing(0.0, {}, 0.0)), pair)
                if limit is not None and index + 1 >= limit:
                    break
    except KeyboardInterrupt:
        print("stopped; what was seen so far is kept", file=sys.stderr)
    finally:
        seconds = time.perf_counter() - began
        if writer is not None:
            writer.close()
            seconds = time.perf_counter() - began
    return seconds


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    bundle: Path,
    source: Annotated[str, typer.Argument(help="Camera number, video, image, folder of images, or rtsp:// address.")],
    task: Annotated[list[str] | None, typer.Option(help="Tasks to offer, the first one first (default: all).")] = None,
    cycle: Annotated[float | None, typer.Option(help="Switch to the next task every so many seconds.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for video, contact sheet, report.")] = None,
    backend: str | None = None,
    threads: int | None = None,
    memory_budget: str | None = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    window: Annotated[bool | None, typer.Option(help="Show a window (default: if there is a screen).")] = None,
) -> None:
    """Run BUNDLE on SOURCE, one task at a time."""
    console = Console()
    with edgemtl.load(bundle, backend=backend, threads=threads, memory_budget=memory_budget) as engine:
        tasks = task or list(engine.tasks)
        engine.activate(tasks[0])
        console.print(f"{engine!r}\n{engine.why}")
        with open_source(source) as frames:
            shown = Keys.screen() if window is None and out is None else bool(window)
            if out is None and not shown:
                out = Path("demo-out")
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
            show = Show(engine, tasks, cycle, min(filter(None, (frames.count, limit)), default=None))
            seconds = play(show, frames, out, shown, limit)
            dropped = frames.dropped
        if show.last is None:
            raise EdgeMTLError(f"{source} gave no frame; nothing was written")
        found = report(show, seconds, dropped)
    print_report(found, console)
    if out is not None:
        cv2.imwrite(str(out / "sheet.png"), contact_sheet(show.tiles or [show.last], columns=2))
        (out / "report.json").write_text(json.dumps(found, indent=1))
        made = [p for p in sorted(out.iterdir()) if p.name in ("sheet.png", "report.json") or p.stem == "demo"]
        console.print("pictures: " + ", ".join(str(p) for p in made))


if __name__ == "__main__":
    try:
        app()
    except EdgeMTLError as e:
        sys.exit(f"error: {e}")
