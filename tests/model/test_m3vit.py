"""Checkpoints of M3ViT's own code: read whole, the same maps as its equations give, and nothing odd let through."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import m3vit_reference as reference
import numpy as np
import pytest
import torch
from torch import Tensor

from edgemtl.errors import CheckpointError
from edgemtl.model import MultiTaskViT
from edgemtl.model.checkpoint import load_checkpoint, without_training
from edgemtl.model.m3vit_files import import_m3vit

State = OrderedDict[str, Tensor]
IMAGE = np.random.default_rng(5).standard_normal((3, 32, 64), np.float32)


def model_of(path: Path, **options: Any) -> MultiTaskViT:
    found = import_m3vit(path, image_size=(32, 64), **options)
    model = MultiTaskViT(found.config)
    model.load_state_dict(found.state)
    return model.eval()


FORMS: dict[str, tuple[dict[str, Any], int, int]] = {
    "one gate per task, top-4": ({"tasks": ["semseg", "depth"], "gate": "multi", "ratio": 1}, 4, 0),
    "one gate per task, top-2, a folder": ({"tasks": ["sal", "human_parts"], "gate": "multi", "ratio": 2}, 2, 4),
    "task-conditioned, top-4, a folder": ({"tasks": ["edge", "normals"], "gate": "conditioned", "ratio": 1}, 4, 2),
    "task-conditioned, top-2": ({"tasks": ["semseg", "depth"], "gate": "conditioned", "ratio": 2}, 2, 0),
    "one gate, learned noise": ({"tasks": ["depth"], "gate": "single", "ratio": 2, "noisy": True}, 2, 0),
}


def check(path: Path, form: str, heads: int, **shape: Any) -> None:
    options, top_k, ranks = FORMS[form]
    state = reference.state_dict(**options, **shape)
    model = model_of(reference.save(state, path, ranks), heads=heads)
    config = model.config
    assert (config.top_k, config.experts, config.heads) == (top_k, 16, heads)
    assert config.task_names == tuple(options["tasks"])
    with torch.no_grad():
        got = model(torch.from_numpy(IMAGE)[None])
        deployed = without_training(model)(torch.from_numpy(IMAGE)[None])
    for number, task in enumerate(config.task_names):
        noisy = options.get("noisy", False)
        want = reference.forward(state, IMAGE.astype(float), number, task, heads=heads, top_k=top_k, noisy=noisy)
        for maps in (got, deployed):
            assert maps[task][0].shape == want.shape == (reference.OUTPUTS[task], 16, 32)
            assert np.abs(maps[task][0].numpy() - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("form", FORMS)
def test_the_imported_model_computes_the_papers_equations(tmp_path: Path, form: str) -> None:
    check(tmp_path / "checkpoint", form, heads=2, c=48, depth=4)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_tiny_model_computes_the_papers_equations(tmp_path: Path, form: str) -> None:
    """Every shape is the released tiny model's but for the image, which is small."""
    check(tmp_path / "checkpoint", form, heads=3)


def small(**changes: Any) -> State:
    options: dict[str, Any] = {
        "tasks": ["semseg", "depth"],
        "gate": "multi",
        "ratio": 1,
        "c": 48,
        "depth": 2,
        "experts": 4,
        "seed": 1,
    }
    return reference.state_dict(**{**options, **changes})


def test_the_command(tmp_path: Path, cli: Callable[..., Any]) -> None:
    path = reference.save(small(), tmp_path / "best.pth.tar")
    said = cli("import-m3vit", path, "-o", tmp_path / "m.safetensors", "--image-size", "32x64", "--heads", 3)
    assert said.code == 0, said.err
    assert "top-4 of 4 experts of 48, one gate per task (noisy_vmoe)" in said.out
    assert "tasks semseg (21), depth (1); 10 tensors that serve training alone left out" in said.out
    model, info = load_checkpoint(tmp_path / "m.safetensors")
    assert info.origin.endswith("import-m3vit best.pth.tar, epoch 99")
    want = model_of(path, heads=3)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in want.state_dict().items())


def test_other_sizes(tmp_path: Path) -> None:
    path = reference.save(small(), tmp_path / "m.pth")
    same, other = model_of(path, heads=3, resize=(32, 64)), model_of(path, heads=3, resize=(64, 96))
    old, new = same.backbone.pos_embed.detach(), other.backbone.pos_embed.detach()
    assert new.shape == (1, 4 * 6 + 1, 48)
    assert torch.equal(new[:, 0], old[:, 0])
    corner = new[0, 1].numpy()  # of a grid twice as high and 1.5 as wide: its centre lies beyond the first one's
    np.testing.assert_allclose(corner, old[0, 1].numpy(), atol=1e-6)
    assert other(torch.zeros(1, 3, 64, 96))["depth"].shape == (1, 1, 32, 48)


class Touch:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": small(), "best_result": Touch(tmp_path / "run")}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="needs posix.mkdir to be run; only tensors"):
        import_m3vit(tmp_path / "m.pth")
    assert not (tmp_path / "run").exists()


def _without(key: str) -> Callable[[State], Any]:
    return lambda s: s.pop(f"module.{key}")


def _with(key: str, value: Tensor) -> Callable[[State], Any]:
    return lambda s: s.update({f"module.{key}": value})


BIAS = "backbone.blocks.0.attn.qkv.bias"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (_without(BIAS), {}, f"lacks {BIAS}; its other keys are M3ViT's"),
        (_without("backbone.blocks.1.mlp.gate.1.w_gate"), {}, r"lacks backbone.blocks.1.mlp.gate.1.w_gate;"),
        (_without("decoders.depth.syncbn_fc_2.running_var"), {}, "lacks decoders.depth.syncbn_fc_2.running_var"),
        (_without("backbone.pos_embed"), {}, "lacks backbone.pos_embed; give a checkpoint of M3ViT's"),
        (_with("backbone.extra", torch.zeros(1)), {}, "has unknown backbone.extra"),
        (_with(BIAS, torch.zeros(7)), {}, rf"{BIAS} has shape \[7\], M3ViT's has \[144\]"),
        (_with(BIAS, torch.zeros(144, dtype=torch.int64)), {}, f"{BIAS} is torch.int64; float32"),
        (_with("backbone.pos_embed", torch.zeros(9)), {}, r"pos_embed has shape \[9\], 3 dimensions are needed"),
        (_with("decoders.sky.conv_4.weight", torch.zeros(1, 256, 1, 1)), {}, "a decoder for 'sky', which is none of"),
        (_with("decoders.depth.conv_4.weight", torch.zeros(2, 256, 1, 1)), {}, r"has 1 channel\(s\), not 2"),
        (lambda s: None, {"image_size": None}, "does not say the shape of an image of 8 patches; add --image-size"),
        (lambda s: None, {"image_size": (64, 64)}, "for 8 patches of 16 pixels; an image of 64x64 has 4 x 4"),
        (lambda s: None, {"heads": None}, "does not say the number of attention heads of width 48; add --heads"),
        (lambda s: None, {"heads": 5}, "does not divide into 5 heads"),
        (lambda s: None, {"top_k": 9}, "more than the 4 experts"),
        (lambda s: None, {"resize": (30, 64)}, "cannot be resized to 30x64: .* whole number of 16-pixel patches"),
        (lambda s: s.update({"module.x": 3}), {}, "'module.x' in its state_dict is no tensor"),
    ],
)
def test_files_of_another_form(
    tmp_path: Path, change: Callable[[State], Any], options: dict[str, Any], message: str
) -> None:
    state = small()
    change(state)
    path = reference.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        import_m3vit(path, **{"image_size": (32, 64), "heads": 3, **options})
    assert "\n" not in str(caught.value)


def test_folders_of_another_form(tmp_path: Path) -> None:
    path = reference.save(small(), tmp_path / "ranks", 2)
    second = torch.load(path / "1.pth", weights_only=False)
    for change, message in [
        (_with(BIAS, torch.zeros(1)), "must hold the experts and nothing else; backbone.blocks.0.attn.qkv.bias"),
        (
            _with("backbone.blocks.1.mlp.experts.htoh4.bias", torch.zeros(1, 48)),
            r"has shape \[1, 48\], in 0.pth it has",
        ),
    ]:
        changed = OrderedDict(second["state_dict"])
        change(changed)
        torch.save({**second, "state_dict": changed}, path / "1.pth")
        with pytest.raises(CheckpointError, match=message):
            import_m3vit(path, image_size=(32, 64), heads=3)
    (path / "1.pth").rename(path / "2.pth")
    with pytest.raises(CheckpointError, match="has no 1.pth"):
        import_m3vit(path)
    (path / "0.pth").unlink()
    with pytest.raises(CheckpointError, match="has no 0.pth"):
        import_m3vit(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        import_m3vit(path)
    whole = reference.save(small(), path).read_bytes()
    for content in (b"", whole[:9], whole[: len(whole) // 2], whole[:-1], b"\x80\x02}q\x00.", b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            import_m3vit(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="has no state_dict"):
        import_m3vit(path)
