"""`edgemtl data`: make data sets and clips of synthetic rooms and homes, check data sets of any known layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgemtl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from edgemtl.data.check import Report

app = typer.Typer(no_args_is_help=True, help="Make synthetic rooms; check data sets.")

SizeOption = Annotated[str, typer.Option(help="Height x width in pixels, for example 128x256.", metavar="HxW")]
FurnitureOption = Annotated[list[Path] | None, typer.Option(help="A .sh3f file; the installed ones if not given.")]
WorkersOption = Annotated[int | None, typer.Option(help="Processes; as many as there are cores by default.")]


@app.callback()
def _group() -> None:
    """Make training data and clips of synthetic rooms and homes; check data sets."""


def parse_size(text: str) -> tuple[int, int]:
    """ "128x256" to (128, 256)."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if match is None:
        raise ConfigError(f"the size {text!r} is not of the form HxW; type, for example, --size 128x256")
    return int(match[1]), int(match[2])


@app.command()
def rooms(
    out: Annotated[Path, typer.Argument(help="Folder to write; an unfinished set in it is continued.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 1000,
    size: SizeOption = "128x256",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    workers: WorkersOption = None,
    val_share: Annotated[float, typer.Option(help="Share of the rooms that go to the val split.")] = 0.1,
    renderer: Annotated[str, typer.Option(help="rays, or cycles: Blender's look, for tests only, slower.")] = "rays",
) -> None:
    """Render rooms with exact labels in the NYUD_MT folder layout."""
    from edgemtl.data.rooms.write import RoomSet, generate

    height, width = parse_size(size)
    job = RoomSet(seed, count, height, width, val_share, renderer)  # type: ignore[arg-type]  # RoomSet checks it
    with _progress("images", count, f"images are in {out}; run the same command again to go on") as report:
        sizes = generate(job, out, _processes(workers), report)
    typer.echo(f"{out}: {sizes['train']} train and {sizes['val']} val images", err=True)


@app.command()
def homes(
    out: Annotated[Path, typer.Argument(help="Folder to write; an unfinished set in it is continued.")],
    count: Annotated[int, typer.Option(help="How many images.")] = 1000,
    size: SizeOption = "192x256",
    seed: Annotated[int, typer.Option(help="Same seed and furniture, same bytes.")] = 0,
    workers: WorkersOption = None,
    furniture: FurnitureOption = None,
    val_share: Annotated[float, typer.Option(help="Share of the homes that go to the val split.")] = 0.1,
    cycles_share: Annotated[float, typer.Option(help="Share of the homes that Blender photographs; slower.")] = 0.0,
) -> None:
    """Render homes from real furniture models, with NYU's forty classes, in the NYUD_MT folder layout."""
    from edgemtl.data.homes.catalogue import furniture_files, load_catalogues
    from edgemtl.data.homes.write import HomeSet
    from edgemtl.data.rooms.write import generate

    height, width = parse_size(size)
    files = tuple(str(path) for path in furniture_files(furniture))
    job = HomeSet(seed, count, height, width, val_share, files, cycles_share)
    lost: dict[str, str] = {}
    with _progress("images", count, f"images are in {out}; run the same command again to go on") as report:
        sizes = generate(job, out, _processes(workers), report, lost)
    reasons = load_catalogues(files).skipped + [f"{name}: {lost[name]}" for name in sorted(lost)]
    for reason in reasons[:5]:
        typer.echo(f"left out: {reason}", err=True)
    if reasons:
        typer.echo(f"{len(reasons)} models could not be used", err=True)
    typer.echo(f"{out}: {sizes['train']} train and {sizes['val']} val images", err=True)


@app.command()
def clip(
    out: Annotated[Path, typer.Argument(help="Video to write (.mp4 or .avi), or a folder for PNG frames.")],
    seconds: Annotated[float, typer.Option(help="Length; the clip loops.")] = 8.0,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 15.0,
    size: SizeOption = "240x320",
    seed: Annotated[int, typer.Option(help="Same seed and furniture, same home and path.")] = 0,
    workers: WorkersOption = None,
    furniture: FurnitureOption = None,
) -> None:
    """Render one home seen by a gliding camera: a camera's stand-in for demos."""
    from edgemtl.data.homes.catalogue import furniture_files
    from edgemtl.data.homes.clip import Clip, write_clip

    height, width = parse_size(size)
    job = Clip(tuple(str(path) for path in furniture_files(furniture)), seed, seconds, fps, height, width)
    with _progress("frames", job.frames, f"frames were made, {out} is not complete; run the command again") as report:
        written = write_clip(job, out, _processes(workers), report)
    typer.echo(f"{written}: {job.frames} frames of {width}x{height} pixels at {fps:g} frames/s", err=True)


@app.command()
def check(
    root: Annotated[Path | None, typer.Argument(help="Folder of a data set; none prints the known layouts.")] = None,
    layout: Annotated[str | None, typer.Option(help="nyud, pascal or cityscapes; found out if not given.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="A split to read; train and val by default.")] = None,
    show: Annotated[int, typer.Option(help="How many problems to list.", min=0)] = 20,
) -> None:
    """Read every image and label; say which are missing or malformed, and what the layout should be."""
    from edgemtl.data.check import check as read_all
    from edgemtl.data.layout import find_layout, layouts
    from edgemtl.errors import DataError

    if root is None:
        typer.echo("\n\n".join(form.describe() for form in layouts().values()))
        return
    form = find_layout(root, layout)
    with _console().status("reading") as status:
        report = read_all(
            root, form, tuple(split or ("train", "val")), lambda done, of: status.update(f"{done} of {of} images")
        )
    for problem in report.problems[:show]:
        typer.echo(problem)
    if len(report.problems) > show:
        typer.echo(f"... and {len(report.problems) - show} more; --show {len(report.problems)} lists them")
    _print_counts(report)
    reasons = report.unusable()
    if reasons:
        typer.echo(form.describe(), err=True)
        raise DataError(f"{root} cannot be used as it is ({'; '.join(reasons)}); see above")


@app.command()
def seams(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A copy of NYU Depth V2; it is not changed.")],
    out: Annotated[Path, typer.Argument(help="Folder to write; an unfinished copy in it is continued.")],
    voids_train: Annotated[int, typer.Option(help="The class that holds the seams in train; 0: no label.")] = 40,
    voids_other: Annotated[int, typer.Option(help="The same in the other splits.")] = 0,
) -> None:
    """Write a copy of NYU Depth V2 without the unlabelled seams between objects, with one border in their place."""
    from rich.console import Console
    from rich.table import Table

    from edgemtl.data.seams import mend

    with _console().status("reading") as status:
        splits = mend(
            source, out, voids_train, voids_other, lambda done, of: status.update(f"{done} of {of} images mended")
        )
    title = "percent of the pixels, before → after"
    table = Table("split", "images", "with labels", "edge", "no label", "class 40", title=title)
    for name, found in splits.items():
        shares = (f"{100 * a:.2f} → {100 * b:.2f}" for a, b in zip(found.before, found.after, strict=True))
        table.add_row(name, str(found.images), str(found.mended), *shares)
    Console().print(table)
    typer.echo(f"{out}: figures of edges on it cannot be compared with figures on {source}", err=True)


def _print_counts(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "files of", "good", "missing", "malformed", "without any label", "labelled pixels")
    for split, counts in report.counts.items():
        for name, c in counts.items():
            share = "" if name == "image" or not c.good else f"{100 * c.labelled:.1f} %"
            empty = "" if name == "image" else str(c.empty)
            table.add_row(split, name, str(c.good), str(c.lost), str(c.bad), empty, share)
    Console().print(f"layout: {report.layout.title}", table)


def _processes(workers: int | None) -> int:
    from edgemtl.runtime import cpu

    return cpu.count() if workers is None else workers


@contextmanager
def _progress(what: str, total: int, stopped: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; Ctrl-C ends the command with code 130 and says how far it came."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    finished = 0
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=_console(),
    )
    try:
        with bar:
            task = bar.add_task(what, total=total, rate="")

            def report(more: int) -> None:
                nonlocal finished
                finished += more
                bar.update(task, advance=more)
                speed = bar.tasks[0].speed
                bar.update(task, rate=f"{speed:.1f} {what}/s" if speed else "")

            yield report
    except KeyboardInterrupt:
        typer.echo(f"stopped: {finished} of {total} {stopped}", err=True)
        raise typer.Exit(130) from None


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


if __name__ == "__main__":
    app()
