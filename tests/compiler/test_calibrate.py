"""Ranges: those of the PyTorch model's values, over all tasks, under the graph's names; and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.quantise.calibrate import MIN_IMAGES, SEEN, Range, as_input, calibrate, channels

PATHS = {
    "semseg": ((0, 2), (1, 3)),
    "depth": ((2, 4), (1, 3)),
    "normals": ((0, 2), (1, 3)),
    "edge": ((0, 2), (1, 3, 5)),
}


def images(config: ModelConfig, count: int = MIN_IMAGES) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, 3, *config.image_size), np.uint8)


def lively(config: ModelConfig) -> tuple[MultiTaskViT, dict[str, Any]]:
    """A model with nothing at zero, and its state."""
    torch.manual_seed(5)
    model = MultiTaskViT(config).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.05 * torch.randn_like(value))
    return model, {key: value.numpy() for key, value in model.state_dict().items()}


def narrowed(r: Range) -> tuple[NDArray[Any], NDArray[Any]]:
    """What was seen: the range without its room."""
    centre, reach = (r.high + r.low) / 2, (r.high - r.low) / 2
    reach = reach / (1 + 1 / (2 * np.log(max(r.count, 8))))
    return centre - reach, centre + reach


def test_ranges_are_those_of_the_model() -> None:
    config = preset("micro", paths=PATHS)
    model, state = lively(config)
    seen: dict[str, list[Any]] = {}

    def watch(module: str, key: str, *, given: bool = False) -> None:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            value = (inputs[0] if given else output).detach()
            value = value.movedim(1, -1) if value.ndim == 4 else value
            seen.setdefault(key, []).append(value.reshape(-1, value.shape[-1]).numpy())

        model.get_submodule(module).register_forward_hook(hook)

    for i in range(config.depth):
        watch(f"backbone.blocks.{i}.norm1", f"blocks.{i}.norm1")
        watch(f"backbone.blocks.{i}.attn.qkv", f"blocks.{i}.attn.qkv")
        watch(f"backbone.blocks.{i}.attn.proj", f"blocks.{i}.attn.heads", given=True)
        watch(f"backbone.blocks.{i}.norm2", f"blocks.{i}.attn.proj", given=True)
    watch("backbone.blocks.2.mlp.fc1", "blocks.2.mlp.fc1.inner")
    watch("backbone.blocks.2.norm1", "blocks.1.experts", given=True)
    for task in config.task_names:
        watch(f"heads.{task}.norm", f"{task}:head.norm")
        watch(f"heads.{task}.proj", f"{task}:head.proj.inner")
        watch(f"heads.{task}.step1.depthwise", f"{task}:head.step1.depthwise")
        watch(f"heads.{task}.out", f"{task}:head.out")
    pictures = images(config)
    ranges = calibrate(config, state, pictures)
    with torch.no_grad():
        for image in pictures:
            model(torch.from_numpy(as_input(image, config).transpose(2, 0, 1).copy())[None])
    for key, rows in seen.items():
        low, high = narrowed(ranges[key])
        every = np.concatenate(rows)
        np.testing.assert_allclose(low, every.min(0), rtol=1e-4, atol=1e-5, err_msg=key)
        np.testing.assert_allclose(high, every.max(0), rtol=1e-4, atol=1e-5, err_msg=key)
        assert ranges[key].sample.shape == (len(ranges[key].sample), every.shape[1])
        assert 64 <= len(ranges[key].sample) <= 512


def test_every_expert_held_has_a_range() -> None:
    """Expert 5 of block 1 is on no task's path, and 4 of block 1 on one."""
    config = preset("micro", paths=PATHS)
    _, state = lively(config)
    ranges = calibrate(config, state, images(config))
    assert {name: len(r.low) for name, r in ranges.items()} == channels(config)
    for i, held in zip(config.moe_blocks, config.held, strict=True):
        for expert in held:
            assert ranges[f"blocks.{i}.experts.fc1.{expert}"].count >= SEEN
    r = ranges["blocks.1.experts.fc1.5"]
    bank = "backbone.blocks.1.mlp.experts.htoh4"
    rows = ranges["blocks.1.norm2"].sample.astype(np.float32) @ state[f"{bank}.weight"][5].T + state[f"{bank}.bias"][5]
    np.testing.assert_array_equal(np.sort(r.sample, 0), np.sort(rows, 0))


def test_a_hybrid() -> None:
    config = preset("hybrid", image_size=(32, 48), head_norm=False)
    _, state = lively(config)
    ranges = calibrate(config, state, images(config))
    for key in ("stem.first", "stem.blocks.3.depthwise", "pos_embed", "depth:head.wide", "depth:head.step2.depthwise"):
        assert np.isfinite(ranges[key].most)
    assert not any(key.startswith("head.") for key in ranges)
    assert {name: len(r.low) for name, r in ranges.items()} == channels(config)


class TestErrors:
    @pytest.fixture
    def micro_state(self) -> tuple[ModelConfig, dict[str, Any]]:
        config = preset("micro")
        return config, lively(config)[1]

    def test_images(self, micro_state: Any) -> None:
        config, state = micro_state
        pictures = images(config)
        with pytest.raises(CompileError, match="32 images or more; given 31"):
            calibrate(config, state, pictures[:31])
        with pytest.raises(CompileError, match=r"uint8 images \[n, 3, 32, 64\]; given float32"):
            calibrate(config, state, pictures.astype(np.float32))  # type: ignore[arg-type]
        with pytest.raises(CompileError, match=r"given uint8 \[32, 32, 64, 3\]"):
            calibrate(config, state, pictures.transpose(0, 2, 3, 1))

    def test_values_that_are_not_finite(self, micro_state: Any) -> None:
        config, state = micro_state
        state["backbone.blocks.2.mlp.fc1.weight"][0, 0] = 1e30
        with pytest.raises(CompileError, match=r"beyond 1e\+09, at blocks\.2\.mlp\.fc1\.inner of task 'semseg'"):
            calibrate(config, state, images(config))
        state["backbone.blocks.2.mlp.fc1.weight"][0, 0] = np.nan
        with pytest.raises(CompileError, match=r"not finite, at blocks\.2\.mlp\.fc1\.inner of task 'semseg'"):
            calibrate(config, state, images(config))
        state["backbone.patch_embed.proj.weight"][0, 0] = np.inf
        with pytest.raises(CompileError, match=r"not finite, at embed$"):
            calibrate(config, state, images(config))
