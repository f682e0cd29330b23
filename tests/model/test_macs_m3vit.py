"""The counter of multiply-accumulates against what PyTorch counts while a model runs, and against the paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.bench.macs import count, prefix, weight_bytes
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import expected_shapes

CONV = {"head": "conv", "head_dim": 24, "head_stride": 2}
PATHS = {"depth": ((0, 2, 3), (1, 4, 5))}


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


@pytest.mark.parametrize("changes", [CONV, {**CONV, "head_norm": False}, {"gate_bias": True}])
def test_bytes_are_those_of_the_slice(changes: dict[str, Any]) -> None:
    config = preset("micro", **changes)
    part = ModelConfig(**{**dict(config), "tasks": (config.task("semseg"),)})
    assert weight_bytes(config, "semseg") == 4 * sum(map(math.prod, expected_shapes(part).values()))


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
def test_published_figures(name: str, size: tuple[int, int], channels: int, gmac: float) -> None:
    task = TaskConfig(name="semseg", kind="semseg", channels=channels)
    config = preset(name, image_size=size, tasks=(task,))
    assert count(config, "semseg").total / 1e9 == pytest.approx(gmac, rel=0.01)


def test_the_command(cli: Callable[..., Any]) -> None:
    said = cli("macs", "--preset", "tiny", "--json")
    assert said.code == 0, said.err
    facts = json.loads(said.out)
    want = count(preset("tiny"), "depth").total
    heavy = count(preset("m3vit-t", experts=1, top_k=1, expert_ratio=4.0), "depth").total
    assert facts["tasks"]["depth"]["total"] == want
    assert facts["tasks"]["depth"]["peer"] == heavy
    assert facts["tasks"]["depth"]["fewer"] == pytest.approx(1 - want / heavy)
    shared = prefix(preset("tiny"))
    assert facts["all_tasks"] == shared + sum(t["total"] - shared for t in facts["tasks"].values())
    table = cli("macs", "--preset", "tiny").out
    assert f"{want / 1e6:.1f}" in table
    assert f"with M3ViT's decoder: {facts['peer']['one'] / 1e6:.0f} M" in table


@pytest.mark.parametrize("arguments", [[], ["x.edgemtl", "--preset", "tiny"]])
def test_the_command_wants_one_thing(cli: Callable[..., Any], arguments: list[str]) -> None:
    said = cli("macs", *arguments)
    assert (said.code, said.out) == (2, "")
    assert "name one thing to count" in said.err
