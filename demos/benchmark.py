"""Measure edgemtl against its peers on this machine, in fresh processes, interleaved, with paired ratios.

    python demos/benchmark.py                                   # shipped model, Edge-MoE's shape, dense ViTs
    python demos/benchmark.py build/indoor.edgemtl --engines edgemtl,onnxruntime,openvino \\
        --precision fp32,int8 --calibrate ROOMS --threads 1,2 --json run.json
    python demos/benchmark.py --subjects rooms:depth --rounds 9
    python demos/benchmark.py --profile --threads 1,2           # kernel by kernel; also with --precision int8

Nothing else should run meanwhile. Ctrl-C prints what was measured so far. Compare ratios, not milliseconds of
different runs.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edgemtl.bench import choice, document, machine, profile, report, subjects, switching
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.samples import Settings
from edgemtl.cli._guard import guarded
from edgemtl.errors import ConfigError

BUNDLE = Path("build/indoor.edgemtl")
KNOWN = ", ".join(choice.FAMILIES)


def main(
    bundle: Annotated[Path | None, typer.Argument(help=f"A compiled model, such as {BUNDLE}.")] = None,
    engines: Annotated[str, typer.Option(help=f"Comma-separated, of {KNOWN}; or one engine's own name.")] = "",
    precision: Annotated[str, typer.Option(help="Comma-separated: fp32, int8.")] = "fp32",
    threads: Annotated[str, typer.Option(help="Comma-separated thread counts.")] = "2",
    cpu: Annotated[str, typer.Option(help="avx2: programs for AVX2, peers held to it; default: all there is.")] = "",
    calibrate: Annotated[Path | None, typer.Option(help="Pictures, or a data set, that INT8 is fitted to.")] = None,
    json: Annotated[Path | None, typer.Option(help="The whole result as one document.")] = None,
    subject: Annotated[str, typer.Option("--subjects", help="Comma-separated; see edgemtl/bench/subjects.py.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="At least.")] = 7,
    precise: Annotated[
        float, typer.Option(min=0, help="Rounds go on until the 95 % interval of ratios is within this; 0: --rounds.")
    ] = 0.03,
    seconds: Annotated[float, typer.Option(help="Of frames per process.")] = 0.6,
    minutes: Annotated[float, typer.Option(help="Begin nothing after this long, but do two rounds; 0: no limit.")] = 10,
    out: Annotated[Path, typer.Option(help="All raw samples, one JSON line each.")] = Path("benchmark.jsonl"),
    work: Annotated[Path | None, typer.Option(help="Folder that keeps exports between runs.")] = None,
    prepare_only: Annotated[bool, typer.Option(help="Export and compile into --work, measure nothing.")] = False,
    profile_frame: Annotated[
        bool, typer.Option("--profile", help="Kernel by kernel: what a frame's time goes to.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="Two rounds of two frames: to see that all works.")] = False,
) -> None:
    """Print latency, memory, load times, switches and ratios of edgemtl and its peers."""
    console = Console(width=None if sys.stdout.isatty() else 190, highlight=False)
    chosen = choice.engines("edgemtl" if profile_frame else engines, precision)
    counts = choice.threads(threads)
    if prepare_only and work is None:
        raise ConfigError("--prepare-only needs --work FOLDER, where a later run finds what was prepared")
    if work is not None and work.exists() and not work.is_dir():
        raise ConfigError(f"--work {work} is a file; give a folder")
    choice.file("--out", out)
    choice.file("--json", json)
    settings = Settings(
        threads=counts,
        target=choice.cpu(cpu),
        rounds=2 if quick else rounds,
        precise=None if quick else precise or None,
        seconds=1e-6 if quick else seconds,
        warmup=1 if quick else 3,
        warmup_s=0 if quick else 0.3,
        frames=2 if quick else 5,
        peak_s=0.1 if quick else Settings.peak_s,
        minutes=minutes or None,
    )
    measured = _subjects(subject, bundle, console)
    int8 = any(ENGINES[n].precision == "int8" for n in chosen)
    if int8 and calibrate is None and any(s.bundle for s in measured):
        raise ConfigError(
            "INT8 of the shipped model is calibrated on pictures like those it sees: add --calibrate FOLDER"
        )
    if calibrate is not None and not calibrate.is_dir():
        raise ConfigError(f"--calibrate {calibrate} is no folder; give one with pictures")
    out.write_text("")
    about = machine.describe()
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgemtl-bench-")))
        status = stack.enter_context(Console(stderr=True).status("starting"))
        run = Comparison(measured, chosen, settings, folder, out, calibrate, status.update)
        run.record("machine", **about)
        interrupted = False
        try:
            run.prepare()
            if prepare_only:
                console.print(f"prepared {', '.join(s.name for s in measured)} in {folder}", markup=False)
                return
            if profile_frame:
                status.stop()
                text = profile.run(run, seconds=0.05 if quick else 2, console=console)
                out.with_suffix(".md").write_text(text)
                console.print(f"the same as Markdown: {out.with_suffix('.md')}", markup=False)
                return
            run.measure()
            switching.walk(run)
        except KeyboardInterrupt:
            interrupted = True
        status.stop()
        found = document.make(run, about, ["python", "demos/benchmark.py", *sys.argv[1:]], interrupted=interrupted)
        report.print_all(found, console)
        if json is not None:
            document.write(json, found)
            console.print(f"wrote {json}", markup=False)
        console.print(f"raw samples: {out}", markup=False)
        if interrupted:
            console.print("interrupted: the tables hold what was measured until then")
            sys.exit(130)


def _subjects(wanted: str, bundle: Path | None, console: Console) -> list[subjects.Subject]:
    """What to measure. Of a bundle that is named, its tasks alone; without one, the default, from which a shipped model
    that is not there is left out.
    """
    place = bundle or BUNDLE
    names = wanted.split(",") if wanted else ["rooms"] if bundle else list(subjects.DEFAULT)
    if not wanted and not bundle and not place.is_file():
        console.print(f"there is no {place} (`make {place}` builds it): the shipped model is left out", markup=False)
        names.remove("rooms")
    return [s for name in names for s in subjects.parse(name, place)]


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    guarded(lambda: app(standalone_mode=False))
