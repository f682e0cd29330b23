"""Which figures a paper's table holds: the protocols that must not be mixed, each with its own definition per task.

"m3vit": Vandenhende et al. (TPAMI 2021), which M3ViT reports; "invpt": ATRC, InvPT and what followed them. They agree
but for saliency, where the figures lie far apart. Both need odsF for edges, which takes seconds per hundred small
images; `edgemtl.train.metrics` has the quick figures that edgemtl itself watches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from edgemtl.config import ModelConfig, TaskKind
from edgemtl.errors import ConfigError
from edgemtl.train.delta import delta_m
from edgemtl.train.metrics import Score


class Figure(NamedTuple):
    """A metric's key in the results, how a table calls it, what it is multiplied by there, and its better direction."""

    key: str
    name: str
    scale: float
    lower: bool


OWN: dict[TaskKind, Figure] = {  # what edgemtl itself watches
    "semseg": Figure("miou", "mIoU", 1, False),
    "depth": Figure("rmse", "RMSE (m)", 1, True),
    "normals": Figure("mean_angle", "mean angle (°)", 1, True),
    "edge": Figure("edge_f", "F", 1, False),
    "saliency": Figure("saliency_miou", "mIoU over thresholds", 1, False),
}
_SHARED: dict[TaskKind, Figure] = {
    "semseg": Figure("miou_all", "mIoU %", 100, False),
    "depth": Figure("rmse", "RMSE", 1, True),
    "normals": Figure("mean_angle", "mErr °", 1, True),
    "edge": Figure("ods_f", "odsF %", 100, False),
}
PROTOCOLS: dict[str, dict[TaskKind, Figure]] = {
    "m3vit": {**_SHARED, "saliency": Figure("saliency_miou", "mIoU % (best of 15 thresholds)", 100, False)},
    "invpt": {**_SHARED, "saliency": Figure("saliency_max_f_pooled", "maxF % (pooled)", 100, False)},
}


def figures(name: str | None) -> dict[TaskKind, Figure]:
    """The figures of a protocol, edgemtl's own for None. Raises ConfigError for an unknown one."""
    if name is not None and name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}; choose one of {', '.join(PROTOCOLS)}")
    return OWN if name is None else PROTOCOLS[name]


def table_row(results: Mapping[str, Score], config: ModelConfig, name: str | None) -> dict[str, tuple[Figure, float]]:
    """{task: (figure, value as in a table)} of one protocol from the results of `evaluate`."""
    chosen = figures(name)
    return {t.name: (f := chosen[t.kind], f.scale * float(results[t.name][f.key])) for t in config.tasks}


def gain(results: Mapping[str, Score], other: Mapping[str, Any], config: ModelConfig, name: str | None) -> float:
    """Δm in percent of `results` over `other`, both from `evaluate` on the same images, by one protocol's figures.

    Raises ConfigError if `other` lacks a task or a figure.
    """
    chosen = {t.name: figures(name)[t.kind] for t in config.tasks}
    try:
        baseline = {task: float(other[task][figure.key]) for task, figure in chosen.items()}
    except (KeyError, TypeError, ValueError):
        wanted = ", ".join(f"{task}: {figure.key}" for task, figure in chosen.items())
        raise ConfigError(f"the other result lacks some of {wanted}; evaluate it with the same options") from None
    scores = {task: float(results[task][figure.key]) for task, figure in chosen.items()}
    return delta_m(scores, baseline, {task for task, figure in chosen.items() if figure.lower})
