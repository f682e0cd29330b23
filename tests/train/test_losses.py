"""Losses against numbers worked out by hand, and what invalid pixels do to them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms
from pydantic import ValidationError

from edgemtl.config import TaskConfig
from edgemtl.model import preset
from edgemtl.train.balancers import make_balancer
from edgemtl.train.comparators import make_network
from edgemtl.train.config import LossConfig, load_train_config
from edgemtl.train.losses import (
    class_weights,
    count_labels,
    resize,
    subsample,
    task_losses,
)
from edgemtl.train.parallel import Group
from edgemtl.train.step import Stepper
from edgemtl.train.tasks import find
from edgemtl.train.tasks.depth import gradient_loss, log_depth

DEPTH = TaskConfig(name="far", kind="depth", channels=1)
VARIANTS: list[dict[str, Any]] = [
    {"depth": "l1", "gradient": 2.0},
    {"depth": "log", "gradient": 0.0},
    {"depth": "log", "gradient": 2.0},
]


def loss_of(
    kind: str, pred: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    learner = find(kind)
    return learner.loss(pred, label, learner.count(label, weight), LossConfig(**options), weight)


def test_semseg_by_hand() -> None:
    logits = torch.tensor([[[[2.0, 0.0, 5.0]], [[0.0, 1.0, 5.0]]]])  # [1, 2, 1, 3]
    label = torch.tensor([[[0, 0, 255]]])
    want = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert float(loss_of("semseg", logits, label)) == pytest.approx(want, rel=1e-6)


def test_semseg_class_weights() -> None:
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]]]])
    label = torch.tensor([[[0, 1]]])
    a, b = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))
    loss = loss_of("semseg", logits, label, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((a + 3 * b) / 4, rel=1e-6)


def test_depth_by_hand() -> None:
    pred = torch.tensor([[[[1.0, 4.0, 9.0]]]])
    label = torch.tensor([[[[2.0, 2.0, 255.0]]]])
    assert float(loss_of("depth", pred, label)) == pytest.approx(1.5)


def test_normals_by_hand() -> None:
    pred = torch.tensor([[[[3.0, 1.0]], [[0.0, 1.0]], [[4.0, 1.0]]]])  # first pixel (3, 0, 4) → (.6, 0, .8)
    label = torch.tensor([[[[0.0, 255.0]], [[0.0, 255.0]], [[1.0, 255.0]]]])
    assert float(loss_of("normals", pred, label)) == pytest.approx((0.6 + 0.0 + 0.2) / 3, rel=1e-6)


def test_edge_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 1.0, -3.0]]]])
    label = torch.tensor([[[[1.0, 0.0, 255.0]]]])
    want = (0.95 * math.log(2) + 0.05 * math.log(1 + math.exp(1))) / 2
    assert float(loss_of("edge", logits, label)) == pytest.approx(want, rel=1e-6)


def test_saliency_balances_the_two_kinds_of_pixels() -> None:
    logits = torch.tensor([[[[0.0, 1.0, -3.0, 0.5, 9.0]]]])
    label = torch.tensor([[[[1.0, 0.0, 0.0, 0.0, 255.0]]]])
    others = sum(0.25 * math.log(1 + math.exp(x)) for x in (1.0, -3.0, 0.5))
    assert float(loss_of("saliency", logits, label)) == pytest.approx((0.75 * math.log(2) + others) / 4, rel=1e-6)


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
def test_invalid_pixels_count_nothing(kind: str) -> None:
    """Neither their value nor their gradient; and a label without one valid pixel gives exactly 0, not NaN."""
    channels = {"semseg": 5, "normals": 3}.get(kind, 1)
    pred = torch.randn(2, channels, 4, 6, requires_grad=True)
    label = torch.randn(2, channels, 4, 6).clamp(0, 1)
    if kind == "semseg":
        label = torch.randint(0, 5, (2, 4, 6))
    label[..., :3] = 255
    value = loss_of(kind, pred, label)
    value.backward()
    assert pred.grad is not None
    assert not pred.grad[..., :3].any()
    assert pred.grad[..., 3:].any()
    other = pred.detach().clone()
    other[..., :3] = 77
    assert torch.equal(loss_of(kind, other, label), value)
    empty = loss_of(kind, pred, torch.full_like(label, 255))
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
    losses = task_losses(maps, {"far": torch.full((1, 1, 8, 8), 3.0)}, tasks, LossConfig(stride=2), step=3)
    assert {k: float(v) for k, v in losses.items()} == {"far": 2.0}


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
def test_parts_of_a_batch_add_up_to_its_loss(kind: str) -> None:
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
    whole = task_losses({"it": raw}, {"it": label}, {"it": task}, LossConfig(), class_weight=weight)["it"]
    counted = count_labels({"it": label}, [task], LossConfig(), class_weight=weight)
    parts = [
        task_losses(
            {"it": raw[i : i + 1]},
            {"it": label[i : i + 1]},
            {"it": task},
            LossConfig(),
            class_weight=weight,
            counted=counted,
        )
        for i in range(3)
    ]
    assert float(sum(p["it"] for p in parts)) == pytest.approx(float(whole), rel=1e-6)
    assert float(parts[2]["it"]) == 0
    single = [count_labels({"it": label[i : i + 1]}, [task], LossConfig(), class_weight=weight)["it"] for i in range(3)]
    assert sum(single).tolist() == pytest.approx(counted["it"].tolist())  # type: ignore[union-attr]


def test_log_depth_by_hand() -> None:
    pred, label = torch.tensor([[[[1.0, 4.0, 9.0]]]]), torch.tensor([[[[2.0, 2.0, 255.0]]]])
    assert float(loss_of("depth", pred, label, depth="log")) == pytest.approx(math.log(2))
    assert log_depth(torch.tensor([0.5, 1.0, 20.0])).tolist() == pytest.approx([math.log(d) for d in (0.5, 1, 20)])
    assert float(log_depth(torch.tensor(-0.5))) == pytest.approx(math.log(0.5) - 2)


def test_log_depth_pulls_up_whatever_lies_below_its_floor() -> None:
    metres = torch.tensor([-50.0, -0.1, 0.0, 0.25, 4.0], requires_grad=True)
    log_depth(metres).sum().backward()
    assert metres.grad is not None
    assert metres.grad.tolist() == pytest.approx([2, 2, 2, 2, 0.25])
    near = torch.tensor([0.4995, 0.5005])
    low, high = log_depth(near).tolist()
    assert high - low == pytest.approx(0.002, rel=1e-2)  # no step where the line begins


def test_gradient_matching_by_hand() -> None:
    """R = 0, 1, 4, 9, 16 along one row: the mean of its steps 1, 3, 5, 7; of every 2nd 4, 12; of every 4th 16."""
    residual = torch.tensor([0.0, 1, 4, 9, 16]).reshape(1, 1, 1, 5)
    valid = torch.ones_like(residual, dtype=torch.bool)
    assert float(gradient_loss(residual, valid)) == pytest.approx(4 + 8 + 16)
    assert float(gradient_loss(residual.mT, valid.mT)) == pytest.approx(4 + 8 + 16)
    valid[..., 1] = False  # leaves the steps 5 and 7 of neighbours, and all of the wider ones
    assert float(gradient_loss(residual, valid)) == pytest.approx(6 + 8 + 16)
    pred, label = residual + 3, torch.full_like(residual, 3.0)
    assert float(loss_of("depth", pred, label, gradient=0.5)) == pytest.approx(30 / 5 + 0.5 * 28)


@pytest.mark.parametrize("kind", ["l1", "log"])
def test_gradient_matching_ignores_a_constant_offset(kind: Any) -> None:
    label = torch.rand(2, 1, 9, 17, generator=torch.Generator().manual_seed(1)) + 1
    pred = label + 0.5 if kind == "l1" else label * 1.5
    plain, matched = (loss_of("depth", pred, label, depth=kind, gradient=g) for g in (0.0, 2.0))
    assert float(plain) == pytest.approx(0.5 if kind == "l1" else math.log(1.5), rel=1e-5)
    assert float(matched) == pytest.approx(float(plain), abs=1e-5)
    steep = loss_of("depth", pred * torch.linspace(1, 2, 17), label, depth=kind, gradient=2.0)
    assert float(steep) > float(matched) + 0.1


@pytest.mark.parametrize("given", VARIANTS)
def test_depth_losses_leave_out_invalid_pixels(given: dict[str, Any]) -> None:
    rng = torch.Generator().manual_seed(5)
    pred = (torch.rand(2, 1, 16, 24, generator=rng) * 4).requires_grad_()
    label = torch.rand(2, 1, 16, 24, generator=rng) * 4 + 0.2
    hole = torch.rand(2, 1, 16, 24, generator=rng) < 0.3
    label[hole] = 255
    value = loss_of("depth", pred, label, **given)
    value.backward()
    assert pred.grad is not None
    assert not pred.grad[hole].any()
    assert pred.grad[~hole].all()
    other = torch.where(hole, -77.0, pred.detach())
    assert torch.equal(loss_of("depth", other, label, **given), value.detach())
    empty = loss_of("depth", pred, torch.full_like(label, 255), **given)
    assert float(empty.detach()) == 0


@pytest.mark.parametrize("given", VARIANTS)
def test_depth_losses_stay_finite(given: dict[str, Any]) -> None:
    values = torch.tensor([-1e30, -1.0, 0.0, 1e-30, 0.1, 1.0, 1e30])
    pred = values.repeat(9, 1).reshape(1, 1, 9, 7).requires_grad_()
    label = values.abs().repeat(9, 1).mT.reshape(1, 1, 9, 7).clamp(1e-30, 300)
    loss = loss_of("depth", pred, label, **given)
    loss.backward()
    assert loss.isfinite()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("given", VARIANTS)
def test_depth_losses_of_parts_add_up(given: dict[str, Any]) -> None:
    """Also where one part has few neighbours and another none."""
    rng = torch.Generator().manual_seed(7)
    raw = torch.rand(4, 1, 8, 12, generator=rng) * 3
    label = torch.rand(4, 1, 17, 25, generator=rng) * 3 + 0.2
    label[1, ..., 2:] = 255
    label[2] = 255
    label[3, :, ::2] = 255
    tasks, options = {"far": DEPTH}, LossConfig(**given, stride=2)
    whole = task_losses({"far": raw}, {"far": label}, tasks, options, step=1)["far"]
    cut = [label[i : i + 1] for i in range(4)]
    counts = [count_labels({"far": part}, [DEPTH], options, step=1)["far"] for part in cut]
    counted = {"far": torch.stack(counts).sum(0)}
    assert counted["far"].tolist() == find("depth").count(subsample(label, 2, 1)).tolist()
    parts = [
        task_losses({"far": raw[i : i + 1]}, {"far": part}, tasks, options, step=1, counted=counted)["far"]
        for i, part in enumerate(cut)
    ]
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-6)
    assert float(parts[2]) == 0


def test_a_step_in_parts_has_the_depth_loss_of_one() -> None:
    """The recipe's choice reaches the loss, and accumulation does not change it."""

    def step(accumulate: int, **loss: Any) -> float:
        recipe = load_train_config("rooms_micro")
        recipe = recipe.model_copy(update={"accumulate": accumulate, "loss": LossConfig(**loss)})
        torch.manual_seed(0)
        model = make_network("vit", preset("micro", gate="single"))
        balancer = make_balancer(recipe.balancer, ("depth",), {"depth": 1.0})
        run = Stepper(model, recipe, Group(), balancer, contextlib.nullcontext)
        return float(run(FakeRooms(4).batch(range(4)), ("depth",), 0, {}).losses["depth"])

    plain, log, both = step(1), step(1, depth="log"), step(1, depth="log", gradient=2)
    assert len({plain, log, both}) == 3
    assert step(2, depth="log", gradient=2) == pytest.approx(both, rel=1e-5)


def test_recipes_are_held_to_the_losses_there_are() -> None:
    assert (LossConfig().depth, LossConfig().gradient) == ("l1", 0)
    for wrong in ({"depth": "l2"}, {"gradient": -1}):
        with pytest.raises(ValidationError):
            LossConfig(**wrong)
