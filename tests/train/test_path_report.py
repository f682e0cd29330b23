"""The report on task paths against counts worked out by hand, and the commands that print it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms

from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl.train.path_report import PathReport, make_report, report_on, summary
from edgemtl.train.paths import Usage, measure_usage

TASKS = ("semseg", "depth")
PATHS = {"semseg": ((0, 1, 2),), "depth": ((1, 2, 3),)}


def config(**changes: Any) -> Any:
    whole = preset("micro")
    tasks = tuple(t for t in whole.tasks if t.name in TASKS)
    return preset("micro", depth=2, tasks=tasks, **changes)


def usage(weight: list[float], chosen: list[int], first: list[int]) -> Usage:
    rows = (torch.tensor([values], dtype=torch.float64) for values in (weight, chosen, first))
    return Usage(*rows, tokens=1000)


MASKED = {  # top-2 of 1000 tokens each; experts 4 and 5 are on no path
    "semseg": usage([50, 600, 150, 0, 0, 0], [100, 997, 903, 0, 0, 0], [10, 880, 110, 0, 0, 0]),
    "depth": usage([0, 2, 498, 300, 0, 0], [0, 4, 998, 998, 0, 0], [0, 2, 498, 500, 0, 0]),
}
OPENED = {
    "semseg": usage([100, 600, 100, 100, 100, 0], [0] * 6, [0] * 6),
    "depth": usage([500, 10, 240, 250, 0, 0], [0] * 6, [0] * 6),
}


def report() -> PathReport:
    return make_report(config(paths=PATHS), MASKED, OPENED, 9, declared=True)


def test_by_hand() -> None:
    found = report()
    path = found.tasks["semseg"][1]
    assert (path.experts, path.in_use) == ((0, 1, 2), 3)
    assert path.kept == pytest.approx(0.8)
    assert path.tokens[:3] == pytest.approx((0.1, 0.997, 0.903))
    assert path.weight[1] == pytest.approx(600 / 800)
    assert found.tasks["depth"][1].kept == pytest.approx(0.5)
    assert found.tasks["depth"][1].in_use == 2
    both = found.overlap["semseg+depth"][1]
    assert (both.shared, both.either) == (2, 4)
    assert both.weight == pytest.approx(2 / 800 + 150 / 800)


def test_failures_by_hand() -> None:
    found = {(f.failure, f.expert, f.task): f for f in report().findings}
    assert set(found) == {
        ("collapse", 1, "semseg"),  # best choice of 88 %; expert 3's 50 % for depth is not over half
        ("degradation", 1, "semseg"),  # 600 of 602
        ("underfitting", 1, "depth"),  # 0.4 % of the tokens
        ("dead", 4, None),
        ("dead", 5, None),
    }
    assert found["collapse", 1, "semseg"].value == pytest.approx(0.88)
    assert found["degradation", 1, "semseg"].value == pytest.approx(600 / 602)
    assert all(f.threshold == report().thresholds[f.failure] for f in report().findings)


def test_paths_that_are_not_declared_bind_nothing() -> None:
    found = make_report(config(paths=PATHS), MASKED, MASKED, 9, declared=False)
    failures = {(f.failure, f.expert, f.task) for f in found.findings}
    assert ("underfitting", 3, "semseg") in failures  # off the path that it would have, and open to it
    assert ("dead", 4, None) in failures
    assert summary(found)[-1].endswith("block 1 expert 4, block 1 expert 5")


def test_the_text_says_it_all() -> None:
    assert summary(report()) == [
        "semseg: 3 experts per block, 3 in use, which get 80.0% of the open gates' weight (even use: 50.0%)",
        "depth: 3 experts per block, 2 in use, which get 50.0% of the open gates' weight (even use: 50.0%)",
        "semseg+depth: 2 experts per block in common, overlap of routed weight 19.0%",
        "collapse (threshold 50.0% of a task's tokens have one expert as best choice): block 1 expert 1 semseg 88.0%",
        "degradation (threshold 95.0% of a shared expert's weight comes from one task): block 1 expert 1 semseg 99.7%",
        "underfitting (threshold 0.5% of a task's tokens at least choose each expert of its path): "
        "block 1 expert 1 depth 0.4%",
        "dead (threshold 0.5% of some task's tokens at least choose each expert): 2 on no task's path",
    ]


def test_kept_is_measured_with_the_gates_open() -> None:
    torch.manual_seed(0)
    data = FakeRooms(6, augment=False)
    model = MultiTaskViT(config(paths=PATHS))
    opened = MultiTaskViT(config())
    opened.load_state_dict(model.state_dict())
    weight = measure_usage(opened, data)["depth"].weight[0]
    found = report_on(model, data)
    assert found.declared
    assert found.tasks["depth"][1].kept == pytest.approx(float(weight[[1, 2, 3]].sum() / weight.sum()))
    assert sum(found.tasks["depth"][1].tokens) == pytest.approx(2, abs=1e-4)  # the mask leaves top-2 of three
    assert sum(found.tasks["depth"][1].tokens[:1] + found.tasks["depth"][1].tokens[4:]) == 0


def test_without_paths_the_best_ones_are_reported() -> None:
    torch.manual_seed(0)
    data = FakeRooms(6, augment=False)
    model = MultiTaskViT(config())
    found = report_on(model, data, experts_per_path=4)
    assert not found.declared
    weight = measure_usage(model, data)["depth"].weight[0]
    best = weight.argsort(descending=True)[:4].tolist()
    assert list(found.tasks["depth"][1].experts) == best
    assert found.tasks["depth"][1].kept == pytest.approx(float(weight[best].sum() / weight.sum()))
    assert report_on(model, data).tasks["depth"][1].kept is None


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "m.safetensors", MultiTaskViT(config(paths=PATHS)))
    from edgemtl.train import data

    monkeypatch.setattr(data, "open_data", lambda root, split, config: FakeRooms(5, augment=False))
    return tmp_path / "m.safetensors"


def test_the_command(checkpoint: Path, cli: Callable[..., Any]) -> None:
    out = checkpoint.with_name("report.json")
    said = cli("paths", checkpoint, "--data", "rooms", "-o", out)
    assert said.code == 0, said.err
    assert "5 images of rooms, train, measured" in said.out
    assert "semseg+depth: 2 experts per block in common" in said.out
    written = PathReport.model_validate_json(out.read_text())
    assert written.images == 5
    said = cli("paths", checkpoint, "--data", "rooms", "--json")
    assert json.loads(said.out) == json.loads(out.read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.edgemtl"], "x.edgemtl is a bundle; give the checkpoint"),
        (["x.safetensors"], "there is no checkpoint x.safetensors"),
        ([None, "--experts", 4], "has declared paths; leave out --experts"),
    ],
)
def test_the_command_refuses(checkpoint: Path, cli: Callable[..., Any], arguments: list[Any], message: str) -> None:
    first, *rest = arguments
    said = cli("paths", first or checkpoint, "--data", "rooms", *rest)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_a_training_run_reports_its_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from edgemtl.model.checkpoint import load_checkpoint
    from edgemtl.train.config import TrainConfig
    from edgemtl.train.loop import Sets, Trainer
    from edgemtl.train.report import Reporter

    stages = [{"name": "open", "steps": 2}, {"name": "paths", "steps": 2, "experts_per_path": 3, "rank_images": 4}]
    recipe = TrainConfig(**{"preset": "micro", "batch": 2, "device": "cpu", "val_images": 0, "stages": stages})
    sets = Sets(FakeRooms(6), FakeRooms(6, augment=False))
    Trainer(recipe, tmp_path, sets, Reporter(Console(stderr=True))).run()
    first, last = (
        PathReport.model_validate_json((tmp_path / f"{n}.json").read_text()) for n in ("paths-declared", "paths")
    )
    assert (first.declared, last.declared) == (False, True)
    _, info = load_checkpoint(tmp_path / "model.safetensors")
    assert first.paths == last.paths == info.config.paths
    kept = first.kept("depth")
    assert kept is not None
    assert f"get {kept:.1%} of the open gates' weight" in capsys.readouterr().err
