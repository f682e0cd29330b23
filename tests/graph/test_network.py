"""The two writings of the network agree: graphs run in NumPy give PyTorch's maps, whatever the configuration."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from configurations import TASKS, configs, model
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError, TaskError
from edgemtl.graph import from_state, network, ops, run, weights
from edgemtl.model import MultiTaskViT, preset


def close(got: np.ndarray, want: torch.Tensor) -> None:
    """A map [h, w, C] against PyTorch's [1, C, h, w]."""
    expected = want[0].permute(1, 2, 0).numpy()
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def image_of(config: ModelConfig, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((*config.image_size, 3))


def as_torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1)[None])


@settings(max_examples=60, deadline=None)
@given(config=configs(), task=st.sampled_from([t.name for t in TASKS]), seed=st.integers(0, 99))
def test_the_graphs_give_the_models_maps(config: ModelConfig, task: str, seed: int) -> None:
    whole, image = model(config, seed), image_of(config, seed)
    values = from_state({k: v.numpy() for k, v in whole.state_dict().items()})
    parts = network(config, task)
    shared = run(parts.prefix, {"image": image}, values)
    with torch.no_grad():
        want = whole(as_torch(image))[task]
        prefix = whole.prefix(as_torch(image))
    if config.depth:
        np.testing.assert_allclose(next(iter(shared.values())), prefix.tokens[0].numpy(), rtol=1e-4, atol=1e-4)
    (got,) = run(parts.task, shared, values).values()
    close(got, want)
    shown: dict[str, Any] = {}
    (again,) = run(parts.whole, {"image": image}, values, lambda name, value: shown.update({name: value})).values()
    np.testing.assert_array_equal(again, got)
    within = {f"{n.name}.{part}": c for n in parts.nodes for part, c in ops.find(n.op).parts(n).items()}
    seen = {name: value.shape[-1] for name, value in shown.items() if name not in {n.name for n in parts.nodes}}
    assert seen.items() <= within.items()
    assert all(".fc1." in name for name in within.keys() - seen.keys())  # an expert that no token chose


@settings(max_examples=40, deadline=None)
@given(config=configs())
def test_the_graphs_refer_to_the_states_tensors(config: ModelConfig) -> None:
    """All tasks' graphs together name every tensor, in its shape, except experts that no path reaches."""
    with torch.device("meta"):
        state = {k: tuple(v.shape) for k, v in MultiTaskViT(config).state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    rows: dict[str, set[int]] = {}
    for task in config.task_names:
        for weight in network(config, task).whole.weights:
            for key, shape in weight.sources:
                found[key] = (weight.bank, *shape) if weight.bank else shape
                rows.setdefault(key, set()).add(weight.row)
    learned = {k: v for k, v in state.items() if not k.endswith(".w_noise")}
    assert found == learned
    for i, held in zip(config.moe_blocks, config.held, strict=True):
        reached = {e for t in config.task_names for e in config.path(t)[config.moe_blocks.index(i)]}
        want = {held.index(e) for e in reached}
        assert rows[f"backbone.blocks.{i}.mlp.experts.htoh4.weight"] == want
    every = [(k, w.row) for w in {w.ref: w for w in weights(config)}.values() for k, _ in w.sources]
    assert len(every) == len(set(every))
    banks = {k: n[0] if ".mlp.experts." in k else 1 for k, n in learned.items()}
    assert sorted(every) == sorted((k, row) for k, count in banks.items() for row in range(count))


def test_a_hybrid_of_usual_size() -> None:
    """In float32, as programs compute."""
    config = preset("hybrid", rays=True, head_norm=False, image_size=(96, 128), tasks="rooms")
    whole = model(config).float()
    image = image_of(config).astype(np.float32)
    state = {k: v.numpy() for k, v in whole.state_dict().items()}
    with torch.no_grad():
        want = whole(as_torch(image), ["normals"])["normals"]
    (got,) = run(network(config, "normals").whole, {"image": image}, from_state(state)).values()
    assert got.dtype == np.float32
    close(got, want)


def test_everything_is_shown() -> None:
    config = preset("micro")
    seen: dict[str, Any] = {}
    graph = network(config, "depth").whole
    state = {k: v.numpy() for k, v in model(config).state_dict().items()}
    run(graph, {"image": image_of(config)}, from_state(state), lambda name, value: seen.setdefault(name, value))
    assert {n.name for n in graph.nodes} <= set(seen)
    assert {"head.proj.inner", "head.step0.depthwise", "blocks.1.gate.logits", "blocks.0.mlp.fc1.inner"} <= set(seen)
    assert any(name.startswith("blocks.1.experts.fc1.") for name in seen)
    assert np.isfinite(seen["head.out"]).all()


def test_every_op_is_used() -> None:
    shapes = [preset("micro"), preset("m3vit-t", head_norm=False), preset("hybrid", rays=True, head_norm=False)]
    used = {node.op for config in shapes for node in network(config, "normals").whole.nodes}
    assert used == set(ops.names())


def test_the_prefix_ends_before_what_a_task_changes() -> None:
    config = preset("hybrid", moe=(2,), head_norm=False, paths={"depth": ((1, 3, 5, 7),)})
    shared = {str(network(config, task).prefix) for task in config.task_names}
    assert len(shared) == 1
    parts = network(config, "depth")
    assert parts.prefix.outputs == ("blocks.2.attn.proj", "stem.blocks.2", "stem.blocks.4", "stem.blocks.10")
    assert parts.task.nodes[0].name == "blocks.2.norm2"
    assert parts.task["blocks.2.gate"].attributes["columns"] == (1, 3, 5, 7)
    assert [w.ref for w in parts.task["blocks.2.experts"].weights] == [f"experts.2:{e}" for e in (1, 3, 5, 7)]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"router": "dselect_k", "experts": 4}, "router dselect_k"),
        ({"gate": "conditioned"}, "gate conditioned"),
        ({"head": "conv", "head_stride": 2}, "head_norm"),
    ],
)
def test_a_setting_for_training_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        network(preset("micro", **changes), "depth")


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(TaskError, match="no task 'hands'; this model has semseg"):
        network(preset("micro"), "hands")


def test_it_needs_neither_torch_nor_tvm() -> None:
    code = "import sys, edgemtl.graph as g; g.ops.find('linear'); print(*{m.split('.')[0] for m in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime"} & set(found)
