"""`edgemtl demo`: a camera's or a clip's frames with the asked-for task's map, tasks switched while it runs.

Without a page and without a screen it writes a video, a contact sheet and a report into the output folder. Keys: 1 … 9
choose a task, n the next one, s sets a second one beside it, e the expert map, q ends; they work in the window, and in
the terminal when there is no window. See docs/camera.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemtl.cli import _inputs

if TYPE_CHECKING:
    from edgemtl.media.feed import Policy

CYCLE = 2.0  # seconds a task, where a clip is played that nobody named


def demo(
    words: _inputs.Words = None,
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
    depth_range: Annotated[
        str | None, typer.Option(help="Metres at the colours' ends, like 0.5,6 (default: follows).")
    ] = None,
    backend: str | None = None,
    threads: int | None = None,
    memory_budget: str | None = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
) -> None:
    """Show a model at work on a camera, or without SOURCE on a rendered clip: one or two tasks at a time."""
    import contextlib
    import os
    import signal
    import sys
    import time

    import cv2
    from rich.console import Console

    from edgemtl.bundle import models
    from edgemtl.demo.keys import Keys
    from edgemtl.demo.report import SAVED, Album, make, print_report, report, save
    from edgemtl.demo.rerun_log import RerunLog
    from edgemtl.demo.show import FALLBACK_FPS, Show
    from edgemtl.errors import EdgeMTLError
    from edgemtl.media.sinks import Recorder, check_free
    from edgemtl.media.sources import is_live, open_feed
    from edgemtl.media.stage import Stage
    from edgemtl.runtime.engine import load
    from edgemtl.web.hub import Hub
    from edgemtl.web.server import Server, parse_address, warning

    bundle, source = _inputs.split("demo", words)
    if source is None:
        source = str(models.clip())
        cycle = CYCLE if cycle is None and not web else cycle
    console, place = Console(), parse_address(address)
    shown = False if web else Keys.screen() if window is None and out is None else bool(window)
    watched, keys = web or shown, Keys(shown)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the half frame at the end of a cut stream is no news
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # the demo says itself what cannot be opened
    limits = _inputs.depth_range(depth_range)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(load(bundle, backend, threads=threads, memory_budget=memory_budget))
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
    if feed.left_out.count and not feed.live:
        raise typer.Exit(3)  # as `run` does


def _policy(text: str, live: bool) -> Policy:
    """What was asked for; by default nothing is dropped from a recording that nobody watches."""
    from edgemtl.errors import EdgeMTLError

    if not text:
        return "newest" if live else "all"
    if text not in ("newest", "all"):
        raise EdgeMTLError(f"--policy is newest or all, not {text!r}")
    return "newest" if text == "newest" else "all"
