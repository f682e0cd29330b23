"""Random small models for the graph's tests: every setting that a program can have."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.model import MultiTaskViT

TASKS = (
    TaskConfig(name="depth", kind="depth", channels=1),
    TaskConfig(name="normals", kind="normals", channels=3),
    TaskConfig(name="parts", kind="semseg", channels=5),
)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Patch ViTs and hybrids, with experts or none; every head and router; declared paths, slices, one gate for all."""
    heads, experts, top_k = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(1, 2))
    kind = draw(st.sampled_from(["light", "conv", "pyramid"]))
    hybrid = kind == "pyramid"
    depth = draw(st.integers(0 if hybrid else 1, 4))
    moe = None
    if hybrid and draw(st.booleans()):
        moe = tuple(i for i in range(depth) if draw(st.booleans()))
    elif not hybrid and draw(st.integers(0, 5)) == 0:
        moe = ()
    banks = depth // 2 if moe is None else len(moe)
    some = st.lists(st.integers(0, experts - 1), min_size=top_k, max_size=experts, unique=True).map(tuple)
    bank = st.tuples(*[some] * banks)
    paths = {"depth": draw(bank), "normals": draw(bank)}  # in order of use; "parts" may use all
    slots = tuple(tuple(sorted(ids)) for ids in draw(bank))
    fields: dict[str, Any] = draw(st.sampled_from([{"paths": paths}, {}, {"slots": slots}]))
    gate = draw(st.sampled_from(["multi", "multi", "single"]))
    router = draw(st.sampled_from(["noisy_vmoe", "noisy"]))
    patch, stride = {"light": draw(st.sampled_from([(8, 4), (8, 2), (6, 6)])), "conv": (8, 1), "pyramid": (16, 4)}[kind]
    return ModelConfig(
        image_size=(patch * draw(st.integers(1, 2)), patch * draw(st.integers(1, 3))),
        stem="lite0" if hybrid else "patch",
        patch=patch,
        moe=moe,
        dim=heads * draw(st.integers(8, 12)),
        depth=depth,
        heads=heads,
        mlp_ratio=draw(st.sampled_from([0.5, 2.0])),
        experts=experts,
        top_k=top_k,
        expert_ratio=draw(st.sampled_from([0.5, 1.0, 2.0])),
        router=router,
        renormalise=router == "noisy" or draw(st.booleans()),
        gate=gate,
        gate_bias=gate == "multi" and draw(st.booleans()),
        head=kind,
        head_norm=False,
        head_dim=draw(st.integers(1, 10)),
        head_stride=stride,
        fov=draw(st.floats(30, 120)),
        rays=hybrid and draw(st.booleans()),
        tasks=TASKS,
        **fields,
    )


def model(config: ModelConfig, seed: int = 0) -> MultiTaskViT:
    """A float64 model with nothing at zero, so that no part of it can be left out unnoticed."""
    torch.manual_seed(seed)
    out = MultiTaskViT(config).eval().double()
    with torch.no_grad():
        for value in out.state_dict().values():
            value.add_(0.1 * torch.randn_like(value))
    return out
