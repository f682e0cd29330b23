"""M3ViT's decoder: its parts in order, what folding does, and that it trains and is stored."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, without_training
from edgemtl.model.head import ConvHead

CONV = {"head": "conv", "head_dim": 8, "head_stride": 2}


def head_of(model: MultiTaskViT) -> ConvHead:
    head = model.heads["depth"]
    assert isinstance(head, ConvHead)
    return head


def used() -> MultiTaskViT:
    """A model whose batch norms have seen something."""
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro", **CONV)).train()
    for _ in range(3):
        model(torch.randn(2, 3, 32, 64))
    return model.eval()


def test_four_steps_by_hand() -> None:
    head, tokens = head_of(used()), torch.randn(1, 9, 32)
    x = F.layer_norm(tokens[:, 1:], (32,), head.norm.weight, head.norm.bias, 1e-6).permute(0, 2, 1).reshape(1, 32, 2, 4)
    for i in range(4):
        if i:
            x = torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)(x)
        conv, norm = getattr(head, f"conv_{i}"), getattr(head, f"syncbn_fc_{i}")
        x = F.conv2d(x, conv.weight, conv.bias, padding=1)
        per = [v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
        x = ((x - per[0]) / (per[1] + 1e-5).sqrt() * per[2] + per[3]).clamp(min=0)
    want = F.conv2d(x, head.conv_4.weight, head.conv_4.bias)
    assert want.shape == (1, 1, 16, 32)
    torch.testing.assert_close(head(tokens), want, rtol=1e-4, atol=1e-5)


def test_what_is_deployed_has_no_batch_norms_and_the_same_maps() -> None:
    model, image = used(), torch.randn(1, 3, 32, 64)
    plain = without_training(model)
    assert not plain.config.head_norm
    assert not any("syncbn" in key for key in plain.state_dict())
    for task, raw in model(image).items():
        torch.testing.assert_close(plain(image)[task], raw, rtol=1e-4, atol=1e-5)
    assert without_training(plain) is plain


def test_statistics_follow_the_batches_and_are_stored(tmp_path: Path) -> None:
    model = used()
    assert bool(head_of(model).syncbn_fc_0.running_mean.any())
    save_checkpoint(tmp_path / "m.safetensors", model, dtype="float32")
    image = torch.randn(1, 3, 32, 64)
    assert torch.equal(load_checkpoint(tmp_path / "m.safetensors")[0](image)["depth"], model(image)["depth"])
    piece = model.slice("depth")
    torch.testing.assert_close(piece(image)["depth"], model(image)["depth"], rtol=1e-4, atol=1e-5)
