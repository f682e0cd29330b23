"""`edgemtl run`: a bundle on an image, a folder, a video, a camera or a stream."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _inputs, _text

if TYPE_CHECKING:
    from edgemtl.media.sinks import Sink
    from edgemtl.media.sources import Source
    from edgemtl.runtime.engine import Engine


def run(
    words: _inputs.Words = None,
    task: Annotated[list[str] | None, typer.Option(help="A task to run; give it again for more.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A picture, a video (.mp4, .avi), a folder; none: only time it.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="tvm-cpu, onnxruntime, torch or fpga-sim; else the first usable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all by default.")] = None,
    memory_budget: Annotated[str | None, typer.Option(help="Most memory for mapped weights, like 48MB.")] = None,
    view: Annotated[str, typer.Option(help="map, overlay, or sheet (frame, maps and legend).")] = "map",
    color_map: Annotated[str, typer.Option(help="For depth: viridis, inferno, magma, cividis, turbo.")] = "viridis",
    depth_range: Annotated[
        str | None, typer.Option(help="Metres at the colours' ends, like 0.5,6; else each frame's own.")
    ] = None,
    fov: Annotated[
        float | None, typer.Option(help="The camera's horizontal field of view in degrees: depth is scaled to it.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write maps (.npz, .npy) instead of pictures.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Report as JSON on standard output.")] = False,
) -> None:
    """Run a bundle's tasks on frames, draw the results, and say where the time went.

    What cannot be read is left out and listed at the end; the exit code is then 3.
    """
    import os

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # this command says itself what is wrong
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    from edgemtl.bundle import models
    from edgemtl.errors import FrameError, TaskError
    from edgemtl.media.names import SOURCE
    from edgemtl.media.sinks import open_sink
    from edgemtl.media.sources import open_source
    from edgemtl.media.view import COLOUR_MAPS
    from edgemtl.runtime.engine import load

    if view not in ("map", "overlay", "sheet"):
        raise FrameError(f"--view is map, overlay or sheet, not {view!r}")
    if color_map not in COLOUR_MAPS:
        raise FrameError(f"there is no colour map {color_map!r}; choose one of {', '.join(COLOUR_MAPS)}")
    limits = _inputs.depth_range(depth_range)
    bundle, source = _inputs.split("run", words)
    if source is None:
        raise FrameError(f"what shall {bundle} run on? Type a source after it: {SOURCE}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's stop finishes the video too
    with (
        load(bundle, backend, threads=threads, memory_budget=memory_budget, color="bgr", fov=fov) as engine,
        open_source(source) as frames,
    ):
        if not task:
            raise TaskError(f"choose what to run with --task, one or more of: {', '.join(engine.tasks)}")
        engine.activate(*task)
        if out is not None and out.resolve() == models.find(bundle).resolve():
            raise FrameError(f"the output {out} would overwrite the bundle")
        sink = open_sink(out, frames, engine.active, raw=raw, overwrite=overwrite) if out else None
        report = _loop(engine, frames, sink, raw, limit, (view, color_map, limits))
        residency = engine.residency()
        report["residency"] = residency.as_dict()
        report["switches"] = [s.as_dict() for s in engine.switches]
        report["output"] = str(out) if out else None
    if json:
        _text.as_json(report)
    else:
        _print(report, str(residency))
    if report["stopped"] and not frames.live:
        raise typer.Exit(130)
    if report["left_out"] and not frames.live:
        raise typer.Exit(3)


def _loop(
    engine: Engine, source: Source, sink: Sink | None, raw: bool, limit: int | None, drawing: tuple[Any, ...]
) -> dict[str, Any]:
    """Run all frames; Ctrl-C ends the loop, and what was written is finished either way."""
    from edgemtl.errors import FrameError
    from edgemtl.media.sinks import picture

    stages: dict[str, list[float]] = {}
    counts: dict[str, Any] = {}
    count, stopped, begin = 0, False, time.perf_counter()
    try:
        with _text.Status() as status:
            for frame in source:
                try:
                    output = engine(frame.image)
                except FrameError as e:  # too large, for one: the others go on
                    if source.kind != "folder":
                        raise
                    source.left_out.add(frame.name, f"{frame.name}: {e}")
                    continue
                if sink:
                    sink.put(frame, output, None if raw else picture(frame, output, *drawing))
                timing = output.timing
                for name, ms in [
                    ("preprocess", timing.preprocess),
                    *timing.run.items(),
                    ("postprocess", timing.postprocess),
                    ("total", timing.total),
                ]:
                    stages.setdefault(name, []).append(ms)
                counts = {task: counted.as_dict() for task, counted in timing.counts.items()}
                count += 1
                of = f"/{source.count}" if source.count else ""
                status.update(f"frame {count}{of}, {timing.total:.1f} ms, {source.dropped} dropped")
                if limit and count >= limit:
                    break
    except KeyboardInterrupt:
        stopped = True
    finally:
        if sink:
            sink.close()
    return {
        "source": source.name,
        "backend": engine.backend,
        "program": engine.program.target if engine.program else None,
        "why": engine.why,
        "threads": engine.threads,
        "tasks": list(engine.active),
        "frames": count,
        "frames_in_source": source.count or None,
        "frames_dropped": source.dropped,
        "left_out": source.left_out.count,
        "left_out_because": source.left_out.lines(),
        "stopped": stopped,
        "seconds": time.perf_counter() - begin,
        "latency_ms": {name: _summary(values) for name, values in stages.items()},
        "counters": counts,
    }


def _summary(values: list[float]) -> dict[str, float]:
    """The first frame apart; percentiles of the others (of the only one, where there is one)."""
    import numpy as np

    from edgemtl.media.view import percentiles

    p50, p95, p99 = percentiles(np.array(values[1:] or values), (50, 95, 99))
    return {"first": values[0], "p50": p50, "p95": p95, "p99": p99}


def _print(report: dict[str, Any], residency: str) -> None:
    figures = ("first", "p50", "p95", "p99")
    rows = [(name, *(f"{v[k]:.2f}" for k in figures)) for name, v in report["latency_ms"].items()]
    lines = [f"backend: {report['why']}; {report['threads']} thread(s)"]
    lines += _text.aligned([("ms per frame", *figures), *rows])
    if report["counters"]:
        from edgemtl.fpga import counters

        for task, counted in report["counters"].items():
            lines.append(f"the accelerator's counters of the last frame, {task}:")
            lines += [f"  {line}" for line in counters.lines(counted)]
    of = report["frames_in_source"]
    short = f" of {of}" if of and report["frames"] != of else ""
    dropped = f", {report['frames_dropped']} dropped" if report["frames_dropped"] else ""
    stopped = ", stopped" if report["stopped"] else ""
    lines.append(f"{report['frames']}{short} frame(s) of {report['source']}{dropped}{stopped}")
    if report["left_out"]:
        lines.append(f"left out {report['left_out']}, which cannot be read:")
        lines += [f"  {line}" for line in report["left_out_because"]]
    lines.append(residency)
    if report["output"] and report["frames"]:
        lines.append(f"wrote {report['output']}")
    for line in lines:
        typer.echo(_text.clean(line))
