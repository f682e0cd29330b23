"""Ranking experts by routed weight, and what a declared path does to the routing."""

from __future__ import annotations

import pytest
import torch
from fake_rooms import FakeRooms

from edgemtl.errors import ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.presets import ROOMS_TASKS
from edgemtl.train.paths import best_paths, draw_width, measure_usage, rank_experts
from edgemtl.train.report import collapsed, expert_usage


def test_rank_experts() -> None:
    weight = torch.tensor([[0.1, 3.0, 2.0, 3.0], [0.0, 0.0, 1.0, 0.0]])
    assert rank_experts(weight) == [(1, 3, 2, 0), (2, 0, 1, 3)]  # ties: the lower index first


def test_usage_is_the_sum_of_scores_and_choices() -> None:
    torch.manual_seed(0)
    model, data = MultiTaskViT(preset("micro")).train(), FakeRooms(6, augment=False)
    usage = measure_usage(model, data, images=6, batch=4)["depth"]
    assert model.training
    _, trace = model.eval().trace(data.batch(range(6))["image"])
    for which, block in enumerate(model.config.moe_blocks):
        routing = trace.routings["depth", block]
        want = [float(routing.score[routing.expert == e].detach().sum()) for e in range(model.config.experts)]
        assert usage.weight[which].tolist() == pytest.approx(want, rel=1e-4)
        for counts, chosen in ((usage.chosen, routing.expert), (usage.first, routing.expert[:, :1])):
            assert counts[which].tolist() == torch.bincount(chosen.flatten(), minlength=6).tolist()
    assert usage.tokens == 6 * model.config.tokens
    shared = measure_usage(MultiTaskViT(preset("micro", gate="single")), data, images=6)
    assert all(torch.equal(u.weight, shared["depth"].weight) for u in shared.values())


def test_a_declared_path_holds_the_favourites_and_nothing_else_is_chosen() -> None:
    torch.manual_seed(1)
    model, data = MultiTaskViT(preset("micro")).eval(), FakeRooms(6, augment=False)
    usage = measure_usage(model, data)
    weight = {task: found.weight for task, found in usage.items()}
    config = best_paths(model.config, usage, 3)
    assert set(config.paths) == set(model.config.task_names)
    for task, path in config.paths.items():
        for which, bank in enumerate(path):
            inside = weight[task][which][list(bank)].min()
            outside = weight[task][which][[e for e in range(6) if e not in bank]].max()
            order = [float(weight[task][which][e]) for e in bank]
            assert len(bank) == 3
            assert inside >= outside
            assert order == sorted(order, reverse=True)  # the most used first
    masked = MultiTaskViT(config)
    masked.load_state_dict(model.state_dict())
    _, trace = masked.eval().trace(data.batch(range(6))["image"])
    for (task, block), routing in trace.routings.items():
        which = config.moe_blocks.index(block)
        assert set(routing.expert.unique().tolist()) <= set(config.paths[task][which])


def test_paths_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="to_multi_gate"):
        best_paths(preset("micro", gate="single"), {}, 3)
    for count in (1, 7):
        with pytest.raises(ConfigError, match=r"give 2 \(top_k\) to 6"):
            best_paths(preset("micro"), {}, count)


def test_collapse_is_reported_for_experts_of_the_path_only() -> None:
    bank = ((0, 1, 2), (0, 1, 2))
    config = preset("micro", paths={"depth": bank})
    share = {"depth": {"1": [1.0, 0.996, 0.004, 0, 0, 0], "3": [1.0, 0.9, 0.1, 0, 0, 0]}}
    warnings = collapsed(share, config)
    assert len(warnings) == 1
    assert warnings[0].startswith("depth, block 1")
    assert warnings[0].endswith("expert(s) 2")


def test_usage_counts_choices() -> None:
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro")).eval()
    _, trace = model.trace(FakeRooms().batch([0])["image"], ["depth"])
    usage = expert_usage(trace.routings, model.config)
    chosen = trace.routings["depth", 3].expert
    want = [float((chosen == e).sum()) / len(chosen) for e in range(6)]
    assert usage["depth"]["3"] == pytest.approx(want, abs=1e-5)


def test_half_of_the_steps_are_narrow_and_these_are_drawn_evenly() -> None:
    drawn = [draw_width((1, 2, 5, 6), 3, step) for step in range(3000)]
    assert [drawn.count(w) / 3000 for w in (1, 2, 5, 6)] == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2], abs=0.03)
    assert drawn == [draw_width((1, 2, 5, 6), 3, step) for step in range(3000)]
    assert drawn != [draw_width((1, 2, 5, 6), 4, step) for step in range(3000)]
    assert {draw_width((6,), 3, step) for step in range(20)} == {6}


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_narrow_step_leaves_the_other_experts_alone(width: int) -> None:
    """No routed weight, no gradient; and what it computes is the model of that width."""
    torch.manual_seed(2)
    rank = dict.fromkeys(ROOMS_TASKS, ((4, 0, 2), (1, 5, 3)))
    config = preset("micro", paths=rank, widths=(1, 2, 3), noise_std=1.0)
    model, image = MultiTaskViT(config).train(), FakeRooms().batch([0, 1])["image"]
    model.open_paths(width)
    maps, trace = model.trace(image)
    for (_, block), routing in trace.routings.items():
        open_ = set(rank["depth"][config.moe_blocks.index(block)][:width])
        closed = [e for e in range(6) if e not in open_]
        assert routing.expert.shape[1] == min(2, width)
        assert set(routing.expert.unique().tolist()) <= open_
        assert not routing.prob[:, closed].any()
    (sum(m.square().sum() for m in maps.values()) + trace.balance).backward()
    for which, block in enumerate(config.moe_blocks):
        bank = model.get_parameter(f"backbone.blocks.{block}.mlp.experts.htoh4.weight").grad
        gates = [model.get_parameter(f"backbone.blocks.{block}.mlp.gate.{t}.w_gate").grad for t in ROOMS_TASKS]
        assert bank is not None
        touched = {e for e in range(6) if bank[e].any()}
        assert touched == set(rank["depth"][which][:width])
        for gate in gates:
            assert gate is None or {e for e in range(6) if gate[:, e].any()} <= touched
    model.eval()
    narrow = MultiTaskViT(config.at_width(width)).eval()
    narrow.load_state_dict(model.state_dict())
    with torch.no_grad():
        want, found = narrow(image), model(image)
        assert all(torch.equal(want[task], found[task]) for task in ROOMS_TASKS)
        model.open_paths()
        whole = MultiTaskViT(preset("micro", paths=rank)).eval()
        whole.load_state_dict(model.state_dict())
        assert all(torch.equal(m, whole(image)[task]) for task, m in model(image).items())
