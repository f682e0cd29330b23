"""The deployable checkpoint: one safetensors file with the weights and, in its metadata, the model's configuration.

Distinct from a training run's state (`edgemtl.train.state`). Nothing is ever unpickled; everything is checked before
a model is built from it. Half precision is rounded once at saving, and saving the loaded model again gives the same
bytes. `to_multi_gate` copies a shared gate to every task, as M3ViT (Liang et al., NeurIPS 2022) does after
pre-training; a conditioned gate becomes a gate with a bias per task, which computes the same.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError
from edgemtl.model.gates import TaskVector
from edgemtl.model.head import fold_norms
from edgemtl.model.stem import fold_stem
from edgemtl.model.vit import MultiTaskViT

FORMAT = "edgemtl-checkpoint"
VERSION = 1
_STEM = "backbone.stem."
_SHARED, _VECTOR = ".gate.shared.", "backbone.gate_task_represent."
_DTYPES = {"float16": torch.float16, "float32": torch.float32}


class CheckpointInfo(NamedTuple):
    """Where a checkpoint comes from: its configuration, stored dtype, and `origin`, e.g. "edgemtl train ..."."""

    config: ModelConfig
    dtype: str
    origin: str


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes: the same for the same content (the library orders the metadata at random)."""
    raw = save(dict(tensors))
    length = int.from_bytes(raw[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(raw[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path` so that after a crash it holds either the old content or the new, whole.

    Raises CheckpointError, and leaves the old content, where there is no room or no right to write.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(
            f"{path} cannot be written ({e.strerror or e}); make room, or name another place"
        ) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _stored(key: str, dtype: str) -> torch.dtype:
    """The type that a tensor is stored in: statistics of a stem's batch norms span more than half precision holds."""
    return torch.float32 if key.startswith(_STEM) and ".norm." in key else _DTYPES[dtype]


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{parameter name: shape} of the model with this configuration; nothing is allocated."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in MultiTaskViT(config).state_dict().items()}


def to_multi_gate(config: ModelConfig, state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The same model with one gate per task, each a copy of the shared gate; unchanged if it has that already.

    What a conditioned gate reads of its task is the same for every token: a bias. Its learned noise, which could not
    be kept, is left out; maps do not depend on it.
    """
    if config.gate == "multi":
        return config, dict(state)
    if config.gate == "conditioned":
        return _split_by_task(config, state)
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        head, found, tail = key.partition(_SHARED)
        for task in config.task_names if found else ():
            out[f"{head}.gate.{task}.{tail}"] = value.clone()
        if not found:
            out[key] = value
    return config.model_copy(update={"gate": "multi"}), out


@torch.no_grad()
def _split_by_task(config: ModelConfig, state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    represent = TaskVector(len(config.tasks), config.condition_dim, config.norm_eps)
    represent.load_state_dict({k.removeprefix(_VECTOR): v for k, v in state.items() if k.startswith(_VECTOR)})
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        head, found, tail = key.partition(_SHARED)
        if not found and not key.startswith(_VECTOR):
            out[key] = value
        for number, task in enumerate(config.task_names if tail == "w_gate" else ()):
            weight, rest = value[: config.dim], value[config.dim :]
            out[f"{head}.gate.{task}.w_gate"] = weight.clone()
            out[f"{head}.gate.{task}.bias"] = (represent(number).to(rest) @ rest).clone()
    changes = {"gate": "multi", "gate_bias": True, "router": "noisy_vmoe"}
    return ModelConfig(**{**dict(config), **changes}), out


def without_training(model: MultiTaskViT) -> MultiTaskViT:
    """A model with the same maps, one gate per task and nothing that serves training alone: what can be deployed.

    Batch norms become part of their convolutions. The model itself is returned where it is that already.
    """
    config, state = to_multi_gate(model.config, model.state_dict())
    if config.router == "noisy":
        config = ModelConfig(**{**dict(config), "router": "noisy_vmoe"})  # renormalised, as it is
        state = {k: v for k, v in state.items() if not k.endswith(".w_noise")}
    if config.has_norms:
        config, state = ModelConfig(**{**dict(config), "head_norm": False}), fold_stem(fold_norms(state))
    if config == model.config:
        return model
    out = MultiTaskViT(config)
    out.load_state_dict(state)
    return out.train(model.training)


def save_checkpoint(
    path: str | Path,
    model: MultiTaskViT | Mapping[str, Tensor],
    config: ModelConfig | None = None,
    *,
    dtype: Literal["float16", "float32"] = "float16",
    origin: str = "",
) -> None:
    """Write a model, or a state {name: tensor} with its `config`, atomically.

    Raises CheckpointError if the state does not fit the configuration or holds a value that `dtype` cannot.
    """
    if isinstance(model, MultiTaskViT):
        config, state = config or model.config, dict(model.state_dict())
    else:
        state = dict(model)
    if config is None:
        raise CheckpointError("a state alone does not say its model; give save_checkpoint the config as well")
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    _check_shapes(Path(path), shapes, expected_shapes(config), "the model to be saved")
    tensors = {k: state[k].detach().to("cpu", _stored(k, dtype)).contiguous() for k in sorted(state)}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{key} is not finite in {dtype}; nothing was written, save with dtype='float32'")
    metadata = {"format": FORMAT, "version": str(VERSION), "dtype": dtype, "origin": origin}
    write_atomic(Path(path), serialise(tensors, {**metadata, "config": config.model_dump_json()}))


def load_checkpoint(path: str | Path) -> tuple[MultiTaskViT, CheckpointInfo]:
    """Read a checkpoint into a float32 model in evaluation mode on the CPU.

    Raises CheckpointError, naming what is wrong, for a file that is missing, damaged, of another format, or whose
    tensors are not exactly those of its configuration.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; make one with `edgemtl train`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            info = _read_info(path, metadata)
            keys = list(file.keys())
            shapes = {k: tuple(file.get_slice(k).get_shape()) for k in keys}
            _check_size(path, shapes, info.config)
            _check_shapes(path, shapes, expected_shapes(info.config), "its configuration")
            stored = {k: file.get_tensor(k) for k in keys}
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({e}); copy or train it again") from None
    for key, value in stored.items():
        if value.dtype != _stored(key, info.dtype):
            want = _stored(key, info.dtype)
            raise CheckpointError(f"{path}: {key} is {value.dtype}, a {info.dtype} file has {want}; train it again")
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} holds values that are not finite; train it again")
        if key.endswith("running_var") and value.min() < 0:
            raise CheckpointError(f"{path}: {key} holds a variance below 0; train it again")
    with torch.device("meta"):
        model = MultiTaskViT(info.config)
    model = model.to_empty(device="cpu")
    _fill_buffers(model)
    model.load_state_dict({k: v.float() for k, v in stored.items()})
    return model.eval(), info


def _fill_buffers(model: MultiTaskViT) -> None:
    """Path masks are rebuilt from the configuration: they are no part of a state, and `to_empty` left them blank."""
    config = model.config
    for which, block in enumerate(config.moe_blocks):
        held = config.held[which]
        for task, path in config.paths.items():
            mask = getattr(model.backbone.blocks[block].mlp, f"path_{task}")
            mask.zero_()
            mask[[held.index(e) for e in path[which]]] = True


def _read_info(path: Path, metadata: Mapping[str, str]) -> CheckpointInfo:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but no edgemtl checkpoint; give one that edgemtl wrote")
    if metadata.get("version") != str(VERSION):
        found = metadata.get("version")
        raise CheckpointError(f"{path} has version {found}, this edgemtl reads {VERSION}; use the matching edgemtl")
    if metadata.get("dtype") not in _DTYPES:
        raise CheckpointError(f"{path} says dtype {metadata.get('dtype')!r}; float16 or float32 is needed")
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, ValidationError, RecursionError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(f"{path} has no valid model configuration in its metadata ({reason})") from None
    return CheckpointInfo(config, metadata["dtype"], metadata.get("origin", ""))


def _check_size(path: Path, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """Refuse a configuration far larger than the file before a model of its size is laid out."""
    stored = sum(math.prod(shape) for shape in shapes.values())
    banks = sum(len(held) for held in config.held) * 2 * config.dim * config.expert_hidden
    if config.depth * 4 * config.dim**2 + banks > stored:
        raise CheckpointError(f"{path} holds {stored} values, fewer than its configuration needs; train it again")


def _check_shapes(
    path: Path, found: Mapping[str, tuple[int, ...]], want: Mapping[str, tuple[int, ...]], whose: str
) -> None:
    missing, extra = sorted(want.keys() - found.keys()), sorted(found.keys() - want.keys())
    for what, keys in (("lacks", missing), ("has unknown", extra)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{path} {what} {', '.join(keys[:3])}{more}, which does not fit {whose}")
    for key, shape in want.items():
        if found[key] != shape:
            raise CheckpointError(f"{path}: {key} has shape {list(found[key])}, {whose} needs {list(shape)}")
