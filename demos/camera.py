"""The camera demo: frames in, the asked-for task's map out, tasks switched while it runs.

    python demos/camera.py build/rooms.edgemtl 0 --web                # a page in the browser, on this machine only
    python demos/camera.py build/rooms.edgemtl 0                      # a window; keys switch the task
    python demos/camera.py build/rooms.edgemtl rtsp://192.0.2.7/stream --task depth --record seen.mp4
    python demos/camera.py build/rooms.edgemtl demos/homes.mp4 --cycle 2 -o build/demo

Without a page and without a screen it writes a video, a contact sheet and a report into the output folder. Keys: 1 … 9
choose a task, n the next one, s sets a second one beside it, e the expert map, q ends; they work in the window, and in
the terminal when there is no window. See docs/camera.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from keys import WINDOW, Keys
from report import SAVED, Album, make, print_report, report, save
from rerun_log import RerunLog
from rich.console import Console

import edgemtl
from edgemtl.errors import EdgeMTLError, FrameError
from edgemtl.media.feed import Feed, Frame, Policy
from edgemtl.media.sinks import Recorder, check_free
from edgemtl.media.sources import is_live, open_feed
from edgemtl.media.stage import Stage, Tile, compose
from edgemtl.web.hub import Hub
from edgemtl.web.server import Server, parse_address, warning

CLIP = Path(__file__).with_name("homes.mp4")
FALLBACK_FPS = 15.0
PATIENCE = 0.1  # seconds to wait for a frame before looking at keys and commands again
JPEG_QUALITY = 80
ERROR_SECONDS = 6.0  # that a refusal stays on the page


class Show:
    """One run of the demo: where pictures go, and what keys, browsers and the clock ask for."""

    def __init__(
        self,
        stage: Stage,
        feed: Feed,
        *,
        cycle: float | None = None,
        window: bool = False,
        hub: Hub | None = None,
        recorder: Recorder | None = None,
        log: RerunLog | None = None,
        album: Album,
    ) -> None:
        self.stage, self.feed, self.cycle = stage, feed, cycle
        self.window, self.hub, self.recorder, self.log, self.album = window, hub, recorder, log, album
        self.watched = window or hub is not None
        self._error, self._error_until = "", 0.0
        self._told = "live"
        self._began = time.monotonic()

    def play(self, keys: Keys, limit: int | None) -> None:
        """Run until the source, the user or `limit` ends it. A page stays up when its source has ended."""
        last: Frame | None = None
        while limit is None or self.stage.frames < limit:
            key = keys.pressed()
            if key in ("q", "\x1b"):
                return
            changed = self.obey(key)
            frame = self.feed.take(PATIENCE)
            self.tell()
            if frame is None:
                if self.feed.ended and self.hub is None:
                    return
                if changed and last is not None:  # nothing new to see, but another way to see it
                    self.put(last._replace(taken=0.0))
                elif self.hub is not None:
                    self.hub.publish(None, self.figures())
                continue
            self.turn(frame)
            self.put(frame)
            last = frame

    def obey(self, key: str) -> bool:
        """Do what a key or the browsers ask for; True when something changed."""
        stage, before = self.stage, (self.stage.engine.active, self.stage.blend, self.stage.experts)
        with self.refusals():
            current = stage.tasks.index(stage.engine.active[0])
            following = stage.tasks[(current + 1) % len(stage.tasks)]
            if key.isdigit() and 1 <= int(key) <= len(stage.tasks):
                self.select(stage.tasks[int(key) - 1])
            elif key == "n":
                self.select(following)
            elif key == "s":
                pair = len(stage.engine.active) == 1 and len(stage.tasks) > 1
                self.select(*stage.engine.active[:1], *([following] if pair else []))
            elif key == "e" and not stage.no_experts:
                blocks = (None, *stage.engine.manifest.model.moe_blocks)
                stage.experts = blocks[(blocks.index(stage.experts) + 1) % len(blocks)]
        for command in self.hub.commands() if self.hub else ():
            with self.refusals():
                stage.apply(command.blend, command.experts)
                if command.tasks is not None:
                    self.select(*dict.fromkeys(command.tasks))
        return before != (stage.engine.active, stage.blend, stage.experts)

    def select(self, *tasks: str) -> None:
        """A choice made by hand also ends the cycling."""
        self.stage.select(*tasks)
        self.cycle = None

    def turn(self, frame: Frame) -> None:
        """Switch the task when its time on the cycle is over: the recording's own time, or the clock's."""
        if not self.cycle:
            return
        if self.watched or self.feed.live:
            clock = time.monotonic() - self._began
        else:
            clock = self.stage.frames / (self.feed.fps or FALLBACK_FPS)
        self.stage.select(self.stage.tasks[int(clock / self.cycle) % len(self.stage.tasks)])

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """An impossible wish is told, and the show goes on."""
        try:
            yield
        except EdgeMTLError as e:
            self._error, self._error_until = str(e), time.monotonic() + ERROR_SECONDS
            if self.hub is None:
                print(e, file=sys.stderr)

    def tell(self) -> None:
        """Say in the terminal when the source is lost and when it is back."""
        status = self.feed.status
        if status.state != self._told and status.state != "ended":
            self._told = status.state
            print(status.text or f"{self.feed.name} gives frames again", file=sys.stderr)

    def put(self, frame: Frame) -> None:
        """Run the engine on a frame and send the picture everywhere it goes."""
        tiles = self.stage.show(frame)
        self.album.note(self.stage, compose(tiles, titles=False, strips=False))
        if self.hub is not None:
            data = None
            if self.hub.watched:
                plain = compose(tiles, titles=len(tiles) > 1, strips=False)  # the page itself says what colours mean
                data = cv2.imencode(".jpg", plain, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
            self.hub.publish(data, self.figures())
        if self.window or self.recorder is not None:
            self.draw(frame, tiles)
        if self.log is not None:
            with self.writing():
                self.log.put(frame, self.stage)

    def draw(self, frame: Frame, tiles: list[Tile]) -> None:
        picture = compose(tiles)
        if self.window:
            cv2.imshow(WINDOW, picture)
        if self.recorder is not None:
            batch = not (self.watched or self.feed.live)
            seconds = self.stage.frames / (self.feed.fps or FALLBACK_FPS) if batch else time.monotonic() - self._began
            with self.writing():
                self.recorder.put(picture, seconds)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A full disk ends the recordings, not a show that somebody watches."""
        try:
            yield
        except FrameError as e:
            self.finish()
            if not self.watched:
                raise
            self._error, self._error_until = str(e), time.monotonic() + ERROR_SECONDS
            print(e, file=sys.stderr)

    def finish(self) -> None:
        """Finish the recordings."""
        recorder, log = self.recorder, self.log
        self.recorder = self.log = None
        if recorder is not None:
            recorder.close()
        if log is not None:
            log.close()

    def figures(self) -> dict[str, Any]:
        status = self.feed.status
        source = {"name": self.feed.name, "state": status.state, "text": status.text, "dropped": self.feed.dropped}
        error = self._error if time.monotonic() < self._error_until else ""
        return {**self.stage.figures(), "source": source, "error": error}


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    bundle: Path,
    source: Annotated[
        str, typer.Argument(help="Camera number, /dev/video0, video, image, folder, rtsp:// or http:// address.")
    ] = str(CLIP),
    task: Annotated[list[str] | None, typer.Option(help="Tasks to offer, the first one first (default: all).")] = None,
    cycle: Annotated[float | None, typer.Option(help="Switch to the next task every so many seconds.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a live page, on this machine only.")] = False,
    address: Annotated[str, typer.Option(help="Where --web serves; another address opens it to the network.")] = (
        "127.0.0.1:8000"
    ),
    window: Annotated[bool | None, typer.Option(help="Show a window (default: if there is a screen).")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for video, contact sheet, report.")] = None,
    record: Annotated[Path | None, typer.Option(help="Also write what is shown to this video (.mp4, .avi).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    rerun: Annotated[Path | None, typer.Option(help="Also log to this .rrd file, for the Rerun viewer.")] = None,
    policy: Annotated[
        str, typer.Option(help="newest: drop frames that come too fast; all: keep their order and fall behind.")
    ] = "",
    loop: Annotated[bool, typer.Option(help="With --web, begin a recording again at its end.")] = True,
    blend: Annotated[float, typer.Option(min=0, max=1, help="0: the camera, 1: the map.")] = 0.7,
    colormap: Annotated[str, typer.Option(help="Of depth: viridis, inferno, magma, cividis, turbo.")] = "viridis",
    depth_range: Annotated[str, typer.Option(help="Metres at its two ends, like 0,8 (default: follows).")] = "",
    backend: str | None = None,
    threads: int | None = None,
    memory_budget: str | None = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
) -> None:
    """Run BUNDLE on SOURCE (default: the rendered clip of a home), one or two tasks at a time."""
    console, place = Console(), parse_address(address)
    shown = False if web else Keys.screen() if window is None and out is None else bool(window)
    watched, keys = web or shown, Keys(shown)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the half frame at the end of a cut stream is no news
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # the demo says itself what cannot be opened
    limits = _range(depth_range)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(
            edgemtl.load(bundle, backend=backend, threads=threads, memory_budget=memory_budget)
        )
        stage = Stage(engine, task or engine.tasks, colormap=colormap, depth_limits=limits)
        stage.blend = blend if watched else 1.0
        stage.camera = not watched
        console.print(f"{engine!r}\n{engine.why}", highlight=False, markup=False)
        feed = stack.enter_context(
            open_feed(source, _policy(policy, watched or is_live(source)), paced=watched, loop=web and loop)
        )
        if out is None and not watched and record is None:
            out = Path("demo-out")
        if out is not None:
            make(out)
            for name in SAVED:
                check_free(out / name, overwrite)
            record = record or (None if watched else out / "demo.mp4")
        album = Album(min(filter(None, (feed.count, limit)), default=0))
        recorder = Recorder(record, feed.fps or FALLBACK_FPS, overwrite=overwrite) if record else None
        if rerun is not None:
            check_free(rerun, overwrite)
        log = stack.enter_context(RerunLog(rerun)) if rerun else None
        hub = Hub(stage.about()) if web else None
        if hub is not None:
            if told := warning(place[0]):
                console.print(f"warning: {told}", style="bold", markup=False)
            server = stack.enter_context(Server(hub, *place))
            console.print(f"live page: {server.url}   (Ctrl-C ends)", highlight=False)
        show = Show(
            stage, feed, cycle=cycle, window=shown, hub=hub, recorder=recorder, log=log, album=album
        )  # fmt: skip
        began = time.perf_counter()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be stopped is no reason to lose the video
        try:
            with keys:
                show.play(keys, limit)
        except KeyboardInterrupt:
            print("stopped; what was seen so far is kept", file=sys.stderr)
        finally:
            show.finish()
            seconds = time.perf_counter() - began
        if album.last is None:
            raise EdgeMTLError(feed.status.text or f"{feed.name} gave no frame; nothing was written")
        found = report(stage, album, feed, seconds)
        for line in feed.left_out.lines():
            print(f"left out: {line}", file=sys.stderr)
    print_report(found, console)
    if out is not None:
        save(out, found, album)
    made = [*([out / "sheet.png", out / "report.json"] if out else ()), *filter(None, (record, rerun))]
    if made:
        console.print("pictures: " + ", ".join(map(str, made)))


def _policy(text: str, live: bool) -> Policy:
    """What was asked for; by default nothing is dropped from a recording that nobody watches."""
    if not text:
        return "newest" if live else "all"
    if text not in ("newest", "all"):
        raise EdgeMTLError(f"--policy is newest or all, not {text!r}")
    return "newest" if text == "newest" else "all"


def _range(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        low, high = (float(v) for v in text.split(","))
    except ValueError:
        low = high = 0.0
    if not (np.isfinite([low, high]).all() and 0 <= low < high):
        raise EdgeMTLError(f"--depth-range is two depths in metres, like 0,8, not {text!r}")
    return low, high


if __name__ == "__main__":
    try:
        app()
    except EdgeMTLError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
