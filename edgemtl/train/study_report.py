"""The outcome of a study as `study.json` and as a table; `edgemtl.train.study` runs one."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.data.layout import find_layout
from edgemtl.model.checkpoint import write_atomic
from edgemtl.train.comparators import Network, load_network
from edgemtl.train.delta import delta_m
from edgemtl.train.evaluate import main_metrics
from edgemtl.train.study_file import Member, Study, describe


def write_report(study: Study, out: Path) -> Path:
    """study.json of all models that have been scored, as the module's text describes it."""
    models = []
    for seed in study.seeds:
        done = {m.name: m for m in study.models if (out / f"{m.name}-s{seed}" / "scores.json").exists()}
        for member in done.values():
            models.append(_entry(study, out, member, seed, set(done)))
    report = {
        "format": "edgemtl-study",
        "version": 1,
        "origin": "measured",
        "data": describe(study),
        "commit": _commit(),
        "machine": _processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "train_images": _images(study.data, study.trained_on),
        "test_images": _images(*study.tested_on),
        "baseline": list(study.baseline),
        "models": models,
    }
    path = out / "study.json"
    write_atomic(path, (json.dumps(report, indent=1) + "\n").encode())
    return path


def _images(root: Path, split: str) -> int:
    return len(find_layout(root).part(root, split)[1])


def macs(model: Network, tasks: Sequence[str]) -> int:
    """Multiply-accumulates of one frame for `tasks` together, counted in a run by PyTorch's counter.

    Norms, activations and resizing count as nothing, as in `edgemtl.graph.count`; nor do the gates' small products.
    """
    image = torch.zeros(1, 3, *model.config.image_size)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image, tasks)
    return counter.get_total_flops() // 2


def _entry(study: Study, out: Path, member: Member, seed: int, done: set[str]) -> dict[str, Any]:
    folder, recipe = out / f"{member.name}-s{seed}", study.recipe(member, seed)
    scores, model = _scores(folder), load_network(folder / "model.safetensors")
    images, steps, wall, cpu = _spent(study, out, member, seed)
    baseline = {t: s for n in study.baseline if n in done for t, s in _scores(out / f"{n}-s{seed}").items()}
    paths = [len(bank) for path in model.config.paths.values() for bank in path]
    return {
        "name": member.name,
        "seed": seed,
        "what": member.what,
        "tasks": list(model.config.task_names),
        "network": recipe.network,
        "parameters": sum(p.numel() for p in model.parameters()),
        "macs": macs(model, model.config.task_names),
        "macs_of_task": {task: macs(model, [task]) for task in model.config.task_names},
        "images_seen": images,
        "steps": steps,
        "batch": recipe.batch,
        "wall_hours": round(wall / 3600, 3),
        "cpu_hours": round(cpu / 3600, 3),
        "checkpoint": f"{folder.name}/model.safetensors",
        "experts_per_path": max(paths, default=None),
        "metrics": {task: _main(score) for task, score in scores.items()},
        "delta_m": _delta(scores, baseline),
    }


def _scores(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads((folder / "scores.json").read_text())
    return {task: score for task, score in scores.items() if task != "images"}


def _main(score: dict[str, Any]) -> dict[str, Any]:
    key = next(k for k in main_metrics() if k in score)
    return {"metric": key, "value": score[key], "trivial": score[key + "_baseline"]}


def _delta(scores: dict[str, Any], baseline: dict[str, Any]) -> float | None:
    """Δm over the tasks of `scores`; None while the baseline lacks one."""
    if not scores or not set(scores) <= set(baseline):
        return None
    ours, theirs = ({t: _main(side[t]) for t in scores} for side in (scores, baseline))
    falling = {t for t, m in ours.items() if main_metrics()[m["metric"]][1] == "↓"}
    values = [{t: float(m["value"]) for t, m in side.items()} for side in (ours, theirs)]
    return delta_m(values[0], values[1], falling)


def _spent(study: Study, out: Path, member: Member, seed: int) -> tuple[int, int, float, float]:
    """Images seen, steps, wall and CPU seconds of a model, with those of the stages it started from."""
    recipe = study.recipe(member, seed)
    stages = recipe.stages
    steps = sum(s.steps or 0 for s in stages)
    images = sum((s.steps or 0) * (s.batch or recipe.batch) for s in stages)
    times = [json.loads(line) for line in (out / f"{member.name}-s{seed}" / "times.jsonl").read_text().splitlines()]
    wall, cpu = (sum(t[k] for t in times) for k in ("wall", "cpu"))
    if member.init:
        source, _, stage = member.init.partition("/")
        before = next(m for m in study.models if m.name == source)
        parent = study.recipe(before, seed)
        all_images, all_steps, all_wall, all_cpu = _spent(study, out, before, seed)
        last = [s.name for s in parent.stages].index(stage) + 1  # type: ignore[arg-type]
        skipped = parent.stages[last:]
        steps += all_steps - sum(s.steps or 0 for s in skipped)
        images += all_images - sum((s.steps or 0) * (s.batch or parent.batch) for s in skipped)
        share = 1 - sum(s.steps or 0 for s in skipped) / max(1, all_steps)
        wall, cpu = wall + share * all_wall, cpu + share * all_cpu  # by share of steps: an estimate
    return images, steps, wall, cpu


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table, a row per model; of several seeds their mean ± standard deviation (n - 1)."""
    models = report["models"]
    tasks = list(dict.fromkeys(t for m in models for t in m["tasks"]))
    shown = {t: main_metrics()[m["metrics"][t]["metric"]] for m in models for t in m["tasks"]}
    counted = all("macs" in m for m in models)
    work = ["GMAC, all tasks"] if counted else []
    heads = [*(f"{t} {' '.join(shown[t])}" for t in tasks), "Δm %", *work, "images", "CPU h", "seeds"]
    lines = [f"| model | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(m["name"] for m in models):
        runs = [m for m in models if m["name"] == name]
        cells = [_spread([m["metrics"][t]["value"] for m in runs if t in m["metrics"]], ".4f") for t in tasks]
        cells.append(_spread([m["delta_m"] for m in runs if m["delta_m"] is not None], "+.2f"))
        if counted:
            cells.append(f"{runs[0]['macs'] / 1e9:.3f}")
        cells += [str(runs[0]["images_seen"]), f"{mean(m['cpu_hours'] for m in runs):.2f}", str(len(runs))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return "".join(f"{v:{form}}" for v in values)
    return f"{mean(values):{form}} ± {stdev(values):{form.removeprefix('+')}}"


def line(report: dict[str, Any], name: str, seed: int) -> str:
    entry = next(m for m in report["models"] if m["name"] == name and m["seed"] == seed)
    text = ", ".join(f"{t} {m['metric']} {m['value']:.4f} ({m['trivial']:.4f})" for t, m in entry["metrics"].items())
    return text + ("" if entry["delta_m"] is None else f"; delta-m {entry['delta_m']:+.2f} %")


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _commit() -> str | None:
    """The checkout's commit, if edgemtl runs from one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
