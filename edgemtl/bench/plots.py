"""The pictures of a run: latency against accuracy, memory per task, a timeline across switches. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from edgemtl.bench.engines import ENGINES

# Okabe and Ito's colours, which colour-blind people can tell apart; edgemtl is always the first.
COLOURS = {
    "edgemtl": "#0072b2",
    "onnxruntime": "#e69f00",
    "openvino": "#009e73",
    "torch": "#cc79a7",
    "torch-compile": "#d55e00",
}
OTHER = "#56b4e9"
MB = 1e6
SAME = 0.01  # a panel of accuracy shows at least this share of the metric above and below
LOWER_IS_BETTER = ("rmse", "mean_angle")


def colour(engine: str) -> str:
    """Of the longest family that the engine's name begins with."""
    found = [f for f in COLOURS if engine.startswith(f)]
    return COLOURS[max(found, key=len)] if found else OTHER


def strength(engine: str) -> float:
    """INT8 engines are pale."""
    return 0.45 if engine in ENGINES and ENGINES[engine].precision == "int8" else 0.9


def overview(document: Mapping[str, Any], path: Path) -> None:
    """One picture of a document of `document.make`: three panels above each other, of what the document holds."""
    tasks = scored_tasks(document)
    machine = document["machine"]
    title = f"{machine['cpu']}, {machine['cpus']} CPU(s), {document['made']}: measured"
    figure = Figure(figsize=(11, 12.5), layout="constrained")
    grid = figure.add_gridspec(3, max(1, len(tasks)), height_ratios=(1.0, 0.9, 1.0))
    for i, subject in enumerate(tasks):
        accuracy(figure.add_subplot(grid[0, i]), document, subject)
    if tasks:
        _key(figure, [r for r in document["rows"] if r["score"] is not None], title)
    else:
        figure.suptitle(title, fontsize=11)
        _empty(figure.add_subplot(grid[0, 0]), "accuracy: not measured (--data FOLDER)")
    memory(figure.add_subplot(grid[1, :]), document["walks"])
    timeline(figure.add_subplot(grid[2, :]), document["walks"])
    figure.savefig(path, dpi=110)


def scored_tasks(document: Mapping[str, Any]) -> list[str]:
    """Subjects with an accuracy."""
    return list(dict.fromkeys(r["subject"] for r in document["rows"] if r["score"] is not None))


def accuracy(axes: Axes, document: Mapping[str, Any], subject: str) -> None:
    """Median latency against the task's metric, a mark per engine; fp32 filled, INT8 hollow. Better is up and left."""
    rows = [r for r in document["rows"] if r["subject"] == subject and r["score"] is not None]
    threads = max(r["threads"] for r in rows)
    for r in (r for r in rows if r["threads"] == threads):
        int8 = r["precision"] == "int8"
        face = "none" if int8 else colour(r["engine"])
        axes.plot(
            r["p50"], r["score"], _mark(r["engine"], r["precision"]), ms=9, mfc=face, mec=colour(r["engine"]), mew=1.8
        )
    metric = rows[0]["metric"]
    axes.set_title(subject, fontsize=10)
    axes.set_xlabel(f"p50 ms, {threads} thread(s)")
    axes.set_ylabel(f"{metric}{' (upside down: up is better)' if metric in LOWER_IS_BETTER else ''}", fontsize=8)
    axes.set_xlim(0, 1.12 * max(r["p50"] for r in rows if r["threads"] == threads))
    scores = [r["score"] for r in rows]
    middle = (min(scores) + max(scores)) / 2
    half = max(0.65 * (max(scores) - min(scores)), SAME * abs(middle))  # rounding must not look like a difference
    axes.set_ylim(*sorted((middle - half, middle + half), reverse=metric in LOWER_IS_BETTER))
    axes.grid(alpha=0.3)


def memory(axes: Axes, walks: Sequence[Mapping[str, Any]]) -> None:
    """Memory grown since before loading, after each visit of a task: the state of the second round, all tasks seen."""
    walks = [w for w in walks if w["visits"]]
    if not walks:
        _empty(axes, "memory per task: not measured")
        return
    tasks = list(dict.fromkeys(v["task"] for v in walks[0]["visits"]))
    height = 0.8 / len(tasks)
    for i, w in enumerate(walks):
        for k, task in enumerate(tasks):
            visit = [v for v in w["visits"] if v["task"] == task][-1]
            place = i + (k - (len(tasks) - 1) / 2) * height
            axes.barh(
                place, visit["resident"] / MB, 0.9 * height, color=colour(w["engine"]), alpha=strength(w["engine"])
            )
            if visit["weights"] is not None:
                axes.barh(place, visit["weights"] / MB, 0.9 * height, color="none", ec="black", hatch="////", lw=0.6)
        grown = [v["resident"] / MB for v in w["visits"][-len(tasks) :]]
        axes.text(max(grown), i, f" {min(grown):.0f} to {max(grown):.0f}", va="center", fontsize=7)
    axes.set_yticks(range(len(walks)), [w["name"] for w in walks], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(
        f"MB of memory grown since before loading, second round; bars from above: {', '.join(tasks)};"
        " hatched: mapped weights; pale: INT8",
        fontsize=8,
    )
    axes.grid(axis="x", alpha=0.3)


def timeline(axes: Axes, walks: Sequence[Mapping[str, Any]]) -> None:
    """Milliseconds of every frame, the change of the task counted to the first frame after it; logarithmic."""
    walks = [w for w in walks if w["visits"]]
    if not walks:
        _empty(axes, "switches: not measured")
        return
    for w in walks:
        ms: list[float] = []
        for v in w["visits"]:
            ms += [v["frames"][0] + v["switch_ms"], *v["frames"][1:]]
        style = {"active": "-", "swap": ":", "keep": "--"}[w["policy"]]
        look: dict[str, Any] = {"color": colour(w["engine"]), "alpha": strength(w["engine"]), "drawstyle": "steps-post"}
        axes.plot(ms, style, lw=1.5, label=w["name"], **look)
    stay = len(walks[0]["visits"][0]["frames"])
    for i, v in enumerate(walks[0]["visits"]):
        axes.axvline(i * stay, color="0.8", lw=0.8, zorder=0)
        axes.text(i * stay + 0.4, 0.985, f"{v['task']}\n{v['kind']}", transform=axes.get_xaxis_transform(), fontsize=7,
                  va="top")  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(0, stay * len(walks[0]["visits"]))
    axes.set_ylabel("ms per frame, switch included")
    axes.set_xlabel("frame")
    axes.legend(
        fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14), title="pale: INT8", title_fontsize=7
    )
    axes.grid(axis="y", alpha=0.3)


def against(path: Path, panels: Sequence[tuple[str, Mapping[str, Sequence[tuple[float, float]]]]], axis: str) -> None:
    """A panel per (title, {name: points}), side by side, over a logarithmic axis."""
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for place, (title, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if not any(series.values()):
            _empty(place, f"{title}: nothing measured")
            continue
        values = sorted({x for line in series.values() for x, _ in line})
        for name, line in series.items():
            place.plot(*zip(*sorted(line), strict=True), "o-", ms=4, label=name, color=_of_series(name))
        place.set_xscale("log")
        place.set_xticks(values, [f"{x:g}" for x in values])
        place.minorticks_off()
        place.set_ylim(bottom=0)
        place.set_xlabel(axis)
        place.set_title(title, fontsize=10)
        place.grid(alpha=0.3)
        place.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _of_series(name: str) -> str | None:
    """An engine's colour; the next of matplotlib's for another name."""
    return colour(name) if any(name.startswith(family) for family in COLOURS) else None


def _key(figure: Figure, rows: Iterable[Mapping[str, Any]], title: str) -> None:
    """One legend for all panels of accuracy, above them, under the picture's title."""
    precisions = {r["engine"]: r["precision"] for r in rows}
    marks = []
    for name, precision in precisions.items():
        face = "none" if precision == "int8" else colour(name)
        marks.append(Line2D([], [], ls="", marker=_mark(name, precision), mfc=face, mec=colour(name), label=name))
    figure.legend(handles=marks, fontsize=7, ncols=6, loc="outside upper center", title=title, frameon=False)


def _mark(engine: str, precision: str) -> str:
    """INT8 is square; ONNX opset 23 stands out from 18 in the same colour."""
    return "s" if precision == "int8" else "D" if engine.endswith("-23") else "o"


def _empty(axes: Axes, words: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes)
