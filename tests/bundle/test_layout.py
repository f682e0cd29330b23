"""The weight layout: what `pack_state` makes is exactly undone, and lies as the kernels read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.bundle import layout
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import BundleError, CheckpointError
from edgemtl.model import preset

TASKS = (TaskConfig(name="depth", kind="depth", channels=1), TaskConfig(name="semseg", kind="semseg", channels=19))


GOLDEN: dict[str, ModelConfig] = {
    "micro": preset("micro", gate_bias=True, paths={"depth": ((0, 2), (1, 4))}),
    "hybrid": preset("hybrid", tasks="rooms", rays=True, experts=2, top_k=1, head_norm=False),
}


def test_the_list_of_tensors_stays() -> None:
    """Names, kinds, shapes and order are what bundles already written have: a change here needs a new schema."""
    lines = []
    for name, config in GOLDEN.items():
        lines.append(f"# {name}")
        for e in layout.entries(config):
            sources = " ".join(f"{key}{list(shape)}".replace(" ", "") for key, shape in e.sources)
            lines.append(f"{e.ref} {e.kind} {e.row}/{e.bank} {sources}")
    assert lines == (Path(__file__).parent / "entries.txt").read_text().splitlines()


def random_state(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = {}
    for entry in layout.entries(config):
        for key, shape in entry.sources:
            state[key] = rng.standard_normal((entry.bank, *shape) if entry.bank else shape).astype(np.float32)
    return state


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    heads, experts = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    depth = draw(st.integers(1, 4))
    some = st.lists(st.integers(0, experts - 1), min_size=2, max_size=experts, unique=True).map(sorted).map(tuple)
    banks = st.tuples(*[some] * (depth // 2))
    fields: dict[str, Any] = {"slots": draw(banks)} if draw(st.booleans()) else {"paths": {"depth": draw(banks)}}
    gate = draw(st.sampled_from(["multi", "single"]))
    if draw(st.booleans()):
        fields |= {"head": "conv", "head_norm": False, "head_stride": 2, "gate_bias": gate == "multi"}
    return ModelConfig(
        image_size=(16 * draw(st.integers(1, 2)), 32),
        dim=heads * draw(st.integers(8, 20)),
        heads=heads,
        depth=depth,
        experts=experts,
        top_k=2,
        expert_ratio=draw(st.sampled_from([0.5, 1.0, 2.0])),
        head_dim=draw(st.integers(1, 20)),
        tasks=TASKS,
        gate=gate,
        **fields,
    )


@settings(max_examples=30, deadline=None)
@given(configs())
def test_a_state_comes_back_exactly(config: ModelConfig) -> None:
    state = random_state(config)
    parts = layout.pack_state(config, state)
    back = layout.unpack_state(config, lambda part, tensor: parts[part][tensor])
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == np.float32
        np.testing.assert_array_equal(back[key], value, err_msg=key)


@settings(max_examples=15, deadline=None)
@given(configs())
def test_every_tensor_is_flat_and_fills_whole_lines(config: ModelConfig) -> None:
    parts = layout.pack_state(config, random_state(config))
    for entry in layout.entries(config):
        packed = parts[entry.part][entry.tensor]
        assert packed.shape == (entry.length(),)
        assert packed.dtype == np.float32
        assert packed.size % (layout.PAGE_FLOATS if entry.kind == "expert" else layout.LANES) == 0


def test_panels_lie_as_the_kernels_read_them() -> None:
    weight = np.arange(18 * 3, dtype=np.float32).reshape(18, 3)
    packed = layout.pack_linear(weight, np.arange(18, dtype=np.float32))
    panels = packed[: 2 * 3 * 16].reshape(2, 3, 16)
    for n, k in [(0, 0), (15, 2), (16, 1), (17, 0)]:
        assert panels[n // 16, k, n % 16] == weight[n, k]
    assert not panels[1, :, 2:].any()  # the padding
    np.testing.assert_array_equal(packed[-32:-14], np.arange(18))
    assert not packed[-14:].any()


def test_a_slice_asks_only_for_its_own_experts() -> None:
    path = ((1, 3), (0, 2))
    shape: dict[str, Any] = {"dim": 16, "heads": 1, "depth": 4, "experts": 4, "top_k": 2, "image_size": (16, 16)}
    full = ModelConfig(**shape, tasks=TASKS, paths={"depth": path})
    kept = ModelConfig(**shape, tasks=TASKS[:1], slots=path)
    state = random_state(full)
    parts = layout.pack_state(full, state)
    asked = []

    def get(part: str, tensor: str) -> np.ndarray:
        asked.append(f"{part}:{tensor}")
        return parts[part][tensor]

    back = layout.unpack_state(kept, get, stored=full)
    experts = [ref for ref in asked if ref.startswith("experts")]
    assert experts == ["experts.1:1", "experts.1:3", "experts.3:0", "experts.3:2"]
    assert not any("semseg" in ref for ref in asked)
    for key, value in back.items():
        which = 0 if ".1." in key else 1
        want = state[key]
        if ".experts." in key:
            want = want[list(path[which])]
        elif key.endswith("w_gate"):
            want = want[:, list(path[which])]
        np.testing.assert_array_equal(value, want, err_msg=key)


def test_a_wrong_state_is_refused_by_name() -> None:
    config = ModelConfig(dim=16, heads=1, depth=1, image_size=(16, 16), tasks=TASKS)
    state = random_state(config)
    with pytest.raises(CheckpointError, match=r"'backbone.cls_token' has shape \[2\]; .* needs \[1, 1, 16\]"):
        layout.pack_state(config, state | {"backbone.cls_token": np.zeros(2, np.float32)})
    del state["backbone.cls_token"]
    with pytest.raises(CheckpointError, match=r"no 'backbone.cls_token'"):
        layout.pack_state(config, state)


def test_a_wrong_tensor_is_refused_by_name() -> None:
    config = ModelConfig(dim=16, heads=1, depth=1, image_size=(16, 16), tasks=TASKS)
    parts = layout.pack_state(config, random_state(config))
    parts["trunk"]["cls_token"] = np.zeros(32, np.float32)
    with pytest.raises(BundleError, match=r"trunk:cls_token is float32 \[32\]; this model needs float32 \[16\]"):
        layout.unpack_state(config, lambda part, tensor: parts[part][tensor])
