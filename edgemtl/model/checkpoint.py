"""The deployable checkpoint in PyTorch: written, and read into a model (the file: edgemtl/bundle/checkpoint.py).

Distinct from a training run's state (`edgemtl.train.state`). Half precision is rounded once at saving, and saving the
loaded model again gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from edgemtl.bundle import deployable
from edgemtl.bundle.checkpoint import (
    FORMAT,
    VERSION,
    Array,
    CheckpointInfo,
    bare,
    check_shapes,
    read_checkpoint,
    stored,
)
from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError
from edgemtl.files import replacing
from edgemtl.model.vit import MultiTaskViT

_DTYPES = {"float16": torch.float16, "float32": torch.float32}


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=True) as new:
            new.write_bytes(content)
    except OSError as e:
        raise CheckpointError(
            f"{path} cannot be written ({e.strerror or e}); make room, or name another place"
        ) from None


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{parameter name: shape} of the model with this configuration; nothing is allocated."""
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in MultiTaskViT(config).state_dict().items()}


def to_multi_gate(config: ModelConfig, state: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """`edgemtl.bundle.deployable.to_multi_gate` for a state of tensors."""
    config, out = deployable.to_multi_gate(config, arrays(state))
    return config, {k: torch.from_numpy(v).clone() for k, v in out.items()}


def without_training(model: MultiTaskViT) -> MultiTaskViT:
    """A model with the same maps, one gate per task and nothing that serves training alone: what can be deployed.

    Batch norms become part of their convolutions. The model itself is returned where it is that already.
    """
    config, state = deployable.without_training(model.config, arrays(model.state_dict()))
    if config == model.config:
        return model
    return model_of(config, state).train(model.training)


def model_of(config: ModelConfig, state: Mapping[str, Array]) -> MultiTaskViT:
    """The model of a state in NumPy, in evaluation mode."""
    model = MultiTaskViT(config)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return model.eval()


def unwrapped(model: Any) -> MultiTaskViT:
    """The model itself, out of what torch.compile and DistributedDataParallel make of it. Raises CheckpointError."""
    found = model
    while not isinstance(found, MultiTaskViT):
        found = getattr(found, "_orig_mod", None) or getattr(found, "module", None)
        if found is None:
            raise CheckpointError(f"a model of edgemtl.model, or its checkpoint's path, is needed, not {model!r:.80}")
    return found


def arrays(state: Mapping[str, Tensor]) -> dict[str, Array]:
    """A state of tensors in NumPy, float32."""
    return {k: v.detach().cpu().float().numpy() for k, v in state.items()}


def save_checkpoint(
    path: str | Path,
    model: torch.nn.Module | Mapping[str, Tensor],
    config: ModelConfig | None = None,
    *,
    dtype: Literal["float16", "float32"] = "float16",
    origin: str = "",
) -> None:
    """Write a model, wrapped or not, or a state {name: tensor} with its `config`, atomically.

    Raises CheckpointError if the state does not fit the configuration or holds a value that `dtype` cannot.
    """
    if isinstance(model, Mapping):
        state = {bare(k): v for k, v in model.items()}
    else:
        model = unwrapped(model)
        config, state = config or model.config, dict(model.state_dict())
    if config is None:
        raise CheckpointError("a state alone does not say its model; give save_checkpoint the config as well")
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    check_shapes(str(path), shapes, expected_shapes(config), "the model to be saved")
    tensors = {k: state[k].detach().to("cpu", _DTYPES[stored(k, dtype)]).contiguous() for k in sorted(state)}
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
    info, state = read_checkpoint(path, expected_shapes)
    with torch.device("meta"):
        model = MultiTaskViT(info.config)
    model = model.to_empty(device="cpu")
    model.open_paths()  # masks are no part of a state, and `to_empty` left them blank
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return model.eval(), info
