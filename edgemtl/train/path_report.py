"""What the gates made of their experts: a report on task paths, and the ways in which multi-task experts fail.

The three failures are those that HoME names for multi-gate experts (Wang et al., 2024: collapse, degradation,
underfitting), in the form in which routing shows them; the thresholds are constants here and part of every report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Literal

from torch import Tensor

from edgemtl.config import ModelConfig, Strict
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import Samples, spread
from edgemtl.train.paths import Usage, best_paths, measure_usage

Failure = Literal["collapse", "degradation", "underfitting", "dead"]
THRESHOLDS: dict[Failure, float] = {
    "collapse": 0.5,  # one expert is the best choice of more than this share of a task's tokens
    "degradation": 0.95,  # an expert open to several tasks gets more than this share of its weight from one of them
    "underfitting": 0.005,  # a task gives an expert of its path fewer than this share of its tokens
    "dead": 0.005,  # no task gives the expert this share of its tokens
}


class Path(Strict):
    """One task in one MoE block. Shares of tokens and weight are per expert id, all `experts` of the model."""

    experts: tuple[int, ...]  # that the task may choose, most used first where a path is declared
    kept: float | None  # share of the open gate's routed weight that these experts get; None: all are open
    even: float  # what `kept` would be if all experts had the same weight
    in_use: int  # experts that get at least the underfitting share of the tokens
    tokens: tuple[float, ...]
    first: tuple[float, ...]
    weight: tuple[float, ...]


class Overlap(Strict):
    """Two tasks in one block: experts open to both, those to either, and Σ min of their shares of weight."""

    shared: int
    either: int
    weight: float


class Finding(Strict):
    """One failure; `value` is what is beyond the threshold. An expert that is dead is no task's."""

    failure: Failure
    block: int
    expert: int
    task: str | None
    value: float
    threshold: float


class PathReport(Strict):
    """All of it, by task or pair of tasks ("depth+edge") and MoE block; `images` that it was measured on."""

    format: Literal["edgemtl-paths"] = "edgemtl-paths"
    version: Literal[1] = 1
    origin: Literal["measured"] = "measured"
    images: int
    declared: bool
    thresholds: dict[Failure, float] = THRESHOLDS
    tasks: dict[str, dict[int, Path]]
    overlap: dict[str, dict[int, Overlap]]
    findings: tuple[Finding, ...]

    @property
    def paths(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The experts per task and block, as `ModelConfig.paths` has them."""
        return {task: tuple(path.experts for path in blocks.values()) for task, blocks in self.tasks.items()}

    def users(self, finding: Finding) -> list[str]:
        """The tasks on whose path the finding's expert is."""
        return [t for t, blocks in self.tasks.items() if finding.expert in blocks[finding.block].experts]

    def kept(self, task: str) -> float | None:
        """The mean over blocks of the routed weight kept."""
        values = [path.kept for path in self.tasks[task].values() if path.kept is not None]
        return sum(values) / len(values) if values else None


def report_on(model: MultiTaskViT, data: Samples, *, images: int = 512, experts_per_path: int = 0) -> PathReport:
    """Measure a model as it is, and for `kept` with all its gates open.

    A model without declared paths is reported as if it had the best ones of `experts_per_path`, where that is given:
    experts and `kept` are then those paths', the tokens' shares the open gates'.
    """
    config = model.config
    usage = measure_usage(model, data, images=images)
    count = len(spread(data, images))
    if not config.paths:
        config = best_paths(config, usage, experts_per_path) if experts_per_path else config
        return make_report(config, usage, usage, count, declared=False)
    opened = MultiTaskViT(config.model_copy(update={"paths": {}}))
    opened.load_state_dict(model.state_dict())
    opened = opened.to(next(model.parameters()).device)
    return make_report(config, usage, measure_usage(opened, data, images=images), count, declared=True)


def make_report(
    config: ModelConfig, usage: Mapping[str, Usage], opened: Mapping[str, Usage], images: int, *, declared: bool
) -> PathReport:
    """The report on `config`'s paths from the usage of its gates, and of the same gates opened.

    Paths that are not `declared` bind no gate: failures are then looked for among all experts.
    """
    tasks: dict[str, dict[int, Path]] = {}
    for task in config.task_names:
        tasks[task] = {
            block: _path(config, task, which, usage[task], opened[task])
            for which, block in enumerate(config.moe_blocks)
        }
    overlap = {
        f"{a}+{b}": {block: _overlap(tasks[a][block], tasks[b][block]) for block in config.moe_blocks}
        for a, b in combinations(config.task_names, 2)
    }
    bound = config if declared else config.model_copy(update={"paths": {}})
    findings = tuple(f for which in range(len(config.moe_blocks)) for f in _findings(bound, usage, which))
    return PathReport(images=images, declared=declared, tasks=tasks, overlap=overlap, findings=findings)


def _path(config: ModelConfig, task: str, which: int, usage: Usage, opened: Usage) -> Path:
    ids = config.paths.get(task, config.held)[which]
    tokens = _share(usage.chosen[which], usage.tokens)
    kept = None
    if task in config.paths:
        kept = float(opened.weight[which][list(ids)].sum() / opened.weight[which].sum().clamp(min=1e-12))
    return Path(
        experts=ids,
        kept=kept,
        even=len(ids) / len(config.held[which]),
        in_use=sum(tokens[e] >= THRESHOLDS["underfitting"] for e in ids),
        tokens=tokens,
        first=_share(usage.first[which], usage.tokens),
        weight=_share(usage.weight[which], float(usage.weight[which].sum())),
    )


def _share(values: Tensor, total: float) -> tuple[float, ...]:
    return tuple(round(v / max(total, 1e-12), 6) for v in values.tolist())


def _overlap(a: Path, b: Path) -> Overlap:
    shared, either = set(a.experts) & set(b.experts), set(a.experts) | set(b.experts)
    return Overlap(shared=len(shared), either=len(either), weight=sum(map(min, a.weight, b.weight)))


def _findings(config: ModelConfig, usage: Mapping[str, Usage], which: int) -> Iterator[Finding]:
    """Failures of one MoE block, expert by expert."""

    def finding(failure: Failure, expert: int, task: str | None, value: float) -> Finding:
        block, limit = config.moe_blocks[which], THRESHOLDS[failure]
        return Finding(failure=failure, block=block, expert=expert, task=task, value=value, threshold=limit)

    tokens = {t: _share(u.chosen[which], u.tokens) for t, u in usage.items()}
    first = {t: _share(u.first[which], u.tokens) for t, u in usage.items()}
    for expert in config.held[which]:
        users = [t for t in config.task_names if expert in config.path(t)[which]]
        most = max((tokens[t][expert] for t in users), default=0.0)
        if most < THRESHOLDS["dead"]:
            yield finding("dead", expert, None, most)
            continue
        weight = {t: float(usage[t].weight[which][expert]) for t in users}
        top = max(users, key=lambda t: weight[t])
        alone = weight[top] / sum(weight.values())
        if len(users) > 1 and config.gate != "single" and alone > THRESHOLDS["degradation"]:
            yield finding("degradation", expert, top, alone)
        for task in users:
            if first[task][expert] > THRESHOLDS["collapse"]:
                yield finding("collapse", expert, task, first[task][expert])
            if tokens[task][expert] < THRESHOLDS["underfitting"]:
                yield finding("underfitting", expert, task, tokens[task][expert])


def summary(report: PathReport) -> list[str]:
    """The report in lines of text: per task, per pair of tasks, and what was found."""
    lines = []
    for task, blocks in report.tasks.items():
        sizes, used = [len(p.experts) for p in blocks.values()], [p.in_use for p in blocks.values()]
        kept = report.kept(task)
        even = sum(p.even for p in blocks.values()) / len(blocks)
        share = "" if kept is None else f", which get {kept:.1%} of the open gates' weight (even use: {even:.1%})"
        lines.append(f"{task}: {_span(sizes)} experts per block, {_span(used)} in use{share}")
    for pair, found in report.overlap.items():
        mean = sum(o.weight for o in found.values()) / len(found)
        shared = _span([o.shared for o in found.values()])
        lines.append(f"{pair}: {shared} experts per block in common, overlap of routed weight {mean:.1%}")
    for failure, limit in report.thresholds.items():
        found_here = [f for f in report.findings if f.failure == failure]
        nobodys = [f for f in found_here if report.declared and not report.users(f)]
        places = _places([f for f in found_here if f not in nobodys])
        rest = f"{len(nobodys)} on no task's path" if nobodys else ""
        found_text = ", ".join(text for text in (places, rest) if text) or "none"
        lines.append(f"{failure} (threshold {limit:.1%} {_MEANING[failure]}): {found_text}")
    return lines


_MEANING: dict[Failure, str] = {
    "collapse": "of a task's tokens have one expert as best choice",
    "degradation": "of a shared expert's weight comes from one task",
    "underfitting": "of a task's tokens at least choose each expert of its path",
    "dead": "of some task's tokens at least choose each expert",
}


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _places(found: list[Finding], most: int = 8) -> str:
    places = [f"block {f.block} expert {f.expert}" + (f" {f.task} {f.value:.1%}" if f.task else "") for f in found]
    rest = f" and {len(places) - most} more" if len(places) > most else ""
    return ", ".join(places[:most]) + rest
