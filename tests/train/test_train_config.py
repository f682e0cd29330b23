"""Recipes: the shipped ones load, and every mistake gets one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.data.layout import layouts
from edgemtl.errors import ConfigError
from edgemtl.train.config import load_train_config, shipped


def test_shipped_recipes_load() -> None:
    real, hybrid = {"cityscapes", "nyud", "pascal"}, {"rooms_hybrid", "homes_hybrid", "indoor", "nyud_hybrid"}
    assert set(shipped()) == {"rooms_micro", "rooms_tiny", "rooms_tiny_depth", *real, *hybrid}
    for name in shipped():
        recipe = load_train_config(name)
        first = name in hybrid - {"indoor"}  # what others start from, or are compared with
        assert recipe.stages[-1].name == ("shared" if first else "paths")  # what ships can be sliced


@pytest.mark.parametrize("name", ["nyud", "pascal", "cityscapes"])
def test_recipes_of_data_sets_train_what_these_label(name: str) -> None:
    """Kinds and classes as the loader's; M3ViT's optimiser, schedule and loss weights (reference code and paper)."""
    layout, recipe = layouts()[name], load_train_config(name)
    for task in recipe.model_config_for("multi").tasks:
        label = layout.labels[task.name]
        assert task.kind == label.kind
        if task.kind == "semseg":
            assert task.channels == label.classes
    assert set(recipe.model_config_for("multi").task_names) == set(layout.labels)
    optimiser = recipe.optimiser
    assert (optimiser.kind, optimiser.lr, optimiser.momentum, optimiser.weight_decay) == ("sgd", 0.002, 0.9, 1e-4)
    assert (recipe.schedule.kind, recipe.schedule.power, recipe.batch) == ("poly", 0.9, 16)
    published = {"semseg": 1, "depth": 1, "human_parts": 2, "saliency": 5, "edge": 50, "normals": 10}
    assert recipe.loss.weights == {task: published[task] for task in recipe.loss.weights}
    assert recipe.loss.weights.keys() == set(layout.labels)
    assert (recipe.stages[0].name, recipe.stages[0].epochs) == ("open", 100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [{name: shared, steps: 3}]\nbacth: 4", r"unknown key 'bacth'; did you mean 'batch'\?"),
        ("stages: [{name: shared, steps: 3, zoom: 4}]", r"unknown key 'stages\.0\.zoom'"),
        ("stages: [{name: shared}]", "needs either steps or epochs"),
        ("stages: [{name: shared, steps: 3, epochs: 2}]", "needs either steps or epochs"),
        ("stages: []", "stages"),
        ("batch: 4", "stages"),
        ("stages: [{name: paths, steps: 1}, {name: open, steps: 1}]", "order shared, open, paths"),
        ("stages: [{name: open, steps: 1}, {name: open, steps: 1}]", "at most once"),
        ("stages: [{name: paths, steps: 1, experts_per_path: 3}]", "between top_k 4 and the 16 experts"),
        ("stages: [{name: open, steps: 1, widths: true}]", "widths are for stage 'paths'"),
        ("stages: [{name: paths, steps: 1, widths: [2, 7]}]", r"between 1 and experts_per_path 6, not \(2, 7\)"),
        ("stages: [{name: paths, steps: 1, widths: [0]}]", r"between 1 and .* 6, not \(0,\)"),
        ("model: {router: dselect_k}\nstages: [{name: paths, steps: 1, widths: true}]", "leave widths out"),
        ("stages: [{name: open, steps: 1, tasks_per_step: 5}]", "more than the 4 tasks"),
        ("preset: huge\nstages: [{name: open, steps: 1}]", "no preset 'huge'"),
        ("model: {dim: 100}\nstages: [{name: open, steps: 1}]", "dim 100 does not divide"),
        ("model: {paths: {}}\nstages: [{name: open, steps: 1}]", "set by the stages"),
        ("model: {tok_k: 2}\nstages: [{name: open, steps: 1}]", "unknown key 'tok_k'; did you mean 'top_k'"),
        ("optimiser: {lr: fast}\nstages: [{name: open, steps: 1}]", r"optimiser\.lr"),
        ("tasks: [sleep]\nstages: [{name: open, steps: 1}]", "there is no task 'sleep'; choose from semseg, depth"),
        ("loss: {weights: {dpeth: 2}}\nstages: [{name: open, steps: 1}]", "no task 'dpeth'; choose from depth, edge"),
        ("network: bisenet\nstages: [{name: open, steps: 1}]", "give it the one stage shared"),
        ("network: bisenet\nmodel: {image_size: [48, 64]}\nstages: [{name: shared, steps: 1}]", "multiples of 32"),
        ("preset: hybrid\nmodel: {depth: 0}\nstages: [{name: paths, steps: 1}]", "no block of this model has any"),
        ("preset: hybrid\nstem: a\nmodel: {head_norm: false}\nstages: [{name: shared, steps: 1}]", "batch norms"),
        ("model: {gate_bias: true}\nstages: [{name: shared, steps: 1}]", "gate_bias is for gates of one task"),
        ("model: {rays: true, fov: 60}\nstages: [{name: shared, steps: 1}]", "head pyramid alone"),
        ("model: {image_size: [160000, 16]}\nstages: [{name: shared, steps: 1}]", r"image_size\.0"),
        ("optimiser: {betas: [2, 2]}\nstages: [{name: open, steps: 1}]", r"optimiser\.betas"),
        ("stages: [{name: open, epochs: .inf}]", "epochs"),
        ("balancer: {kind: fair}\nstages: [{name: open, steps: 1}]", r"balancer\.kind"),
        ("stages: [", "not YAML"),
        ("- 3", "must hold a mapping"),
        ("3: 4", "keywords must be strings"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_train_config(file)
    assert "\n" not in str(caught.value)


def test_a_recipe_may_name_its_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("model: {name: mine}\nstages: [{name: open, steps: 1}]")
    assert load_train_config(tmp_path / "recipe.yaml").model_config_for("multi").name == "mine"


def test_no_such_recipe() -> None:
    with pytest.raises(ConfigError, match="give a YAML file or one of cityscapes, .*rooms_micro, rooms_tiny"):
        load_train_config("rooms_huge")
