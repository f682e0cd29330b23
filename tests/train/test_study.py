"""A study in small: trained, stopped, gone on with, scored, and put into one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_rooms import FakeRooms
from rich.console import Console
from torch import Tensor

from edgemtl.errors import ConfigError
from edgemtl.train import study as module
from edgemtl.train.config import shipped
from edgemtl.train.loop import Stopped, Trainer
from edgemtl.train.study import load_study, run
from edgemtl.train.study_report import Study, table

BASE: dict[str, Any] = {
    "preset": "micro",
    "batch": 4,
    "ema": 0.5,
    "schedule": {"warmup": 1},
    "val_images": 0,
    "log_every": 1,
    "device": "cpu",
}
SHARED = [{"name": "shared", "steps": 2}]


@pytest.fixture(autouse=True)
def _calm(one_thread: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Rooms(FakeRooms):
        def preload(self) -> None:
            pass

        def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
            return super().batch(indices)

    monkeypatch.setattr(module, "open_data", lambda *a, **k: Rooms(8))
    for split, count in (("train", 8), ("val", 8)):
        (tmp_path / "data" / "gt_sets").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "gt_sets" / f"{split}.txt").write_text("".join(f"{i}\n" for i in range(count)))


def _study(folder: Path) -> Study:
    dense = {"experts": 1, "top_k": 1, "expert_ratio": 2}
    models = [
        {"name": "open", "recipe": {"stages": [*SHARED, {"name": "open", "steps": 3}]}},
        {
            "name": "paths",
            "init": "open/shared",
            "recipe": {"stages": [{"name": "open", "steps": 1}, {"name": "paths", "steps": 2, "experts_per_path": 3}]},
        },
        *(
            {"name": f"single-{task}", "recipe": {"model": dense, "tasks": [task], "stages": SHARED}}
            for task in ("semseg", "depth", "normals", "edge")
        ),
        {"name": "bisenet", "recipe": {"network": "bisenet", "stages": SHARED}},
    ]
    baseline = [f"single-{t}" for t in ("semseg", "depth", "normals", "edge")]
    return Study(data=folder / "data", test=folder / "data", baseline=baseline, base=BASE, models=models)


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, out, console = _study(tmp_path), tmp_path / "out", Console(quiet=True)
    train = Trainer.run

    def stop_in_paths(self: Trainer, **options: Any) -> Path:
        return train(self, **options, stop_after=2 if self.out.name == "paths-s0" else None)

    with monkeypatch.context() as m:
        m.setattr(Trainer, "run", stop_in_paths)
        with pytest.raises(Stopped):
            run(study, out, console)
    first = json.loads((out / "study.json").read_text())
    assert [m["name"] for m in first["models"]] == ["open"]
    assert first["models"][0]["delta_m"] is None  # nothing to compare with yet
    before = (out / "open-s0" / "model.safetensors").stat().st_mtime_ns

    report = json.loads(run(study, out, console).read_text())
    assert (out / "open-s0" / "model.safetensors").stat().st_mtime_ns == before
    entries = {m["name"]: m for m in report["models"]}
    assert list(entries) == [m.name for m in study.models]
    assert (report["format"], report["origin"], report["test_images"]) == ("edgemtl-study", "measured", 8)
    # the path model's images count those of the shared stage it started from: 2 + 3 steps of 4 images, as the open one
    assert entries["paths"]["images_seen"] == entries["open"]["images_seen"] == 20
    assert entries["paths"]["steps"] == 5
    assert (entries["paths"]["experts_per_path"], entries["open"]["experts_per_path"]) == (3, None)
    assert entries["single-depth"]["metrics"].keys() == {"depth"}
    assert entries["single-depth"]["delta_m"] == pytest.approx(0)
    assert entries["bisenet"]["network"] == "bisenet"
    want = _delta_by_hand(entries, "paths")
    assert entries["paths"]["delta_m"] == pytest.approx(want)
    changed = study.model_copy(update={"base": {**BASE, "batch": 2}})
    with pytest.raises(ConfigError, match="batch changed since this run began"):
        run(changed, out, console)
    text = table(report)
    assert len(text.splitlines()) == 2 + len(study.models)
    assert f"{entries['paths']['metrics']['depth']['value']:.4f}" in text


def test_a_table_of_several_seeds() -> None:
    def entry(name: str, seed: int, value: float, delta: float | None) -> dict[str, Any]:
        metrics = {"depth": {"metric": "rmse", "value": value, "trivial": 2.0}}
        rest = {"tasks": ["depth"], "images_seen": 80, "cpu_hours": 0.5 + seed, "delta_m": delta}
        return {"name": name, "seed": seed, "metrics": metrics, **rest}

    models = [entry("open", s, value, delta) for s, (value, delta) in enumerate([(0.5, 1.0), (0.6, 2.0), (0.7, 6.0)])]
    lines = table({"models": [*models, entry("bisenet", 0, 0.25, None)]}).splitlines()
    assert lines[2] == "| open | 0.6000 ± 0.1000 | +3.00 ± 2.65 | 80 | 1.50 | 3 |"
    assert lines[3] == "| bisenet | 0.2500 |  | 80 | 0.50 | 1 |"


def _delta_by_hand(entries: dict[str, Any], name: str) -> float:
    gains = []
    for task, up in (("semseg", 1), ("depth", -1), ("normals", -1), ("edge", 1)):
        base = entries[f"single-{task}"]["metrics"][task]["value"]
        gains.append(up * (entries[name]["metrics"][task]["value"] - base) / base)
    return 100 * sum(gains) / 4


def test_shipped_studies_load() -> None:
    assert "study_rooms" in shipped(studies=True)
    for name in shipped(studies=True):
        study = load_study(Path(name))
        steps = {m.name: [s.name for s in study.recipe(m, 0).stages] for m in study.models}
        assert all(steps.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: []", "data: Field required"),
        ("data: a\ntest: b\nmodels: [{name: x, recipe: {stages: []}}]", "model 'x': stages"),
        ("data: a\ntest: b\nmodels: [{name: x, recipe: {stages: [{name: open, stesp: 3}]}}]", r"did you mean 'steps'"),
        ("data: a\ntest: b\nmodels: [{name: x, init: y/open}]", "'y/open', which no earlier model makes"),
        ("data: a\ntest: b\nbaseline: [z]\nmodels: [{name: x}]", "there is no model 'z'"),
        ("data: a\ntest: b\nmodels: [{name: x}, {name: x}]", "names repeat"),
        ("- 1", "must hold a mapping"),
        ("models: [", "not YAML"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_study(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="there is no study"):
        load_study(Path("study_of_nothing"))
