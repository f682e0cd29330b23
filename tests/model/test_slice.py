"""The claim the project rests on: a task's slice chooses the same experts and gives the same map as the full model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import TaskError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.moe import MoE

TASKS = (
    TaskConfig(name="depth", kind="depth", channels=1),
    TaskConfig(name="semseg", kind="semseg", channels=5),
    TaskConfig(name="normals", kind="normals", channels=3),
)
ROUTINGS = ("random", "one expert", "exact ties", "unpicked expert", "all equal")


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Small shapes of every kind, each task with or without a declared path."""
    experts = draw(st.integers(2, 9))
    top_k = draw(st.integers(1, min(4, experts)))
    depth = draw(st.integers(2, 5))
    tasks = TASKS[: draw(st.integers(1, 3))]
    heads = draw(st.sampled_from([1, 2, 4]))
    bank = st.lists(st.integers(0, experts - 1), min_size=top_k, unique=True).map(tuple)
    paths = {}
    for task in tasks:
        if draw(st.booleans()):
            paths[task.name] = tuple(draw(bank) for _ in range(depth // 2))
    return ModelConfig(
        image_size=(16 * draw(st.integers(1, 3)), 16 * draw(st.integers(1, 3))),
        dim=heads * draw(st.sampled_from([8, 12])),
        depth=depth,
        heads=heads,
        experts=experts,
        top_k=top_k,
        expert_ratio=draw(st.sampled_from([0.5, 1.0, 2.0])),
        renormalise=draw(st.booleans()),
        head_dim=draw(st.sampled_from([4, 8])),
        tasks=tasks,
        paths=paths,
    )


def steer(model: MultiTaskViT, routing: str) -> None:
    """Set the gates so that they route as `routing` says."""
    for module in model.modules():
        if not isinstance(module, MoE):
            continue
        for name in module.gate:
            w = module.w_gate(name).data
            w.copy_(torch.randn_like(w))
            if routing == "exact ties":
                w[:] = w[:, :1]  # every column the same: each logit of a token has the same bits
            elif routing == "all equal":
                w.zero_()
            elif routing == "one expert":
                w.mul_(1e-3)[:, -1] += 10 * torch.ones(len(w), dtype=w.dtype)
            elif routing == "unpicked expert":
                w[:, 0] = 0
                w[0, 0] = -1e4


def both(model: MultiTaskViT, image: Tensor, task: str) -> tuple[float, bool]:
    """Largest relative difference of the slice to the full model, and whether every token chose the same experts."""
    part = model.slice(task)
    with torch.no_grad():
        want, full = model.trace(image)
        got, sliced = part.trace(image)
    same = True
    for (name, block), routing in full.routings.items():
        if name == task:
            held = torch.tensor(part.config.held[block // 2])
            same &= torch.equal(held[sliced.routings[name, block].expert], routing.expert)
    return ((got[task] - want[task]).abs().max() / want[task].abs().max()).item(), same


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@settings(max_examples=40, deadline=None)
@given(config=configs(), routing=st.sampled_from(ROUTINGS), seed=st.integers(0, 2**31))
def test_slice_equals_full_model(
    config: ModelConfig, routing: str, seed: int, dtype: torch.dtype, bound: float
) -> None:
    torch.manual_seed(seed)
    model = MultiTaskViT(config).to(dtype).eval()
    for p in model.parameters():
        p.data.normal_(std=0.3)
    steer(model, routing)
    image = torch.randn(2, 3, *config.image_size, dtype=dtype)
    for task in config.task_names:
        error, same = both(model, image, task)
        assert same, f"{task}: another expert was chosen"
        assert error <= bound


@pytest.fixture
def model() -> MultiTaskViT:
    torch.manual_seed(0)
    paths = {"semseg": ((0, 2, 5), (1, 2, 3)), "depth": ((1, 3, 4), (0, 4, 5))}
    return MultiTaskViT(preset("micro", paths=paths)).eval()


def test_slice_holds_only_its_task(model: MultiTaskViT) -> None:
    part = model.slice("depth")
    keys = set(part.state_dict())
    assert not any(".gate." in k and ".gate.depth." not in k for k in keys)
    assert not any(k.startswith("heads.") and not k.startswith("heads.depth.") for k in keys)
    bank = part.state_dict()["backbone.blocks.1.mlp.experts.htoh4.weight"]
    assert torch.equal(bank, model.state_dict()["backbone.blocks.1.mlp.experts.htoh4.weight"][[1, 3, 4]])
    assert part.config.slots == ((1, 3, 4), (0, 4, 5))


def test_slice_without_a_declared_path_holds_every_expert(model: MultiTaskViT) -> None:
    assert model.slice("edge").config.slots == (tuple(range(6)),) * 2


def test_slice_of_a_slice_is_the_slice(model: MultiTaskViT) -> None:
    part = model.slice("depth")
    again = part.slice("depth")
    assert again.config == part.config
    assert all(torch.equal(a, b) for a, b in zip(part.parameters(), again.parameters(), strict=True))


def test_suffix_after_prefix_is_the_whole(model: MultiTaskViT) -> None:
    part, image = model.slice("semseg"), torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        torch.testing.assert_close(part.suffix(part.prefix(image), "semseg"), part(image)["semseg"])


def test_each_task_alone_is_the_task_among_others(model: MultiTaskViT) -> None:
    image = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        together = model(image)
        for task in model.config.task_names:
            torch.testing.assert_close(model(image, [task])[task], together[task])


def test_a_path_changes_the_output(model: MultiTaskViT) -> None:
    """Guards the tests above against masks that do nothing."""
    free = MultiTaskViT(preset("micro")).eval()
    free.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        assert not torch.equal(free(image)["depth"], model(image)["depth"])
        torch.testing.assert_close(free(image)["edge"], model(image)["edge"])


def test_single_gate_cannot_be_sliced() -> None:
    with pytest.raises(TaskError, match="to_multi_gate"):
        MultiTaskViT(preset("micro", gate="single")).slice("depth")


def test_unknown_task_names_the_known(model: MultiTaskViT) -> None:
    with pytest.raises(TaskError, match=r"'dept'.*semseg, depth, normals, edge"):
        model.slice("dept")
    with pytest.raises(TaskError, match="no task"):
        model(torch.zeros(1, 3, 32, 64), [])
