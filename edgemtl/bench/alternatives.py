"""Why not something simpler? The sparse model beside a dense ViT per task and a light convolution network.

Latency comes from this run, and depends on shapes alone, not on weights; accuracy comes from a study that trained all
of them on the same rooms with the same budget (edgemtl/train/study.py). Neither is made up where it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgemtl.bench.subjects import ALTERNATIVES
from edgemtl.errors import DataError

KINDS = ("rooms", *ALTERNATIVES)  # the first words of subjects
STUDIED = {"rooms": "paths", "single": "single-{}", "bisenet": "bisenet"}  # the study's names of the same models
WORDS = {
    "rooms": "one sparse model, the task's path alone",
    "single": "a dense ViT per task",
    "bisenet": "one two-stream convolution network, one head",
}


class _Lenient(BaseModel):
    """The study may say more than is read here."""

    model_config = ConfigDict(extra="ignore")


class Metric(_Lenient):
    metric: str
    value: float


class Member(_Lenient):
    name: str
    seed: int
    images_seen: int
    parameters: int
    metrics: dict[str, Metric]


class Study(_Lenient):
    """What `edgemtl.train.study` writes, as far as it is needed."""

    format: Literal["edgemtl-study"]
    version: Literal[1]
    origin: str
    test_images: int
    models: Annotated[list[Member], Field(max_length=10_000)]

    def find(self, kind: str, task: str) -> Member | None:
        """The model of a kind of subject that was scored on `task`, of the first seed."""
        name = STUDIED[kind].format(task)
        found = [m for m in self.models if m.name == name and task in m.metrics]
        return min(found, key=lambda m: m.seed, default=None)


class Alternative(NamedTuple):
    """One kind of model on one task. `engine` is the fastest; accuracy is None where the study has none."""

    kind: str
    task: str
    threads: int
    precision: str
    engine: str
    p50: float
    gmac: float
    parameters: int | None
    metric: str
    value: float | None
    images_seen: int | None


def read(path: Path) -> Study | None:
    """The study; None where there is no file. Raises DataError for a file that is no study."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise DataError(f"cannot read {path}: {e.strerror or e}") from None
    try:
        return Study.model_validate_json(text)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path} is no study of version 1 ({where}: {first['msg']}); make it: edgemtl.train.study"
        ) from None


def join(rows: Sequence[Mapping[str, Any]], study: Study | None) -> list[Alternative]:
    """The fastest engine of each kind of model, task, precision and thread count; empty without an alternative.

    rows: as in a document. A model is compared in its best engine, be it edgemtl's or a peer's.
    """
    best: dict[tuple[str, str, int, str], Mapping[str, Any]] = {}
    for row in rows:
        kind, _, task = row["subject"].partition(":")
        key = (kind, task, row["threads"], row["precision"])
        if kind in KINDS and row["p50"] is not None and (key not in best or row["p50"] < best[key]["p50"]):
            best[key] = row
    if not {*ALTERNATIVES} & {key[0] for key in best}:
        return []
    out = []
    for (kind, task, threads, precision), row in best.items():
        member = study.find(kind, task) if study else None
        metric = member.metrics[task] if member and precision == "fp32" else None
        out.append(
            Alternative(
                kind, task, threads, precision, row["engine"], row["p50"], row["gmac"],
                member.parameters if member else None, metric.metric if metric else "",
                metric.value if metric else None, member.images_seen if member else None,
            )
        )  # fmt: skip
    return sorted(out, key=lambda a: (a.task, a.precision, a.threads, KINDS.index(a.kind)))
