"""Configurations that cannot work are refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgemtl.config import RESERVED, ModelConfig, TaskConfig
from edgemtl.errors import ConfigError
from edgemtl.model.presets import ROOMS_TASKS, preset

RANKED = dict.fromkeys(ROOMS_TASKS, ((3, 1, 2, 0),) * 6)
DEPTH = TaskConfig(name="depth", kind="depth", channels=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": (100, 256)}, "whole number of 16-pixel patches"),
        ({"image_size": (16, 160000)}, "less than or equal to 32768"),
        ({"norm_eps": float("nan")}, "norm_eps"),
        ({"norm_eps": -1e-6}, "norm_eps"),
        ({"moe": (1,) * 1000}, "at most 64 items"),
        ({"rays": True, "fov": 60.0}, "head pyramid alone"),
        ({"expert_ratio": 1e-3}, "expert_ratio 0.001 of dim 192 rounds to a width of 0"),
        ({"mlp_ratio": 1e-3}, "mlp_ratio 0.001 of dim 192 rounds to a width of 0"),
        ({"image_std": (0.2, 0.0, 0.2)}, "greater than or equal to 0.01"),
        ({"image_std": (0.2, float("inf"), 0.2)}, "finite"),
        ({"dim": 190}, "does not divide into 3 heads"),
        ({"head_stride": 3}, "does not divide the patch"),
        ({"top_k": 17}, "more than the 16 experts"),
        ({"tasks": (DEPTH, DEPTH)}, "repeat"),
        ({"paths": {"sky": ()}}, "no task of this model"),
        ({"paths": {"depth": ((0, 1, 2, 3),)}}, "names 1 MoE blocks, the model has 6"),
        ({"paths": {"depth": ((3, 1, 1, 0),) * 6}}, "not repeat"),
        ({"slots": ((3, 1, 2, 0),) * 6}, "ascend"),
        ({"widths": (2, 4)}, "size of all paths"),
        ({"widths": (4,), "paths": RANKED, "router": "dselect_k"}, "leave widths"),
        ({"widths": (4, 2), "paths": RANKED}, "widths must ascend"),
        ({"widths": (2, 3), "paths": RANKED}, "size of all paths"),
        ({"widths": (0, 4), "paths": RANKED}, "greater than or equal to 1"),
        ({"widths": (2, 4), "paths": {"depth": ((3, 1, 2, 0),) * 6}}, "for every task"),
        ({"paths": {"depth": ((0, 1, 2),) * 6}}, "fewer than top_k"),
        ({"paths": {"depth": ((0, 1, 2, 16),) * 6}}, "below 16"),
        ({"slots": ((0, 1, 2, 3),) * 6, "paths": {"depth": ((0, 1, 2, 4),) * 6}}, "does not hold"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        preset("tiny", **changes)


def test_task_channels_follow_the_kind() -> None:
    with pytest.raises(ValidationError, match="has 3 channel"):
        TaskConfig(name="normals", kind="normals", channels=1)
    with pytest.raises(ValidationError, match="names 2 classes"):
        TaskConfig(name="semseg", kind="semseg", channels=3, classes=("a", "b"))


@pytest.mark.parametrize("name", RESERVED)
def test_reserved_task_names(name: str) -> None:
    with pytest.raises(ValidationError, match="another meaning"):
        TaskConfig(name=name, kind="depth", channels=1)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(ConfigError, match="tiny, edge-moe, micro"):
        preset("small")


def test_json_round_trip() -> None:
    config = preset("tiny", paths={"depth": ((0, 1, 2, 3, 8, 9),) * 6})
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_shapes_of_tiny_are_the_papers() -> None:
    config = preset("tiny")
    assert (config.tokens, config.moe_blocks) == (129, (1, 3, 5, 7, 9, 11))
    assert (config.expert_hidden, config.mlp_hidden, config.map_size) == (192, 768, (32, 64))


def test_a_path_lists_the_most_used_first_and_a_width_keeps_these() -> None:
    config = preset("tiny", paths=RANKED, widths=(1, 2, 4))
    assert config.path("depth") == ((0, 1, 2, 3),) * 6  # what programs are built from ascends
    assert ModelConfig.model_validate_json(config.model_dump_json()).paths == RANKED
    narrow = config.at_width(2)
    assert (narrow.paths["edge"], narrow.path("edge"), narrow.top_k) == (((3, 1),) * 6, ((1, 3),) * 6, 2)
    assert config.at_width(4) == config
    alone = narrow.alone("edge")
    assert (alone.task_names, alone.slots, alone.paths, alone.widths) == (("edge",), ((1, 3),) * 6, {}, ())
    with pytest.raises(ConfigError, match="of width 3: it was trained at 1, 2, 4"):
        config.at_width(3)
    with pytest.raises(ConfigError, match="with whole paths alone"):
        preset("tiny", paths=RANKED).at_width(2)
