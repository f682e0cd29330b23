"""Recipes: the shipped ones load, and every mistake gets one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.errors import ConfigError
from edgemtl.train.config import load_train_config, shipped


def test_shipped_recipes_load() -> None:
    assert set(shipped()) == {"rooms_micro", "rooms_tiny", "rooms_tiny_depth"}
    for name in shipped():
        recipe = load_train_config(name)
        assert recipe.stages[-1].name == "paths"  # what ships can be sliced


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
        ("stages: [{name: open, steps: 1, tasks_per_step: 5}]", "more than the 4 tasks"),
        ("preset: huge\nstages: [{name: open, steps: 1}]", "no preset 'huge'"),
        ("model: {dim: 100}\nstages: [{name: open, steps: 1}]", "dim 100 does not divide"),
        ("model: {paths: {}}\nstages: [{name: open, steps: 1}]", "set by the stages"),
        ("model: {tok_k: 2}\nstages: [{name: open, steps: 1}]", "unknown key 'tok_k'; did you mean 'top_k'"),
        ("optimiser: {lr: fast}\nstages: [{name: open, steps: 1}]", r"optimiser\.lr"),
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


def test_no_such_recipe() -> None:
    with pytest.raises(ConfigError, match="give a YAML file or one of rooms_micro, rooms_tiny"):
        load_train_config("rooms_huge")
