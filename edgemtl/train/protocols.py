"""Which figures a paper's table holds: the protocols that must not be mixed, each with its own definition per task.

"m3vit": Vandenhende et al. (TPAMI 2021), which M3ViT reports; "invpt": ATRC, InvPT and what followed them. They agree
but for saliency, where the figures lie far apart. Both need odsF for edges, which takes seconds per hundred small
images; the quick figures that edgemtl itself watches are each kind's `own` (`edgemtl.train.tasks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgemtl import tasks
from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.train.delta import delta_m
from edgemtl.train.tasks import PROTOCOLS, Figure, Score, find

if TYPE_CHECKING:
    from edgemtl.data.dataset import LabelledSet


def figure(kind: str, name: str | None) -> Figure:
    """The figure of a kind in a protocol; edgemtl's own for None, and where the papers have none."""
    learner = find(kind)
    return learner.own if check(name) is None else learner.papers.get(str(name), learner.own)


def check(name: str | None) -> str | None:
    """The name of a protocol as it is. Raises ConfigError for an unknown one."""
    if name is not None and name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return name


def table_row(results: Mapping[str, Score], config: ModelConfig, name: str | None) -> dict[str, tuple[Figure, float]]:
    """{task: (figure, value as in a table)} of one protocol from the results of `evaluate`."""
    return {t.name: (f := figure(t.kind, name), f.scale * float(results[t.name][f.key])) for t in config.tasks}


def describe(data: LabelledSet, config: ModelConfig, images: int, name: str | None) -> dict[str, Any]:
    """What a figure must name to be compared: set, split, how many of its images, sizes, crop, classes, definitions.

    `images` were evaluated; `name` is the protocol, None edgemtl's own figures. Sizes are height and width in pixels;
    "stored" is None where the files differ. "text" says all in one line.
    """
    about, stored = data.layout.about(data.root), data.stored_size()
    whole = data.split.partition(":")[0]
    total, what = about.official.get(whole, (len(data), "images"))
    count = f"{images} {what}" if images == total else f"{images} of the {total} {what}"
    if images < len(data):
        count += ", evenly spaced"
    classes = {t.name: t.channels for t in config.tasks if tasks.find(t.kind).classes}
    sizes = "various sizes" if stored is None else f"{stored[0]}x{stored[1]}"
    evaluated = f"{config.image_size[0]}x{config.image_size[1]}"
    parts = [
        f"{about.title}, {data.split}, {count}",
        f"stored {sizes}" + (f" (crop {about.crop})" if about.crop else ""),
        f"evaluated {evaluated}",
        *(f"{task} {n} classes" for task, n in classes.items()),
        f"figures of {name or 'edgemtl'}",
    ]
    return {
        "set": about.title,
        "split": data.split,
        "images": images,
        "count": count,
        "stored": stored,
        "crop": about.crop or None,
        "evaluated": config.image_size,
        "classes": classes,
        "figures": name or "edgemtl",
        "text": "; ".join(parts),
    }


def gain(results: Mapping[str, Score], other: Mapping[str, Any], config: ModelConfig, name: str | None) -> float:
    """Δm in percent of `results` over `other`, both from `evaluate` on the same images, by one protocol's figures.

    Raises ConfigError if `other` lacks a task or a figure.
    """
    chosen = {t.name: figure(t.kind, name) for t in config.tasks}
    try:
        baseline = {task: float(other[task][f.key]) for task, f in chosen.items()}
    except (KeyError, TypeError, ValueError):
        wanted = ", ".join(f"{task}: {f.key}" for task, f in chosen.items())
        raise ConfigError(f"the other result lacks some of {wanted}; evaluate it with the same options") from None
    scores = {task: float(results[task][f.key]) for task, f in chosen.items()}
    return delta_m(scores, baseline, {task for task, f in chosen.items() if f.lower})
