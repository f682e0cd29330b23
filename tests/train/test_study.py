"""A study in small: trained, stopped, gone on with, scored, and put into one file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from fake_rooms import FakeRooms
from rich.console import Console

from edgemtl.errors import ConfigError
from edgemtl.graph.count import count
from edgemtl.train import study as module
from edgemtl.train.config import shipped
from edgemtl.train.loop import Stopped, Trainer
from edgemtl.train.study import load_study, run
from edgemtl.train.study_file import Study, describe
from edgemtl.train.study_report import table

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

        def reports(self) -> list[str]:
            return ["2 of 8 images have no depth label"]

        def plain(self) -> Rooms:
            return Rooms(self.images, augment=False)

    monkeypatch.setattr(module, "open_data", lambda *a, **k: Rooms(8))
    for split, images in (("train", 24), ("val", 8)):
        (tmp_path / "data" / "gt_sets").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "gt_sets" / f"{split}.txt").write_text("".join(f"{i}\n" for i in range(images)))


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
    assert (report["format"], report["origin"], report["data"]) == ("edgemtl-study", "measured", "NYU Depth V2")
    assert (report["train_images"], report["test_images"]) == (24, 8)
    # the path model's images count those of the shared stage it started from: 2 + 3 steps of 4 images, as the open one
    assert entries["paths"]["images_seen"] == entries["open"]["images_seen"] == 20
    assert entries["paths"]["steps"] == 5
    assert (entries["paths"]["experts_per_path"], entries["open"]["experts_per_path"]) == (3, None)
    assert entries["single-depth"]["metrics"].keys() == {"depth"}
    assert entries["single-depth"]["delta_m"] == pytest.approx(0)
    assert entries["bisenet"]["network"] == "bisenet"
    alone = entries["paths"]["macs_of_task"]
    assert alone == entries["open"]["macs_of_task"]
    assert max(alone.values()) < entries["paths"]["macs"] < sum(alone.values())  # the prefix runs once
    want = _delta_by_hand(entries, "paths")
    assert entries["paths"]["delta_m"] == pytest.approx(want)
    other = study.model_copy(update={"base": {**BASE, "batch": 2}})
    with pytest.raises(ConfigError, match="batch changed since this run began"):
        run(other, out, console)
    text = table(report)
    assert len(text.splitlines()) == 2 + len(study.models)
    assert "| GMAC, all tasks |" in text.splitlines()[0]
    assert f"| {entries['bisenet']['macs'] / 1e9:.3f} |" in text
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


def test_models_can_be_trained_one_by_one(tmp_path: Path) -> None:
    """So that several processes can share a study; what another model starts from has to be there."""
    study, out, console = _study(tmp_path), tmp_path / "out", Console(quiet=True)
    report = json.loads(run(study, out, console, ["single-edge"]).read_text())
    assert [m["name"] for m in report["models"]] == ["single-edge"]
    with pytest.raises(ConfigError, match="paths starts from .*shared.safetensors, which is missing; train open first"):
        run(study, out, console, ["paths"])
    with pytest.raises(ConfigError, match="there is no model 'best' in this study; choose from open, paths"):
        run(study, out, console, ["best"])


def test_a_recipe_is_the_base_changed_key_by_key(tmp_path: Path) -> None:
    base = {**BASE, "loss": {"weights": {"depth": 2, "edge": 50}, "stride": 2}, "stages": SHARED}
    models = [
        {"name": "plain"},
        {"name": "log", "recipe": {"loss": {"depth": "log", "weights": {"edge": 9}}, "model": {"top_k": 1}}},
    ]
    study = Study(data=tmp_path, test=tmp_path, base=base, models=models)
    plain, log = (study.recipe(m, 0) for m in study.models)
    assert (plain.loss.depth, log.loss.depth, log.loss.stride) == ("l1", "log", 2)
    assert log.loss.weights == {"depth": 2, "edge": 9}
    assert log.stages == plain.stages
    assert plain.loss.weights == base["loss"]["weights"]  # not changed by the other's


def test_what_a_study_is_of(tmp_path: Path) -> None:
    for name in ("rooms", "photos"):
        (tmp_path / name / "gt_sets").mkdir(parents=True)
    (tmp_path / "rooms" / "rooms.json").write_text('{"classes": ["wall"]}')
    rooms, photos = tmp_path / "rooms", tmp_path / "photos"
    models = [{"name": "x", "recipe": {"stages": SHARED}}]

    def words(**given: Any) -> str:
        return describe(Study(models=models, base=BASE, **given))

    assert words(data=rooms, test=rooms) == "synthetic rooms"
    assert words(data=photos, test=photos) == "NYU Depth V2"
    assert words(data=rooms, test=photos) == "synthetic rooms, tested on NYU Depth V2"
    assert words(data=rooms, test=rooms, about="homes") == "homes"


def test_a_study_on_held_out_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test split is not touched: neither read nor counted. The recipe's augmentation is for training alone."""
    asked: list[tuple[str, float]] = []
    make = module.open_data

    def note(root: Path, split: str, *args: Any, photo: float = 0, **options: Any) -> Any:
        asked.append((split, photo))
        return make(root, split, *args, **options)

    monkeypatch.setattr(module, "open_data", note)
    base = {**BASE, "holdout": True, "photo": 0.5, "tasks": ["depth"], "stages": SHARED}
    study = Study(data=tmp_path / "data", base=base, models=[{"name": "only"}])
    said = io.StringIO()
    report = json.loads(run(study, tmp_path / "out", Console(file=said)).read_text())
    assert asked == [("train:fit", 0.5), ("train:fit", 0), ("train:hold", 0)]
    assert "2 of 8 images have no depth label" in said.getvalue()
    assert (report["train_images"], report["test_images"]) == (22, 2)
    assert report["data"] == "NYU Depth V2, a held-out tenth of train"


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


def test_the_hybrids_study_is_fair() -> None:
    """Every model sees as many images, and the single-task ones cost what the sparse one costs for their task."""
    study = load_study(Path("study_hybrid_first"))
    recipes = {m.name: study.recipe(m, 0) for m in study.models}
    steps = {name: sum(s.steps or 0 for s in recipe.stages) for name, recipe in recipes.items()}
    steps["paths"] += recipes["open"].stages[0].steps or 0
    assert set(steps.values()) == {200}
    assert {recipe.batch for recipe in recipes.values()} == {8}
    assert {name for name, recipe in recipes.items() if recipe.stem != "imagenet"} == {"bisenet"}
    sparse = count(recipes["open"].model_config_for("multi"), "depth")
    dense = count(recipes["single-depth"].model_config_for("single"), "depth")
    assert dense.total - dense.gates == sparse.total - sparse.gates


def test_the_losses_study_changes_one_thing_a_row() -> None:
    study = load_study(Path("study_losses"))
    recipes = {m.name: study.recipe(m, 0).model_dump() for m in study.models}
    plain = recipes["plain"]
    differ = {name: {k for k in plain if recipe[k] != plain[k]} for name, recipe in recipes.items()}
    changed = {"gradient": "loss", "log": "loss", "log-gradient": "loss", "rays": "model"}
    assert differ == {"plain": set(), "photo": {"photo"}, **{name: {what} for name, what in changed.items()}}
    assert (recipes["log-gradient"]["loss"]["depth"], recipes["log-gradient"]["loss"]["gradient"]) == ("log", 2)
    assert study.test is None  # val is not looked at


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: []", "data: Field required"),
        ("data: a\ntest: b\nmodels: [{name: x, recipe: {stages: []}}]", "model 'x': stages"),
        ("data: a\ntest: b\nmodels: [{name: x, recipe: {stages: [{name: open, stesp: 3}]}}]", r"did you mean 'steps'"),
        ("data: a\ntest: b\nmodels: [{name: x, init: y/open}]", "'y/open', which no earlier model makes"),
        ("data: a\ntest: b\nbaseline: [z]\nmodels: [{name: x}]", "there is no model 'z'"),
        ("data: a\ntest: b\nmodels: [{name: x}, {name: x}]", "names repeat"),
        ("data: a\nmodels: [{name: x, recipe: {stages: [{name: open, steps: 3}]}}]", "'x': give either `test`"),
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
