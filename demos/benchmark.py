"""Measure edgemtl against its peers on this machine, in fresh processes, interleaved, with paired ratios.

    python demos/benchmark.py                                   # shipped model, Edge-MoE's shape, dense ViTs
    python demos/benchmark.py --subjects rooms:depth --rounds 9
    python demos/benchmark.py --precision fp32,int8 --subjects edge-moe:129
    python demos/benchmark.py --sweep experts --engines edgemtl,openvino
    python demos/benchmark.py --profile --threads 1,2           # kernel by kernel; also with --precision int8
    python demos/benchmark.py --endurance 10000                 # frames with random switches: memory, results

Nothing else should run meanwhile. Ctrl-C prints what was measured so far. Compare ratios, not milliseconds of
different runs.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from edgemtl.bench import cold, endurance, machine, profile, report, subjects, sweep
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.samples import Settings
from edgemtl.errors import ConfigError, EdgeMTLError

BUNDLE = Path("build/rooms.edgemtl")
CHECKPOINT = Path("edgemtl/model/weights/rooms-tiny.safetensors")


def main(
    bundle: Annotated[Path, typer.Option(help="The shipped model, compiled.")] = BUNDLE,
    checkpoint: Annotated[Path, typer.Option(help="The same for peers; without it, from the bundle.")] = CHECKPOINT,
    subject: Annotated[str, typer.Option("--subjects", help="Comma-separated; see edgemtl/bench/subjects.py.")] = "",
    engines: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(ENGINES)}.")] = "",
    precision: Annotated[str, typer.Option(help="Comma-separated: fp32, int8.")] = "fp32",
    calibrate: Annotated[Path | None, typer.Option(help="Pictures for INT8, as of `edgemtl compile`.")] = None,
    threads: Annotated[str, typer.Option(help="Comma-separated thread counts.")] = "2",
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    seconds: Annotated[float, typer.Option(help="Of frames per process.")] = 0.6,
    minutes: Annotated[float, typer.Option(help="Begin nothing after this long, but do two rounds; 0: no limit.")] = 10,
    out: Annotated[Path, typer.Option(help="All raw samples, one JSON line each.")] = Path("benchmark.jsonl"),
    work: Annotated[Path | None, typer.Option(help="Folder that keeps exports between runs.")] = None,
    prepare_only: Annotated[bool, typer.Option(help="Export and compile into --work, measure nothing.")] = False,
    all_exports: Annotated[bool, typer.Option(help="Try dense exports even where they do much more work.")] = False,
    sweep_over: Annotated[str, typer.Option("--sweep", help="experts or tokens: a CSV file and a plot.")] = "",
    profile_frame: Annotated[
        bool, typer.Option("--profile", help="Kernel by kernel: what a frame's time goes to.")
    ] = False,
    endurance_frames: Annotated[int, typer.Option("--endurance", min=0, help="That many frames, random switches.")] = 0,
    cold_start: Annotated[bool, typer.Option("--cold/--no-cold", help="Also measure cold start.")] = True,
    quick: Annotated[bool, typer.Option(help="Two rounds of two frames: to see that all works.")] = False,
) -> None:
    """Print latency, memory, load times and ratios of edgemtl and its peers."""
    console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
    names = tuple(filter(None, engines.split(","))) or _engines(precision, sweep_over)
    counts = _threads(threads)
    for name in names:
        if name not in ENGINES:
            raise ConfigError(f"there is no engine {name!r}; choose of {', '.join(ENGINES)}")
    if prepare_only and work is None:
        raise ConfigError("--prepare-only needs --work FOLDER, where a later run finds what was prepared")
    if endurance_frames:
        lasted = endurance.run(bundle, endurance_frames, threads=counts[0])
        console.print(lasted.sentence(), markup=False)
        sys.exit(0 if lasted.good else 1)
    if profile_frame:
        names = tuple(name for name in _engines(precision, "") if ENGINES[name].own)
    settings = Settings(
        threads=counts,
        rounds=2 if quick else rounds,
        seconds=1e-6 if quick else seconds,
        warmup=1 if quick else 3,
        warmup_s=0 if quick else 0.3,
        frames=2 if quick else 5,
        peak_s=0.1 if quick else Settings.peak_s,
        doubtful=float("inf") if all_exports else Settings.doubtful,
        minutes=minutes or None,
    )
    chosen, values = _subjects(subject, sweep_over, bundle, checkpoint, console)
    if calibrate is None and any(s.bundle for s in chosen) and any(ENGINES[n].precision == "int8" for n in names):
        raise ConfigError(
            "INT8 of the shipped model is calibrated on pictures like those it sees: add --calibrate FOLDER"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("")
    about = machine.describe()
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgemtl-bench-")))
        status = stack.enter_context(Console(stderr=True).status("starting"))
        run = Comparison(chosen, names, settings, folder, out, calibrate, status.update)
        run.record("machine", **about)
        interrupted = False
        try:
            run.prepare()
            if prepare_only:
                console.print(f"prepared {', '.join(s.name for s in chosen)} in {folder}", markup=False)
                return
            if profile_frame:
                run.measure_peaks()
                status.stop()
                text = profile.run(run, seconds=0.05 if quick else 2, console=console)
                out.with_suffix(".md").write_text(text)
                console.print(f"the same as Markdown: {out.with_suffix('.md')}", markup=False)
                return
            if cold_start and not sweep_over and chosen and chosen[0].bundle:
                _cold(console, chosen[0], settings, status.update, run, runs=1 if quick else 5)
            run.measure()
        except KeyboardInterrupt:
            interrupted = True
        status.stop()
        report.show_all(run, about, console)
        if values:
            found = sweep.points(run, values)
            dimension: sweep.Dimension = "experts" if sweep_over == "experts" else "tokens"
            sweep.write_csv(out.with_suffix(".csv"), found)
            sweep.write_svg(out.with_suffix(".svg"), dimension, found)
            console.print(f"wrote {out.with_suffix('.csv')} and {out.with_suffix('.svg')}", markup=False)
        console.print(f"raw samples: {out}", markup=False)
        if interrupted:
            console.print("interrupted: the tables hold what was measured until then")
            sys.exit(130)


def _threads(text: str) -> tuple[int, ...]:
    if not all(t.isdigit() and 0 < int(t) <= 1024 for t in text.split(",")):
        raise ConfigError(f"thread counts are whole numbers from 1, like 2 or 1,2; not {text!r}")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def _engines(precision: str, sweep_over: str) -> tuple[str, ...]:
    """The engines of the precisions asked for; of a sweep edgemtl's alone."""
    wanted = precision.split(",")
    for name in wanted:
        if name not in ("fp32", "int8"):
            raise ConfigError(f"--precision is fp32, int8 or fp32,int8, not {precision!r}")
    return tuple(e.name for e in ENGINES.values() if e.precision in wanted and (e.own or not sweep_over))


def _subjects(
    wanted: str, over: str, bundle: Path, checkpoint: Path, console: Console
) -> tuple[list[subjects.Subject], dict[int, subjects.Subject]]:
    """What to measure; with a sweep, also by value. A shipped model that is not there is left out of the default."""
    if over:
        if over not in ("experts", "tokens"):
            raise ConfigError(f"--sweep is over experts or tokens, not {over!r}")
        kind: Literal["experts", "tokens"] = "experts" if over == "experts" else "tokens"
        values = sweep.subjects(kind)
        return list(values.values()), values
    names = wanted.split(",") if wanted else list(subjects.DEFAULT)
    if not wanted and not bundle.is_file():
        console.print(f"there is no {bundle} (`make {bundle}` builds it): the shipped model is left out", markup=False)
        names.remove("rooms")
    return [s for name in names for s in subjects.parse(name, bundle, checkpoint)], {}


def _cold(
    console: Console, subject: subjects.Subject, settings: Settings, tell: object, run: Comparison, runs: int
) -> None:
    assert callable(tell)
    assert subject.bundle is not None
    tell("cold start")
    bundle, threads = Path(subject.bundle), settings.threads[0]
    try:
        parts = cold.cold(bundle, "tvm-cpu", subject.task, threads, runs)
        whole = cold.command_line(bundle, subject.task, runs)
    except EdgeMTLError as e:
        console.print(f"cold start: {e}", markup=False)
        return
    run.record("cold", subject=subject.name, threads=threads, **parts, edgemtl_run_s=whole)
    head = ("interpreter", "import", "load", "first frame", "all", "`edgemtl run`, whole command")
    cells = [f"{1e3 * c:.0f} ms" for c in (*parts.values(), sum(parts.values()), whole)]
    title = f"cold start of edgemtl, {subject.task}, median of {runs} fresh process(es) (measured)"
    console.print(report.table(title, (), head, [cells]))
    console.print()


if __name__ == "__main__":
    try:
        typer.run(main)
    except EdgeMTLError as e:
        sys.exit(f"error: {e}")
