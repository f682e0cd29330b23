"""Losses against numbers worked out by hand, and what invalid pixels do to them."""

from __future__ import annotations

import math

import pytest
import torch

from edgemtl.config import TaskConfig, TaskKind
from edgemtl.train.losses import (
    class_weights,
    count_labels,
    depth_loss,
    edge_loss,
    normals_loss,
    resize,
    saliency_loss,
    semseg_loss,
    subsample,
    task_losses,
)


def test_semseg_by_hand() -> None:
    logits = torch.tensor([[[[2.0, 0.0, 5.0]], [[0.0, 1.0, 5.0]]]])  # [1, 2, 1, 3]
    label = torch.tensor([[[0, 0, 255]]])
    want = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert float(semseg_loss(logits, label)) == pytest.approx(want, rel=1e-6)


def test_semseg_class_weights() -> None:
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    label = torch.tensor([[[0, 1]]])
    a, b = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))
    loss = semseg_loss(logits, label, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((a + 3 * b) / 4, rel=1e-6)


def test_depth_by_hand() -> None:
    pred = torch.tensor([[[[1.0, 4.0, 9.0]]]])
    label = torch.tensor([[[[2.0, 2.0, 255.0]]]])
    assert float(depth_loss(pred, label)) == pytest.approx(1.5)


def test_normals_by_hand() -> None:
    pred = torch.tensor([[[[3.0, 1.0]], [[0.0, 1.0]], [[4.0, 1.0]]]])  # first pixel (3, 0, 4) → (.6, 0, .8)
    label = torch.tensor([[[[0.0, 255.0]], [[0.0, 255.0]], [[1.0, 255.0]]]])
    assert float(normals_loss(pred, label)) == pytest.approx((0.6 + 0.0 + 0.2) / 3, rel=1e-6)


def test_edge_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 1.0, -3.0]]]])
    label = torch.tensor([[[[1.0, 0.0, 255.0]]]])
    want = (0.95 * math.log(2) + 0.05 * math.log(1 + math.exp(1))) / 2
    assert float(edge_loss(logits, label)) == pytest.approx(want, rel=1e-6)


def test_saliency_balances_the_two_kinds_of_pixels() -> None:
    logits = torch.tensor([[[[0.0, 1.0, -3.0, 0.5, 9.0]]]])
    label = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 255.0]]]])
    others = sum(0.25 * math.log(1 + math.exp(x)) for x in (1.0, -3.0, 0.5))
    assert float(saliency_loss(logits, label)) == pytest.approx((0.75 * math.log(2) + others) / 4, rel=1e-6)


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
def test_invalid_pixels_count_nothing(kind: str) -> None:
    """Neither their value nor their gradient; and a label without one valid pixel gives exactly 0, not NaN."""
    channels = {"semseg": 5, "normals": 3}.get(kind, 1)
    loss = {
        "semseg": semseg_loss,
        "depth": depth_loss,
        "normals": normals_loss,
        "edge": edge_loss,
        "saliency": saliency_loss,
    }[kind]
    pred = torch.randn(2, channels, 4, 6, requires_grad=True)
    label = torch.randn(2, channels, 4, 6).clamp(0, 1)
    if kind == "semseg":
        label = torch.randint(0, 5, (2, 4, 6))
    label[..., :3] = 255
    value = loss(pred, label)
    value.backward()
    assert pred.grad is not None
    assert not pred.grad[..., :3].any()
    assert pred.grad[..., 3:].any()
    other = pred.detach().clone()
    other[..., :3] = 77
    assert torch.equal(loss(other, label), value)
    empty = loss(pred, torch.full_like(label, 255))
    assert float(empty.detach()) == 0


def test_class_weights() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2 + [255] * 90)
    weight = class_weights(labels, 3)
    raw = [1 / math.log(1.1 + share) for share in (0.8, 0.2, 0.0)]
    want = torch.tensor([r * 3 / sum(raw) for r in raw])
    assert torch.allclose(weight, want)
    assert weight[2] > weight[1] > weight[0]


def test_subsample_visits_every_pixel() -> None:
    label = torch.arange(24).reshape(1, 4, 6)
    seen = {int(v) for step in range(4) for v in subsample(label, 2, step).flatten()}
    assert seen == set(range(24))
    assert subsample(label, 2, 5).shape == (1, 2, 3)
    assert subsample(label, 1, 5) is label


def test_resize_is_bilinear_between_pixel_centres() -> None:
    raw = torch.tensor([[[[0.0, 4.0]]]], dtype=torch.bfloat16)
    out = resize(raw, (1, 4))
    assert out.dtype == torch.float32
    assert out.flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


def test_task_losses_go_by_kind() -> None:
    tasks = {"far": TaskConfig(name="far", kind="depth", channels=1)}
    maps = {"far": torch.ones(1, 1, 2, 2)}
    losses = task_losses(maps, {"far": torch.full((1, 1, 8, 8), 3.0)}, tasks, stride=2, step=3)
    assert {k: float(v) for k, v in losses.items()} == {"far": 2.0}


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
def test_parts_of_a_batch_add_up_to_its_loss(kind: TaskKind) -> None:
    """Also where one part has hardly a valid pixel, and another none: a mean of the parts' means would differ."""
    rng = torch.Generator().manual_seed(3)
    channels = {"semseg": 5, "normals": 3}.get(kind, 1)
    task = TaskConfig(name="it", kind=kind, channels=channels)
    raw = torch.randn(3, channels, 4, 6, generator=rng)
    label = torch.rand(3, channels, 4, 6, generator=rng)
    if kind == "semseg":
        label = torch.randint(0, 5, (3, 4, 6), generator=rng)
    if kind in ("edge", "saliency"):
        label = (label > 0.7).float()
    label[1, ..., 1:] = 255
    label[2] = 255
    weight = {"it": torch.tensor([1.0, 2.0, 0.5, 3.0, 1.0])} if kind == "semseg" else {}
    whole = task_losses({"it": raw}, {"it": label}, {"it": task}, class_weight=weight)["it"]
    counted = count_labels({"it": label}, [task], class_weight=weight)
    parts = [
        task_losses(
            {"it": raw[i : i + 1]}, {"it": label[i : i + 1]}, {"it": task}, class_weight=weight, counted=counted
        )
        for i in range(3)
    ]
    assert float(sum(p["it"] for p in parts)) == pytest.approx(float(whole), rel=1e-6)
    assert float(parts[2]["it"]) == 0
    single = [count_labels({"it": label[i : i + 1]}, [task], class_weight=weight)["it"] for i in range(3)]
    assert float(sum(c.valid for c in single)) == pytest.approx(float(counted["it"].valid))
    assert int(sum(c.positive for c in single)) == int(counted["it"].positive)
