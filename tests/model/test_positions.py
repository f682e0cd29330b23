"""Positions resized for another image size, by hand, and as a training run starts from another size's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgemtl.errors import CheckpointError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl.model.positions import resize_positions
from edgemtl.train.start import initial


def test_by_hand() -> None:
    """A row of two patches becomes one of four: ends as they were, the middle in quarters; class token untouched."""
    positions = torch.tensor([[[7.0], [0.0], [4.0]]])
    assert resize_positions(positions, (1, 2), (1, 4)).flatten().tolist() == [7, 0, 1, 3, 4]
    assert resize_positions(positions, (1, 2), (2, 1)).flatten().tolist() == [7, 2, 2]
    assert torch.equal(resize_positions(positions, (1, 2), (1, 2)), positions)


def test_a_run_starts_from_weights_of_another_image_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = MultiTaskViT(preset("micro", image_size=(64, 64))), tmp_path / "m.safetensors"
    save_checkpoint(path, model, dtype="float32")
    want = preset("micro", image_size=(32, 64))
    config, state, fresh = initial(path, want, 0)
    assert not fresh
    assert config == want
    MultiTaskViT(config).load_state_dict(state)
    expected = resize_positions(model.backbone.pos_embed.detach(), (4, 4), (2, 4))
    assert torch.equal(state["backbone.pos_embed"], expected)
    with pytest.raises(CheckpointError, match="differs from the recipe's model in image_size, patch"):
        initial(path, preset("micro", patch=8), 0)
