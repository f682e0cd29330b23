"""Why not something simpler? The sparse model beside a dense ViT per task and a light convolution network.

Latency comes from this run, and depends on shapes alone, not on weights; accuracy comes from a study that trained all
of them on the same rooms with the same budget (edgemtl/train/study.py). Neither is made up where it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
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

    def find(self, kind: str, task: str) -> list[Member]:
        """The models of a kind of subject that were scored on `task`: one per seed."""
        name = STUDIED[kind].format(task)
        return [m for m in self.models if m.name == name and task in m.metrics]


class Alternative(NamedTuple):
    """One kind of model on one task. `engine` is the fastest; `value` is the mean over the study's seeds, or None."""

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
    """The fastest engine of each kind of model, wherever several kinds do one task in one precision and thread count.

    rows: as in a document. A model is compared in its best engine, be it edgemtl's or a peer's.
    """
    best: dict[tuple[str, str, int, str], Mapping[str, Any]] = {}
    for row in rows:
        kind, _, task = row["subject"].partition(":")
        key = (kind, task, row["threads"], row["precision"])
        if kind in KINDS and row["p50"] is not None and (key not in best or row["p50"] < best[key]["p50"]):
            best[key] = row
    out = []
    for (kind, task, threads, precision), row in best.items():
        if sum(key[1:] == (task, threads, precision) for key in best) < 2:
            continue
        members = study.find(kind, task) if study else []
        metrics = [m.metrics[task] for m in members] if precision == "fp32" else []
        out.append(
            Alternative(
                kind, task, threads, precision, row["engine"], row["p50"], row["gmac"],
                members[0].parameters if members else None, metrics[0].metric if metrics else "",
                mean(m.value for m in metrics) if metrics else None, members[0].images_seen if members else None,
            )
        )  # fmt: skip
    return sorted(out, key=lambda a: (a.task, a.precision, a.threads, KINDS.index(a.kind)))
