"""Ranking experts by routed weight, and what a declared path does to the routing."""

from __future__ import annotations

import pytest
import torch
from fake_rooms import FakeRooms

from edgemtl.errors import ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.train.paths import best_paths, measure_usage, rank_experts
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
            assert len(bank) == 3
            assert inside >= outside
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
