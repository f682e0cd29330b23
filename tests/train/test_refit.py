"""The depth head fitted anew: its squared error falls, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from fake_rooms import FakeRooms

from edgemtl.errors import ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.train.refit import refit


def test_only_the_head_changes_and_its_error_falls() -> None:
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro")).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = refit(model, "depth", FakeRooms(), range(8), steps=40, batch=4, lr=1e-2)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all(k.startswith("heads.depth.") for k in changed)


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="'semseg' is none"):
        refit(MultiTaskViT(preset("micro")), "semseg", FakeRooms(), range(4), steps=1)
