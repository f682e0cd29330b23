"""Checkpoints as the code of M3ViT writes them (Liang et al., NeurIPS 2022; github.com/VITA-Group/M3ViT), read safely.

Either one .pth file, or with expert parallelism a folder 0.pth, 1.pth, ... of which the first is whole but for the
experts of the others. What the files do not say (attention heads, top-k, the image's shape) follows from the
released configurations, or is given. Files are read with `weights_only`, so nothing in them is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from edgemtl.bundle.checkpoint import bare
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import CheckpointError
from edgemtl.model.checkpoint import expected_shapes
from edgemtl.model.positions import at_size
from edgemtl.model.pth import read_pth

KINDS: dict[str, str] = {  # of M3ViT's decoders, by name
    "semseg": "semseg",
    "human_parts": "semseg",
    "sal": "saliency",
    "depth": "depth",
    "normals": "normals",
    "edge": "edge",
}
HEADS = {192: 3, 384: 12, 768: 12}  # by width
SIZES = {128: (128, 256), 196: (224, 224), 1024: (512, 512), 1200: (480, 640)}  # by number of 16-pixel patches
ACTIVE_RATIO = 4  # top_k · expert_ratio, in every released configuration
# Serves training alone: task distillation, losses at several scales, counters, auxiliary gates.
_TRAINING = re.compile(
    r"^tam_model\d+\.|\.output_level_\d+\.|\.num_batches_tracked$|\.gate\.(\d+\.)?(head\.|w_(gate|noise)_aux$)"
)
_EXPERTS = re.compile(r"\.mlp\.experts\.(htoh4|h4toh)\.(weight|bias)$")
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class Imported(NamedTuple):
    """A model: its configuration and state (float32), how many tensors served training alone, and the epoch."""

    config: ModelConfig
    state: dict[str, Tensor]
    left_out: int
    epoch: int | None


def import_m3vit(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    resize: tuple[int, int] | None = None,
    heads: int | None = None,
    top_k: int | None = None,
) -> Imported:
    """Read a checkpoint: a .pth file, or a folder of them.

    image_size: (height, width) that the model was trained at; resize: that it is to have. Normals keep the axes of
    the data that the model was trained on. Raises CheckpointError, naming the file and the key, for anything that is
    not exactly what M3ViT writes.
    """
    path = Path(path)
    state, epoch = _read(path)
    kept = {k: v for k, v in state.items() if not _TRAINING.search(k)}
    config = _config(path, kept, image_size, heads, top_k)
    names = {key: _theirs(key, config) for key in expected_shapes(config)}
    _check(path, kept, {names[key]: shape for key, shape in expected_shapes(config).items()})
    out = {key: kept[name].float() for key, name in names.items()}
    if resize is not None:
        with _valid(f"{path} cannot be resized to {resize[0]}x{resize[1]}"):
            config, out = at_size(config, out, resize)
    return Imported(config, out, len(state) - len(kept), epoch)


def _theirs(key: str, config: ModelConfig) -> str:
    """What M3ViT calls the tensor that is called `key` here."""
    if key.startswith("heads."):
        return "decoders." + key.removeprefix("heads.")
    before, found, after = key.partition(".mlp.gate.")
    if not found:
        return key
    task, _, tensor = after.partition(".")
    number = "" if task == "shared" else f"{config.task_names.index(task)}."
    return f"{before}{found}{number}{tensor}"


def _read(path: Path) -> tuple[dict[str, Tensor], int | None]:
    """The state dict without DDP's prefix, all experts together, and the epoch."""
    if not path.is_dir():
        content = read_pth(path)
        return _state(path, content), _epoch(content)
    ranks = sorted(int(p.stem) for p in path.glob("*.pth") if p.stem.isdigit())
    if not ranks or ranks != list(range(len(ranks))):
        missing = next(i for i in range(len(ranks) + 1) if i not in ranks)
        raise CheckpointError(f"{path} has no {missing}.pth; a folder of M3ViT holds 0.pth, 1.pth, ... without a gap")
    first = read_pth(path / "0.pth")
    state = _state(path / "0.pth", first)
    banks = {key: [value] for key, value in state.items() if _EXPERTS.search(key)}
    for rank in ranks[1:]:
        file = path / f"{rank}.pth"
        part = _state(file, read_pth(file))
        if part.keys() != banks.keys():
            odd = sorted(part.keys() ^ banks.keys())[0]
            raise CheckpointError(
                f"{file} must hold the experts and nothing else; {odd} is wrong, copy the folder anew"
            )
        for key, value in part.items():
            if value.shape != banks[key][0].shape:
                want = list(banks[key][0].shape)
                raise CheckpointError(f"{file}: {key} has shape {list(value.shape)}, in 0.pth it has {want}")
            banks[key].append(value)
    return state | {key: torch.cat(parts) for key, parts in banks.items()}, _epoch(first)


def _state(file: Path, content: Any) -> dict[str, Tensor]:
    found = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{file} has no state_dict; give a checkpoint as M3ViT saves it")
    out = {}
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{file}: {key!r} in its state_dict is no tensor with a name")
        out[bare(key)] = value
    return out


def _epoch(content: Any) -> int | None:
    epoch = content.get("epoch")
    return epoch if isinstance(epoch, int) else None


def _config(
    path: Path, state: Mapping[str, Tensor], size: tuple[int, int] | None, heads: int | None, top_k: int | None
) -> ModelConfig:
    """The configuration that the tensors' shapes tell."""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"{path} lacks {key}; give a checkpoint of M3ViT's MoE vision transformer")
        if state[key].ndim != dimensions or not state[key].numel():
            raise CheckpointError(
                f"{path}: {key} has shape {list(state[key].shape)}, {dimensions} dimensions are needed"
            )
        return tuple(state[key].shape)

    blocks = {int(m[1]) for key in state if (m := re.match(r"backbone\.blocks\.(\d{1,4})\.", key))}
    dim, _, patch, _ = shape("backbone.patch_embed.proj.weight", 4)
    experts, hidden, _ = shape("backbone.blocks.1.mlp.experts.htoh4.weight", 3)
    ratio = hidden / dim
    gate, rows = _gate(state, shape)
    fields: dict[str, Any] = {
        "name": "m3vit",
        "image_size": _size(path, shape("backbone.pos_embed", 3)[1] - 1, patch, size),
        "patch": patch,
        "dim": dim,
        "depth": max(blocks) + 1,
        "heads": heads or _known(path, HEADS.get(dim), f"the number of attention heads of width {dim}", "--heads N"),
        "mlp_ratio": shape("backbone.blocks.0.mlp.fc1.weight", 2)[0] / dim,
        "experts": experts,
        "top_k": top_k or max(1, round(ACTIVE_RATIO / ratio)),
        "expert_ratio": ratio,
        "gate": gate,
        "condition_dim": max(1, rows - dim),
        "router": "noisy_vmoe",
        "head": "conv",
        "head_stride": patch // 8,
    }
    if any(key.endswith(".w_noise") for key in state):
        fields |= {"router": "noisy", "renormalise": True}
    names = list(dict.fromkeys(m[1] for key in state if (m := re.match(r"decoders\.([^.]+)\.", key))))
    with _valid(f"{path} is not of a form that M3ViT has"):
        fields["tasks"] = tuple(_task(path, name, shape(f"decoders.{name}.conv_4.weight", 4)[0]) for name in names)
        fields["head_dim"] = shape(f"decoders.{names[0]}.conv_0.weight", 4)[0] if names else 256
        return ModelConfig(**fields)


def _gate(state: Mapping[str, Tensor], shape: Any) -> tuple[str, int]:
    """The kind of gate, and the rows of its matrix."""
    key = "backbone.blocks.1.mlp.gate."
    if f"{key}0.w_gate" in state:
        return "multi", shape(f"{key}0.w_gate", 2)[0]
    conditioned = "backbone.gate_task_represent.fc1.weight" in state
    return "conditioned" if conditioned else "single", shape(f"{key}w_gate", 2)[0]


def _task(path: Path, name: str, channels: int) -> TaskConfig:
    if name not in KINDS:
        raise CheckpointError(f"{path} has a decoder for {name!r}, which is none of M3ViT's tasks: {', '.join(KINDS)}")
    return TaskConfig(name=name, kind=KINDS[name], channels=channels)


def _size(path: Path, patches: int, patch: int, given: tuple[int, int] | None) -> tuple[int, int]:
    if given is None:
        guess = SIZES.get(patches) if patch == 16 else None
        return _known(path, guess, f"the shape of an image of {patches} patches", "--image-size HxW")
    if (given[0] // patch) * (given[1] // patch) != patches:
        raise CheckpointError(
            f"{path} has positions for {patches} patches of {patch} pixels; an image of {given[0]}x{given[1]} has "
            f"{given[0] // patch} x {given[1] // patch}: give the --image-size that it was trained at"
        )
    return given


def _known(path: Path, value: Any, what: str, option: str) -> Any:
    if value is None:
        raise CheckpointError(f"{path} does not say {what}; add {option}")
    return value


def _check(path: Path, found: Mapping[str, Tensor], want: Mapping[str, tuple[int, ...]]) -> None:
    """Every tensor that the model needs, of its shape and a floating type, and no other."""
    for what, keys in (("lacks", want.keys() - found.keys()), ("has unknown", found.keys() - want.keys())):
        if keys:
            first, more = sorted(keys)[:3], f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{path} {what} {', '.join(first)}{more}; its other keys are M3ViT's")
    for key, shape in want.items():
        if tuple(found[key].shape) != shape:
            raise CheckpointError(f"{path}: {key} has shape {list(found[key].shape)}, M3ViT's has {list(shape)}")
        if found[key].dtype not in _DTYPES:
            raise CheckpointError(f"{path}: {key} is {found[key].dtype}; float32, float16 or bfloat16 is needed")


@contextmanager
def _valid(what: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as e:
        reason = e.errors()[0]["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{what}: {reason}") from None
