"""A trained state made into one that programs can be built from: the same maps, in NumPy, without torch.

`to_multi_gate` copies a shared gate to every task, as M3ViT (Liang et al., NeurIPS 2022) does after pre-training; a
conditioned gate becomes a gate with a bias per task, which computes the same. Batch norms become part of their
convolutions. `subset` keeps some tasks and the experts that they may choose.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgemtl.bundle.checkpoint import Array, State, check_shapes
from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError, TaskError
from edgemtl.graph import lite0, weights
from edgemtl.graph.ops._activations import gelu
from edgemtl.graph.ops.layernorm import normalised

_SHARED, _VECTOR = ".gate.shared.", "backbone.gate_task_represent."
_HEAD_EPS = 1e-5  # of a conv head's batch norms, as PyTorch has it


def deployable(
    config: ModelConfig, state: Mapping[str, Array], tasks: Sequence[str] | None = None
) -> tuple[ModelConfig, State]:
    """What is deployed of a model: no part that serves training alone, and only `tasks` (default: all).

    Raises CheckpointError for a state that does not fit the configuration, TaskError for a task that is not there, and
    ConfigError for a model that only training can run.
    """
    for key, value in state.items():
        if not np.isfinite(value).all():
            raise CheckpointError(f"the model's state holds values that are not finite in {key!r}; train it again")
    try:
        config, out = without_training(config, state)
    except KeyError as error:
        raise CheckpointError(f"the model's state lacks {error.args[0]}, which its configuration needs") from None
    want = {key: (w.bank, *shape) if w.bank else shape for w in weights(config) for key, shape in w.sources}
    check_shapes("the model's state", {key: value.shape for key, value in out.items()}, want, "its configuration")
    return subset(config, out, tasks)


def without_training(config: ModelConfig, state: Mapping[str, Array]) -> tuple[ModelConfig, State]:
    """One gate per task, no learned noise, no batch norms. Raises KeyError for a tensor that is missing."""
    config, out = to_multi_gate(config, state)
    if config.router == "noisy":
        config = ModelConfig(**{**dict(config), "router": "noisy_vmoe"})  # renormalised, as it is
        out = {k: v for k, v in out.items() if not k.endswith(".w_noise")}
    if config.has_norms:
        config, out = ModelConfig(**{**dict(config), "head_norm": False}), fold_norms(out)
    return config, out


def fold_norms(state: Mapping[str, Array]) -> State:
    """A state with every batch norm, of conv heads and of the stem, taken into the convolution before it."""
    out = dict(state)
    for key in state:
        norm = key.removesuffix("running_var")
        if norm == key:
            continue
        head = ".syncbn_fc_" in norm
        conv = norm.replace(".syncbn_fc_", ".conv_") if head else norm.removesuffix("norm.") + "conv."
        weight, bias, mean, var = (out.pop(norm + name) for name in ("weight", "bias", "running_mean", "running_var"))
        scale = weight / np.sqrt(var + np.float32(_HEAD_EPS if head else lite0.NORM_EPS))
        before = out.get(f"{conv}bias", np.zeros_like(mean))
        out[f"{conv}weight"] = out[f"{conv}weight"] * scale[:, None, None, None]
        out[f"{conv}bias"] = (before - mean) * scale + bias
    return out


def to_multi_gate(config: ModelConfig, state: Mapping[str, Array]) -> tuple[ModelConfig, State]:
    """The same model with one gate per task, each a copy of the shared gate; unchanged if it has that already.

    What a conditioned gate reads of its task is the same for every token: a bias. Its learned noise, which could not
    be kept, is left out; maps do not depend on it.
    """
    if config.gate == "multi":
        return config, dict(state)
    names = config.task_names if config.gate == "conditioned" else ()
    vectors = {task: _task_vector(config, state, number) for number, task in enumerate(names)}
    out: State = {}
    for key, value in state.items():
        head, shared, tail = key.partition(_SHARED)
        if not shared:
            out |= {} if key.startswith(_VECTOR) else {key: value}
        elif not vectors:
            out |= {f"{head}.gate.{task}.{tail}": value for task in config.task_names}
        elif tail == "w_gate":
            for task, vector in vectors.items():
                out[f"{head}.gate.{task}.w_gate"] = value[: config.dim]
                out[f"{head}.gate.{task}.bias"] = vector @ value[config.dim :]
    changes = {"gate": "multi"} | ({"gate_bias": True, "router": "noisy_vmoe"} if vectors else {})
    return ModelConfig(**{**dict(config), **changes}), out


def _task_vector(config: ModelConfig, state: Mapping[str, Array], task: int) -> Array:
    """What a conditioned gate knows of its task [V]; edgemtl/model/gates.py has it as `TaskVector`."""
    w1, b1, w2, b2, scale, shift = (
        state[f"{_VECTOR}{layer}.{part}"] for layer in ("fc1", "fc2", "norm") for part in ("weight", "bias")
    )
    return normalised(gelu(w1[:, task] + b1) @ w2.T + b2, config.norm_eps) * scale + shift


def subset(config: ModelConfig, state: Mapping[str, Array], tasks: Sequence[str] | None) -> tuple[ModelConfig, State]:
    """Some of a model's tasks, without the experts that none of them may choose; their maps stay the same.

    Raises TaskError.
    """
    if tasks is None or tuple(tasks) == config.task_names:
        return config, dict(state)
    known = ", ".join(config.task_names)
    if not tasks:
        raise TaskError(f"no task was asked for; this model has {known}")
    if unknown := [t for t in tasks if t not in config.task_names]:
        raise TaskError(f"there is no task {unknown[0]!r}; this model has {known}")
    kept = [t for t in config.task_names if t in tasks]
    slots = tuple(tuple(sorted(set().union(*banks))) for banks in zip(*(config.path(t) for t in kept), strict=True))
    changes = {
        "tasks": tuple(config.task(t) for t in kept),
        "paths": {t: p for t, p in config.paths.items() if t in kept},
        "slots": None if slots == config.held and config.slots is None else slots,
    }
    smaller = ModelConfig(**{**dict(config), **changes})
    keys = {key for w in weights(smaller) for key, _ in w.sources}
    return smaller, {key: held(config, slots, key, value) for key, value in state.items() if key in keys}


def held(config: ModelConfig, slots: Sequence[Sequence[int]], key: str, value: Any) -> Any:
    """A tensor of a model's state with the experts of `slots` alone, which has the experts of each MoE block.

    value: an array or a tensor. Banks lose rows, gates columns; every other tensor stays.
    """
    if ".mlp.experts." not in key and ".mlp.gate." not in key:
        return value
    which = config.moe_blocks.index(int(key.split(".")[2]))
    local = [bisect_left(config.held[which], e) for e in slots[which]]
    return value[local] if ".experts." in key else value[..., local]
