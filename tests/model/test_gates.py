"""Noise, load, the conditioned gate and DSelect-k, against hand-worked numbers and plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import TaskError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, to_multi_gate, without_training
from edgemtl.model.gates import DSelectGate, Gate, balance_loss, expected_load, route, smooth_step


def phi(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def test_expected_load_by_hand() -> None:
    """One token, top-1 of three: the best must beat the second's noisy logit, the others the best's."""
    clean, noisy = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.5, 0.7, -2.0]])
    want = [phi((1 - 0.7) / 0.5), phi((0 - 0.5) / 0.5), phi((-1 - 0.7) / 0.5)]
    got = expected_load(clean, noisy, torch.tensor(0.5), 1)
    assert got.tolist() == pytest.approx(want, abs=1e-6)
    mask = torch.tensor([True, False, True])  # now the first is the best, and the third the bar
    want = [phi((1 + 2) / 0.5), 0.0, phi((-1 - 0.5) / 0.5)]
    assert expected_load(clean, noisy, torch.tensor(0.5), 1, mask).tolist() == pytest.approx(want, abs=1e-6)
    assert expected_load(clean, noisy, torch.tensor(0.5), 2, mask).tolist() == [1, 0, 1]  # no choice is left


@settings(deadline=None, max_examples=20)
@given(experts=st.integers(2, 6), data=st.data())
def test_expected_load_is_what_new_noise_gives(experts: int, data: st.DataObject) -> None:
    """Drawing one expert's noise anew, many times, it is among the best k as often as the load says."""
    k = data.draw(st.integers(1, experts))
    g = torch.Generator().manual_seed(experts * 10 + k)
    clean = torch.randn(1, experts, generator=g)
    noisy, std = clean + 0.5 * torch.randn(1, experts, generator=g), torch.tensor(0.5)
    load = expected_load(clean, noisy, std, k)
    for e in range(experts):
        drawn = noisy.repeat(4000, 1)
        drawn[:, e] = clean[0, e] + std * torch.randn(4000, generator=g)
        share = float((route(drawn, k).expert == e).any(-1).float().mean())
        assert share == pytest.approx(float(load[e]), abs=0.04)


def test_noise_is_for_training_and_the_load_has_a_gradient() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(50, 8)
    for gate in (Gate(8, 4, noise_std=2.0), Gate(8, 4, learned_noise=True)):
        quiet = gate.eval()(tokens, 2, None, False)
        assert quiet.load is None
        assert torch.equal(quiet.expert, gate(tokens, 2, None, False).expert)
        loud = gate.train()(tokens, 2, None, False)
        assert not torch.equal(loud.prob, gate(tokens, 2, None, False).prob)
        assert loud.load is not None
        assert float(loud.load.detach().sum()) == pytest.approx(100, rel=0.2)
        balance_loss(loud).backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in gate.parameters())
    spread = (Gate(8, 4, noise_std=2.0).train()(torch.zeros(5000, 8), 1, None, False)).prob.log()
    assert float((spread - spread.mean(-1, keepdim=True)).detach().std()) == pytest.approx(
        0.5 * math.sqrt(3 / 4), rel=0.05
    )


def test_the_noisy_router_weighs_by_a_softmax_over_the_chosen() -> None:
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro", router="noisy", renormalise=True)).eval()
    _, trace = model.trace(torch.randn(1, 3, 32, 64), ["depth"])
    for routing in trace.routings.values():
        chosen = routing.prob.gather(-1, routing.expert).log()
        torch.testing.assert_close(routing.score, chosen.softmax(-1))
    names = {n for n, _ in model.named_parameters() if n.endswith("w_noise")}
    assert len(names) == 8
    plain = without_training(model)
    assert (plain.config.router, plain.config.renormalise) == ("noisy_vmoe", True)
    image = torch.randn(1, 3, 32, 64)
    assert all(torch.equal(plain(image)[t], m) for t, m in model(image).items())


def conditioned(**changes: object) -> MultiTaskViT:
    torch.manual_seed(2)
    model = MultiTaskViT(preset("micro", gate="conditioned", **changes)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "gate" in name and p.ndim > 1:
                p.normal_(std=0.3)
    return model


def test_a_conditioned_gate_reads_its_task_and_splits_into_biases() -> None:
    model, image = conditioned(), torch.randn(2, 3, 32, 64)
    _, trace = model.trace(image)
    depth, edge = (trace.routings[t, 1].expert for t in ("depth", "edge"))
    assert not torch.equal(depth, edge)  # the same tokens, another task, other experts
    config, state = to_multi_gate(model.config, model.state_dict())
    assert (config.gate, config.gate_bias) == ("multi", True)
    split = MultiTaskViT(config).eval()
    split.load_state_dict(state)
    for task, raw in model(image).items():
        torch.testing.assert_close(split(image)[task], raw, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(split.slice(task)(image)[task], raw, rtol=1e-4, atol=1e-6)
        tokens = split.prefix(image[:1])
        with torch.no_grad():
            torch.testing.assert_close(split.slice(task).suffix(tokens, task), raw[:1], rtol=1e-4, atol=1e-6)
    with pytest.raises(TaskError, match="to_multi_gate"):
        model.slice("depth")


def test_biases_follow_a_path_into_the_slice() -> None:
    paths = {"depth": ((0, 2, 3), (1, 4, 5))}
    split = without_training(conditioned(paths=paths))
    image = torch.randn(1, 3, 32, 64)
    torch.testing.assert_close(split.slice("depth")(image)["depth"], split(image)["depth"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{"gate": "conditioned"}, {"router": "noisy", "renormalise": True}])
def test_every_gate_is_stored_and_loaded(tmp_path: pytest.TempPathFactory, changes: dict[str, object]) -> None:
    model, path = MultiTaskViT(preset("micro", **changes)).eval(), f"{tmp_path}/m.safetensors"
    save_checkpoint(path, model, dtype="float32")
    image = torch.randn(1, 3, 32, 64)
    assert torch.equal(load_checkpoint(path)[0](image)["depth"], model(image)["depth"])


def test_smooth_step() -> None:
    t = torch.tensor([-9, -0.5, -0.25, 0, 0.5, 3], requires_grad=True)
    assert smooth_step(t).tolist() == pytest.approx([0, 0, 0.15625, 0.5, 1, 1])
    smooth_step(t).sum().backward()
    assert t.grad is not None
    assert t.grad.tolist() == pytest.approx([0, 0, 1.125, 1.5, 0, 0])


def selectors(gate: DSelectGate, token: Tensor) -> list[float]:
    """Weights of the experts for one token, as the paper's equations say, in plain loops."""
    _, k, bits = gate.w_bits.shape
    z = [[float(token @ gate.w_bits[:, j, b]) for b in range(bits)] for j in range(k)]
    alpha = [math.exp(float(token @ gate.w_mix[:, j])) for j in range(k)]
    out = []
    for e in range(2**bits):
        total = 0.0
        for j in range(k):
            product = alpha[j] / sum(alpha)
            for b in range(bits):
                s = 0.0 if z[j][b] <= -0.5 else 1.0 if z[j][b] >= 0.5 else -2 * z[j][b] ** 3 + 1.5 * z[j][b] + 0.5
                product *= s if e >> b & 1 else 1 - s
            total += product
        out.append(total)
    return out


def test_dselect_by_loops() -> None:
    torch.manual_seed(0)
    gate, tokens = DSelectGate(6, 8, 2), torch.randn(20, 6)
    with torch.no_grad():
        gate.w_bits.normal_(std=0.3)
        gate.w_mix.normal_()
    weight, entropy = gate.weights(tokens)
    want = torch.tensor([selectors(gate.requires_grad_(False), t) for t in tokens])
    torch.testing.assert_close(weight, want, rtol=1e-4, atol=1e-6)
    assert 0 < float(entropy.detach()) < 3 * math.log(2)
    routing = gate(tokens, 2, None, False)
    best = want.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(routing.expert, best.indices[:, :2])
    torch.testing.assert_close(routing.score, best.values[:, :2], rtol=1e-4, atol=1e-6)


def test_dselect_learns_to_choose_k_experts_and_its_entropy_falls() -> None:
    """Tokens of two kinds, each of which a fixed pair of experts serves: found by gradient descent alone."""
    torch.manual_seed(1)
    kinds = torch.randint(0, 2, (256,))
    tokens = torch.nn.functional.one_hot(kinds, 4).float() + 0.05 * torch.randn(256, 4)
    wanted = torch.tensor([[3, 5], [0, 6]])[kinds]
    gate = DSelectGate(4, 8, 2).train()
    optimiser = torch.optim.Adam(gate.parameters(), lr=0.05)
    first = float(gate.weights(tokens)[1].detach())
    for _ in range(300):
        routing = gate(tokens, 8, None, False)
        right = torch.zeros(256, 8).scatter_add(1, routing.expert, routing.score).gather(1, wanted)
        assert routing.penalty is not None
        loss = -right.clamp(min=1e-4).log().mean() + 0.05 * routing.penalty
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(gate.weights(tokens)[1].detach()) < 0.05 * first
    chosen = gate.eval()(tokens, 2, None, False).expert.sort(-1).values
    assert float((chosen == wanted.sort(-1).values).all(-1).float().mean()) > 0.95


def test_dselect_in_a_model() -> None:
    torch.manual_seed(0)
    config = preset("micro", experts=8, router="dselect_k", paths={"depth": ((0, 2, 3), (1, 4, 5))})
    model, image = MultiTaskViT(config).train(), torch.randn(2, 3, 32, 64)
    maps, trace = model.trace(image)
    for which, block in enumerate(config.moe_blocks):
        inside = set(config.paths["depth"][which])
        assert set(trace.routings["depth", block].expert.flatten().tolist()) <= inside
    (sum(m.sum() for m in maps.values()) + trace.balance).backward()
    grad = model.backbone.blocks[1].mlp.gate["depth"].w_bits.grad
    assert grad is not None
    assert bool(grad.any())
    with pytest.raises(TaskError, match="dselect_k cannot be sliced"):
        model.slice("depth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"router": "noisy"}, "give renormalise: true"),
        ({"router": "dselect_k"}, "6 is no power of two"),
        ({"router": "dselect_k", "experts": 8, "gate": "conditioned"}, "no conditioned gates"),
        ({"router": "dselect_k", "experts": 8, "noise_std": 1.0}, "noise_std is router noisy_vmoe's"),
        ({"gate": "conditioned", "gate_bias": True}, "this gate is conditioned"),
        ({"head": "conv"}, "give head_stride 2"),
    ],
)
def test_forms_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        preset("micro", **changes)


def test_a_configuration_of_before_means_what_it_meant() -> None:
    old = preset("micro").model_dump(mode="json")
    for key in ("gate_bias", "condition_dim", "router", "noise_std", "head"):
        del old[key]
    assert ModelConfig(**old) == preset("micro")


def test_presets_have_the_papers_shapes() -> None:
    """Parameters in millions of backbone and one decoder, with two tasks: reference figures 43.4 and 2.66, 171.8."""
    tasks = (
        TaskConfig(name="semseg", kind="semseg", channels=40),
        TaskConfig(name="depth", kind="depth", channels=1),
    )
    for name, backbone, decoder in (("m3vit-s", 43.4, 2.66), ("m3vit-b", 171.8, 3.54)):
        with torch.device("meta"):
            model = MultiTaskViT(preset(name, tasks=tasks))
        assert sum(p.numel() for p in model.backbone.parameters()) / 1e6 == pytest.approx(backbone, rel=2e-3)
        assert sum(p.numel() for p in model.heads["depth"].parameters()) / 1e6 == pytest.approx(decoder, rel=5e-3)


@pytest.mark.parametrize(
    ("recipe", "gates"),
    [
        ({"model": {"router": "dselect_k", "experts": 8}}, ["single", "multi", "multi"]),
        ({"model": {"router": "noisy", "renormalise": True}}, ["single", "multi", "multi"]),
        ({"model": {"head": "conv", "head_stride": 2, "noise_std": 1.0}}, ["single", "multi", "multi"]),
        ({"conditioned": True}, ["conditioned", "multi"]),
    ],
)
def test_every_form_goes_through_the_stages(tmp_path: Path, recipe: dict[str, Any], gates: list[str]) -> None:
    from rich.console import Console

    from edgemtl.train.config import TrainConfig
    from edgemtl.train.loop import Sets, Trainer
    from edgemtl.train.report import Reporter

    names = ["shared", "open", "paths"][-len(gates) :]
    stages = [{"name": n, "steps": 2, "experts_per_path": 3, "rank_images": 2} for n in names]
    plain: dict[str, Any] = {"preset": "micro", "batch": 2, "device": "cpu", "val_images": 0, "ema": 0.5}
    sets = Sets(Noise(), Noise())
    Trainer(TrainConfig(**{**plain, **recipe, "stages": stages}), tmp_path, sets, Reporter(Console(stderr=True))).run()
    assert [load_checkpoint(tmp_path / f"{n}.safetensors")[1].config.gate for n in names] == gates
    config = load_checkpoint(tmp_path / "model.safetensors")[1].config
    assert set(config.paths) == set(config.task_names)
    assert config.gate_bias == ("conditioned" in recipe)


class Noise:
    """Four images of noise, labelled with noise."""

    def __len__(self) -> int:
        return 4

    def set_epoch(self, epoch: int) -> None:
        pass

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        n = len(indices)
        maps = {k: torch.rand(n, c, 32, 64) for k, c in (("image", 3), ("depth", 1), ("normals", 3), ("edge", 1))}
        return {**maps, "semseg": torch.randint(0, 13, (n, 32, 64))}
