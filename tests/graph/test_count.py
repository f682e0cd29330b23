"""The counters agree with a hand count, PyTorch's while a model runs, the paper, and the model's own parameters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.bench.subjects import parse
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.graph.count import count, prefix, weight_bytes
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import expected_shapes

DEPTH = (TaskConfig(name="depth", kind="depth", channels=1),)
CONV = {"head": "conv", "head_dim": 24, "head_stride": 2}
PATHS = {"depth": ((0, 2, 3), (1, 4, 5))}


def test_by_hand() -> None:
    config = ModelConfig(
        image_size=(4, 6), patch=2, dim=8, depth=2, heads=2, mlp_ratio=2, experts=4, top_k=2, expert_ratio=1.5,
        head_dim=3, head_stride=1, tasks=DEPTH,
    )  # fmt: skip
    work = count(config, "depth")
    assert work.embedding == 6 * 8 * 12
    assert work.projections == 2 * 7 * (8 * 24 + 8 * 8)
    assert work.attention == 2 * 2 * 7 * 7 * 8
    assert work.dense == 7 * 2 * 8 * 16
    assert work.gates == 7 * 8 * 4
    assert work.experts == 7 * 2 * 2 * 8 * 12
    assert work.head == 6 * 8 * 4 * 3 + 24 * (2 * (9 * 3 + 9) + 3)
    assert count(config, "depth", every_expert=True).experts == 7 * 4 * 2 * 8 * 12


@pytest.mark.parametrize(
    ("changes", "gmac"),
    [  # m3vit.md 1.4: backbone GMAC, one task, attention matmuls included
        ({"dim": 192, "heads": 3, "top_k": 2, "expert_ratio": 2.0}, 0.78),
        ({"dim": 192, "heads": 3, "top_k": 2, "expert_ratio": 2.0, "image_size": (224, 224)}, 1.26),
        ({"dim": 384, "heads": 12, "image_size": (512, 512)}, 31.8),
        ({"dim": 384, "heads": 12, "image_size": (480, 640)}, 39.2),
        ({"dim": 768, "heads": 12, "image_size": (480, 640)}, 129.4),
    ],
)
def test_published_figures(changes: dict[str, Any], gmac: float) -> None:
    work = count(ModelConfig(tasks=DEPTH, **changes), "depth")
    assert work.backbone / 1e9 == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize(
    ("name", "size", "channels", "gmac"),
    [  # the paper says 84, 100 and 191 (its "FLOPs (G)"); m3vit.md 1.4 counts these
        ("m3vit-s", (512, 512), 21, 83.8),
        ("m3vit-s", (480, 640), 40, 100.5),
        ("m3vit-b", (480, 640), 40, 191.8),
        ("m3vit-t", (128, 256), 7, 7.2),
        ("m3vit-t", (224, 224), 7, 11.1),
    ],
)
def test_published_figures_of_m3vit(name: str, size: tuple[int, int], channels: int, gmac: float) -> None:
    task = TaskConfig(name="semseg", kind="semseg", channels=channels)
    config = preset(name, image_size=size, tasks=(task,))
    assert count(config, "semseg").total / 1e9 == pytest.approx(gmac, rel=0.01)


def test_arithmetic_is_flat_in_experts_but_for_the_gate() -> None:
    few, many = (count(parse(f"edge-moe:129:e{n}")[0].config, "depth") for n in (8, 128))
    assert few.experts == many.experts
    assert many.total - few.total == many.gates - few.gates


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("micro", {}),
        ("tiny", {}),
        ("micro", CONV),
        ("micro", {**CONV, "head_norm": False}),
        ("micro", {"gate_bias": True}),
    ],
)
def test_bytes_are_those_of_the_slice(name: str, changes: dict[str, Any]) -> None:
    config = preset(name, **changes)
    for task in config.task_names:
        part = ModelConfig(**{**dict(config), "tasks": (config.task(task),)})
        assert weight_bytes(config, task) == 4 * sum(map(math.prod, expected_shapes(part).values()))


def test_bytes_of_the_path_and_of_touched_experts() -> None:
    whole = preset("micro")
    config = preset("micro", paths={"depth": ((0, 1, 2), (3, 4, 5))})
    expert = 4 * (2 * 32 * 32 + 64)
    assert weight_bytes(whole, "depth") - weight_bytes(config, "depth") == 6 * expert + 4 * 2 * 32 * 3
    assert weight_bytes(config, "depth") - weight_bytes(config, "depth", (3, 1)) == 2 * expert


@pytest.mark.parametrize("changes", [{}, {"paths": PATHS}, CONV, {**CONV, "top_k": 1, "expert_ratio": 2.0}])
def test_every_product_of_a_running_model_is_counted(changes: dict[str, Any]) -> None:
    """PyTorch counts two operations per multiply-accumulate; in training the gates are products as well."""
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro", **changes))
    piece = model.slice("depth").train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        piece(torch.randn(1, 3, 32, 64))
    assert counter.get_total_flops() == 2 * count(model.config, "depth").total
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        piece.prefix(torch.randn(1, 3, 32, 64))
    assert counter.get_total_flops() == 2 * prefix(model.config)
