"""Bundles whose weights are stored in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import CheckpointError
from edgemtl.model import MultiTaskViT
from edgemtl_compiler import compile_bundle


def test_the_rounded_weights_are_the_model(micro: Any, tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "half.edgemtl"
    built = compile_bundle(micro.model, out, tasks=("depth",), precision="f16")
    assert all(max(errors.values()) < 5e-6 for errors in built.errors.values())  # as close as in float32
    assert 0 < built.rounding["depth"] < 0.01
    with Bundle.open(out) as opened:
        assert opened.manifest.weight_layout == "panel16-f16"
        types = {name: str(p.dtype) for name, p in opened.parts["trunk"].items()}
        assert types["patch_embed"] == types["blocks.0.attn.qkv"] == "float16"
        assert types["pos_embed"] == types["blocks.0.norm1"] == "float32"
        assert {str(p.dtype) for p in opened.parts["experts.1"].values()} == {"float16"}
        image = opened.golden()[0]["0"]
    maps = []
    for backend in ("tvm-cpu", "torch"):
        with edgemtl.load(out, backend=backend) as engine:
            engine.activate("depth")
            maps.append(engine.raw(image)["depth"].copy())
    assert np.abs(maps[0] - maps[1]).max() < 5e-6 * np.abs(maps[1]).max()


def test_a_weight_beyond_half_precision_is_refused(micro: Any, tmp_path: Path) -> None:
    model = MultiTaskViT(micro.config)
    model.load_state_dict(micro.model.state_dict())
    with torch.no_grad():
        model.backbone.blocks[0].attn.qkv.weight[0, 0] = 1e5
    with pytest.raises(CheckpointError, match=r"qkv.weight' holds 1e\+05, more than float16 can .*--precision f32"):
        compile_bundle(model, tmp_path / "x.edgemtl", precision="f16")
    assert not list(tmp_path.iterdir())
