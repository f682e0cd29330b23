"""The deployable checkpoint: one safetensors file with the weights and, in its metadata, the model's configuration.

This file reads it with NumPy alone; edgemtl/model/checkpoint.py makes a model of it, and writes it. Nothing is ever
unpickled. Everything is checked before it is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError

FORMAT = "edgemtl-checkpoint"
VERSION = 1
DTYPES = ("float16", "float32")
_STEM = "backbone.stem."

Array = NDArray[np.float32]
State = dict[str, Array]
Shapes = Mapping[str, tuple[int, ...]]


class CheckpointInfo(NamedTuple):
    """Where a checkpoint comes from: its configuration, stored dtype, and `origin`, e.g. "edgemtl train ..."."""

    config: ModelConfig
    dtype: str
    origin: str


def bare(key: str) -> str:
    """The name of a tensor without what torch.compile and DistributedDataParallel put before the names they wrap."""
    return key.replace("_orig_mod.", "").removeprefix("module.")


def stored(key: str, dtype: str) -> str:
    """The type that a tensor is stored in: statistics of a stem's batch norms span more than half precision holds."""
    return "float32" if key.startswith(_STEM) and ".norm." in key else dtype


def read_info(path: str | Path) -> CheckpointInfo:
    """What a checkpoint says of itself; no weight is read. Raises CheckpointError as `read_checkpoint` does."""
    return _read(Path(path), tensors=False)[0]


def read_checkpoint(
    path: str | Path, expected: Callable[[ModelConfig], Shapes] | None = None
) -> tuple[CheckpointInfo, State]:
    """The configuration of a checkpoint and its weights by name, float32.

    `expected` gives the names and shapes that a configuration needs; without it the caller checks them
    (`edgemtl.bundle.deployable`). Raises CheckpointError, naming what is wrong, for a file that is missing, damaged, of
    another format, or that holds values that are not finite.
    """
    info, raw = _read(Path(path), expected)
    state = {}
    for key, value in raw.items():
        if value.dtype != stored(key, info.dtype):
            want = stored(key, info.dtype)
            raise CheckpointError(f"{path}: {key} is {value.dtype}, a {info.dtype} file has {want}; train it again")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{path}: {key} holds values that are not finite; train it again")
        if key.endswith("running_var") and value.min() < 0:
            raise CheckpointError(f"{path}: {key} holds a variance below 0; train it again")
        state[key] = value.astype(np.float32)
    return info, state


def _read(
    path: Path, expected: Callable[[ModelConfig], Shapes] | None = None, *, tensors: bool = True
) -> tuple[CheckpointInfo, dict[str, NDArray[Any]]]:
    """What the file says of itself, and its tensors as they are stored."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; make one with `edgemtl train`")
    try:
        with safe_open(str(path), "np") as file:
            info = _info(path, file.metadata() or {})
            keys = {bare(k): k for k in file.keys()}  # noqa: SIM118
            shapes = {k: tuple(file.get_slice(found).get_shape()) for k, found in keys.items()}
            _check_size(path, shapes, info.config)
            if expected is not None:
                check_shapes(str(path), shapes, expected(info.config), "its configuration")
            return info, {k: file.get_tensor(found) for k, found in keys.items() if tensors}
    except (SafetensorError, OSError, ValueError, TypeError) as e:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({e}); copy or train it again") from None


def _info(path: Path, metadata: Mapping[str, str]) -> CheckpointInfo:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is a safetensors file but no edgemtl checkpoint; give one that edgemtl wrote")
    if metadata.get("version") != str(VERSION):
        found = metadata.get("version")
        raise CheckpointError(f"{path} has version {found}, this edgemtl reads {VERSION}; use the matching edgemtl")
    if metadata.get("dtype") not in DTYPES:
        raise CheckpointError(f"{path} says dtype {metadata.get('dtype')!r}; float16 or float32 is needed")
    try:
        config = ModelConfig(**json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError, ValidationError, RecursionError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(f"{path} has no valid model configuration in its metadata ({reason})") from None
    return CheckpointInfo(config, metadata["dtype"], metadata.get("origin", ""))


def _check_size(path: Path, shapes: Shapes, config: ModelConfig) -> None:
    """Refuse a configuration far larger than the file before a model of its size is laid out."""
    held = sum(math.prod(shape) for shape in shapes.values())
    banks = sum(len(ids) for ids in config.held) * 2 * config.dim * config.expert_hidden
    if config.depth * 4 * config.dim**2 + banks > held:
        raise CheckpointError(f"{path} holds {held} values, fewer than its configuration needs; train it again")


def check_shapes(file: str, found: Shapes, want: Shapes, whose: str) -> None:
    """Raise CheckpointError, naming tensors, unless `found` is exactly what `whose` configuration needs."""
    missing, extra = sorted(want.keys() - found.keys()), sorted(found.keys() - want.keys())
    for what, keys in (("lacks", missing), ("has unknown", extra)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{file} {what} {', '.join(keys[:3])}{more}, which does not fit {whose}")
    for key, shape in want.items():
        if found[key] != shape:
            raise CheckpointError(f"{file}: {key} has shape {list(found[key])}, {whose} needs {list(shape)}")
