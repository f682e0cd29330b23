"""Trained states made into deployable ones: the maps stay PyTorch's, and what does not fit is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgemtl.bundle.deployable import deployable
from edgemtl.errors import CheckpointError, ConfigError, TaskError
from edgemtl.graph import from_state, network, run
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import arrays

PATHS = {"depth": ((0, 2, 3), (1, 4, 5))}


def seeded(**changes: Any) -> MultiTaskViT:
    """A small model with weights, norms' statistics included, far from their start."""
    torch.manual_seed(1)
    model = MultiTaskViT(preset("micro", **changes)).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            value.add_(0.2 * torch.randn_like(value)).abs_() if key.endswith("running_var") else value.mul_(1.5)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": PATHS},
        {"gate": "single"},
        {"gate": "conditioned", "router": "noisy", "renormalise": True},
        {"head": "conv", "head_stride": 2, "head_norm": True, "router": "noisy", "renormalise": True},
        {"stem": "lite0", "head": "pyramid", "head_norm": True, "head_stride": 4, "rays": True, "fov": 60.0},
    ],
    ids=lambda c: " ".join(map(str, c.values())),
)
@pytest.mark.parametrize("tasks", [None, ("depth", "normals")])
def test_maps_stay(changes: dict[str, Any], tasks: tuple[str, ...] | None) -> None:
    model = seeded(**changes)
    config, state = deployable(model.config, arrays(model.state_dict()), tasks)
    assert set(config.task_names) == set(tasks or model.config.task_names)
    assert not config.has_norms
    image = torch.randn(1, 3, *config.image_size)
    for task in config.task_names:
        with torch.no_grad():
            want = model(image, [task])[task][0].permute(1, 2, 0).numpy()
        values = from_state(state)
        (got,) = run(network(config, task).whole, {"image": image[0].permute(1, 2, 0).numpy()}, values).values()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * float(np.abs(want).max()))


def test_experts_that_nobody_may_choose_are_left_out() -> None:
    paths = {**PATHS, "normals": ((0, 1, 3), (0, 1, 4))}
    model = seeded(paths=paths)
    config, state = deployable(model.config, arrays(model.state_dict()), ("normals", "depth"))
    assert config.task_names == ("depth", "normals")  # in the model's order
    assert config.slots == ((0, 1, 2, 3), (0, 1, 4, 5))
    bank = state[f"backbone.blocks.{config.moe_blocks[0]}.mlp.experts.htoh4.weight"]
    assert len(bank) == 4


def test_the_given_state_is_left_as_it_was() -> None:
    model = seeded(head="conv", head_stride=2, head_norm=True)
    given = arrays(model.state_dict())
    before = {key: value.copy() for key, value in given.items()}
    deployable(model.config, given, ("depth",))
    assert given.keys() == before.keys()
    assert all(np.array_equal(given[key], before[key]) for key in before)


def test_what_does_not_fit() -> None:
    model = seeded(head="conv", head_stride=2, head_norm=True)
    config, state = model.config, arrays(model.state_dict())
    for key in ("backbone.cls_token", next(k for k in state if k.endswith("running_mean"))):
        with pytest.raises(CheckpointError, match=f"the model's state lacks {key}"):
            deployable(config, {k: v for k, v in state.items() if k != key})
    with pytest.raises(CheckpointError, match="has unknown extra"):
        deployable(config, state | {"extra": np.zeros(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"cls_token has shape \[7\]"):
        deployable(config, state | {"backbone.cls_token": np.zeros(7, np.float32)})
    for value in (np.nan, np.inf):
        broken = state | {"backbone.cls_token": np.full_like(state["backbone.cls_token"], value)}
        with pytest.raises(CheckpointError, match="not finite in 'backbone.cls_token'; train it again"):
            deployable(config, broken)
    with pytest.raises(TaskError, match="no task was asked for"):
        deployable(config, state, ())
    with pytest.raises(TaskError, match="there is no task 'smell'"):
        deployable(config, state, ("smell",))
    selector = MultiTaskViT(preset("micro", router="dselect_k", experts=8))
    with pytest.raises(ConfigError, match="dselect_k is for training alone"):
        deployable(selector.config, arrays(selector.state_dict()))
