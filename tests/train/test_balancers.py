"""Balancers against their definitions, and the gradients they are given."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgemtl.errors import ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.train.balancers import Balancer, GradNorm, Uncertainty, make_balancer
from edgemtl.train.config import BalancerConfig, LossConfig, TrainConfig, load_train_config
from edgemtl.train.losses import task_losses
from edgemtl.train.parallel import Group
from edgemtl.train.step import Stepper

TASKS = ("semseg", "depth", "normals", "edge")
WEIGHTS = {"semseg": 1.0, "depth": 1.0, "normals": 10.0, "edge": 50.0}


def _torchjd() -> None:
    pytest.importorskip("torchjd", reason="torchjd is not installed: pip install 'edgemtl[train]'")


@given(st.integers(0, 10_000), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_config_moves_with_every_task(seed: int, tasks: int) -> None:
    """ConFIG: the same positive cosine with every task's gradient, opposed and unequal as they may be."""
    _torchjd()
    rng = torch.Generator().manual_seed(seed)
    gradients = torch.randn(tasks, 50, generator=rng)
    gradients[1] = 0.3 * gradients[1] - 2 * gradients[0]  # against the first
    gradients *= 10 ** torch.randn(tasks, 1, generator=rng)
    assert gradients[0] @ gradients[1] < 0
    step = make_balancer(BalancerConfig(kind="config"), TASKS, WEIGHTS).combine(TASKS[:tasks], gradients, {})
    cosine = (gradients @ step) / (gradients.norm(dim=1) * step.norm())
    assert (cosine > 1e-3).all()
    assert torch.allclose(cosine, cosine[:1].expand(tasks), rtol=1e-2)


@pytest.mark.parametrize("kind", ["config", "pcgrad", "imtl-g", "aligned-mtl"])
def test_one_task_keeps_its_gradient(kind: str) -> None:
    _torchjd()
    gradient = torch.randn(1, 20)
    balancer = make_balancer(BalancerConfig(kind=kind), TASKS, WEIGHTS)
    assert torch.equal(balancer.combine(("depth",), gradient, {"depth": 1.0}), gradient[0])


def test_uncertainty_descends_its_own_loss() -> None:
    """One update is a step of gradient descent on Σ w_t·loss_t·exp(-s_t) + s_t / 2."""
    balancer = Uncertainty(TASKS, WEIGHTS, BalancerConfig(lr=0.1))
    balancer.log_variance = {"semseg": 0.2, "depth": -0.3, "normals": 0.0, "edge": 1.0}
    s = torch.tensor(list(balancer.log_variance.values()), requires_grad=True)
    losses = {"semseg": 2.0, "depth": 0.5, "normals": 0.7, "edge": 0.1}
    weighted = torch.tensor([WEIGHTS[t] * losses[t] for t in TASKS])
    (weighted * torch.exp(-s) + s / 2).sum().backward()
    assert s.grad is not None
    want = (s - 0.1 * s.grad).tolist()
    by_hand = [WEIGHTS[t] * math.exp(-balancer.log_variance[t]) for t in TASKS]
    assert list(balancer.weights().values()) == pytest.approx(by_hand)
    balancer.update(losses)
    assert list(balancer.log_variance.values()) == pytest.approx(want)
    before = dict(balancer.log_variance)
    balancer.update({"depth": 0.0})  # no label in this batch
    assert balancer.log_variance == before


def test_uncertainty_settles_where_the_weighted_losses_are_equal() -> None:
    balancer = Uncertainty(TASKS, WEIGHTS, BalancerConfig(lr=0.1))
    losses = {"semseg": 2.0, "depth": 0.5, "normals": 0.7, "edge": 0.1}
    for _ in range(500):
        balancer.update(losses)
    assert [balancer.weights()[t] * losses[t] for t in TASKS] == pytest.approx([0.5] * 4, rel=1e-3)


def test_gradnorm_makes_lengths_equal() -> None:
    """With losses that fall alike, a gradient 100 times another's length ends with 1/100 of its weight."""
    balancer = GradNorm(("semseg", "depth"), WEIGHTS, BalancerConfig(lr=0.05))
    gradients = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    for _ in range(400):
        step = balancer.combine(("semseg", "depth"), gradients, {"semseg": 1.0, "depth": 1.0})
    assert float(step[0] / step[1]) == pytest.approx(1, rel=0.3)
    assert sum(balancer.factor.values()) == pytest.approx(2)


def test_gradnorm_favours_the_slow_task() -> None:
    balancer = GradNorm(("semseg", "depth"), WEIGHTS, BalancerConfig(lr=0.01))
    gradients = torch.eye(2)
    balancer.combine(("semseg", "depth"), gradients, {"semseg": 1.0, "depth": 1.0})
    for _ in range(20):
        balancer.combine(("semseg", "depth"), gradients, {"semseg": 0.2, "depth": 0.9})
    assert balancer.factor["depth"] > 1 > balancer.factor["semseg"]


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm"])
def test_what_is_learned_is_kept(kind: str) -> None:
    config = BalancerConfig(kind=kind)
    one, other = make_balancer(config, TASKS, WEIGHTS), make_balancer(config, TASKS, WEIGHTS)
    losses = {"semseg": 2.0, "edge": 0.1}
    one.combine(("semseg", "edge"), torch.randn(2, 5), losses)
    one.update(losses)
    other.load(one.state())
    assert vars(other) == vars(one)


def test_a_missing_torchjd_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"balancer config needs torchjd.* pip install 'edgemtl\[train\]'"):
        make_balancer(BalancerConfig(kind="config"), TASKS, WEIGHTS)


class Sum(Balancer):
    """The fixed weights, but by one gradient per task."""

    per_task = True


def _gradients(balancer: Balancer, recipe: TrainConfig, batch: dict[str, Tensor]) -> dict[str, Tensor | None]:
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro")).train()
    Stepper(model, recipe, Group(), balancer, contextlib.nullcontext)(batch, TASKS, 0, {})
    return {k: p.grad for k, p in model.named_parameters()}


def _recipe(**changes: Any) -> TrainConfig:
    base = load_train_config("rooms_micro").model_dump()
    return TrainConfig(**{**base, "stages": [{"name": "open", "steps": 1}], **changes})


def test_gradients_per_task_sum_to_the_joint_one() -> None:
    batch = FakeRooms().batch(range(4))
    batch["depth"] = torch.full_like(batch["depth"], 255)  # a task that no image has a label of
    joint = _gradients(Balancer(TASKS, WEIGHTS), _recipe(), batch)
    apart = _gradients(Sum(TASKS, WEIGHTS), _recipe(), batch)
    for key, value in joint.items():
        if value is None or apart[key] is None:
            assert value is apart[key], key
        else:
            assert torch.allclose(apart[key], value, rtol=1e-3, atol=1e-5), key
    head = joint["heads.depth.out.weight"]
    assert head is None or not head.any()


def test_sharpness_looks_along_each_tasks_own_gradient() -> None:
    """The gradient of one task, at weights moved by `sharpness` along it; and the weights are back, to the bit."""
    batch = FakeRooms().batch(range(4))
    recipe = _recipe(sharpness=0.1, loss={"balance": 0.0}, tasks=["depth"])
    config = recipe.model_config_for("multi")

    def loss_of(model: MultiTaskViT) -> Tensor:
        kinds = {t.name: t for t in config.tasks}
        return task_losses(model.trace(batch["image"])[0], batch, kinds, LossConfig())["depth"]

    torch.manual_seed(0)
    model = MultiTaskViT(config).train()
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    first = torch.autograd.grad(loss_of(model), parameters, allow_unused=True)
    length = math.sqrt(sum(float(g.square().sum()) for g in first if g is not None))
    with torch.no_grad():
        for p, g in zip(parameters, first, strict=True):
            if g is not None:
                p.add_(0.1 * g / length)
    want = torch.autograd.grad(loss_of(model), parameters, allow_unused=True)
    with torch.no_grad():
        for p, value in zip(parameters, before, strict=True):
            p.copy_(value)
    balancer = Balancer(("depth",), {"depth": 1.0})
    done = Stepper(model, recipe, Group(), balancer, contextlib.nullcontext)(batch, ("depth",), 0, {})
    assert float(done.losses["depth"]) == pytest.approx(float(loss_of(model).detach()))
    assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))
    for p, g in zip(parameters, want, strict=True):
        if p.grad is not None:
            assert torch.allclose(p.grad, torch.zeros_like(p) if g is None else g, rtol=1e-3, atol=1e-6)
    plain = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, first, strict=True)]
    assert any(
        not torch.allclose(p.grad, g, rtol=1e-2) for p, g in zip(parameters, plain, strict=True) if p.grad is not None
    )
