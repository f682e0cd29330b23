"""The networks that the training loop knows, by the recipe's name: how each is made, stored and read again.

"vit" is the project's own. What it is compared with: "bisenet", a two-stream convolution network from scratch, and
"bisenet-lite0", the same decoder on the hybrid's own stem with its ImageNet weights, so that only what follows the stem
differs (edgemtl/train/bisenet.py). The dense twins of the ViT need no code: one expert is a dense MLP, its softmax
being 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, serialise, write_atomic
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.bisenet import BiSeNet, BiSeNetLite0

__all__ = [
    "BiSeNet",
    "BiSeNetLite0",
    "Network",
    "bisenet",
    "load_comparator",
    "load_network",
    "make_network",
    "save_comparator",
    "save_network",
]

Comparator = BiSeNet | BiSeNetLite0
Network = MultiTaskViT | Comparator  # what the training loop trains
COMPARATORS: dict[str, type[Comparator]] = {"bisenet": BiSeNet, "bisenet-lite0": BiSeNetLite0}
FORMAT = "edgemtl-"  # and the comparator's name: what a file of one says in its metadata


def bisenet(tasks: Sequence[TaskConfig], image_size: tuple[int, int] = (128, 256)) -> BiSeNet:
    """A BiSeNet-class network for `tasks` on frames of `image_size` (height, width), untrained."""
    return BiSeNet(ModelConfig(name="bisenet", tasks=tuple(tasks), image_size=image_size))


def make_network(name: str, config: ModelConfig) -> Network:
    """The untrained network that a recipe calls `name`: "vit" or one of COMPARATORS.

    Raises ConfigError for images whose sides a comparator cannot halve often enough.
    """
    if name not in COMPARATORS:
        return MultiTaskViT(config)
    sides, network = config.image_size, COMPARATORS[name]
    if any(side % network.SIDES for side in sides):
        raise ConfigError(
            f"{name} needs images whose sides are multiples of {network.SIDES}, not {sides[0]}x{sides[1]}"
        )
    return network(config)


def save_network(name: str, path: Path, state: dict[str, Tensor], config: ModelConfig, origin: str) -> None:
    """Write the state of `make_network(name, config)` in its own format."""
    if name in COMPARATORS:
        save_comparator(name, path, state, config, origin=origin)
    else:
        save_checkpoint(path, state, config, origin=origin)


def load_network(path: Path) -> Network:
    """Read any of them, in evaluation mode on the CPU. Raises CheckpointError as the two readers do."""
    try:
        with safe_open(str(path), "pt") as file:
            ours = _named(file.metadata()) is not None
    except (SafetensorError, OSError):
        ours = False
    return load_comparator(path) if ours else load_checkpoint(path)[0]


def save_comparator(
    name: str, path: str | Path, state: dict[str, Tensor], config: ModelConfig, *, origin: str = ""
) -> None:
    """Write a state of `COMPARATORS[name](config)` as safetensors with its configuration in the metadata."""
    metadata = {"format": FORMAT + name, "origin": origin, "config": config.model_dump_json()}
    tensors = {k: state[k].detach().cpu().contiguous() for k in sorted(state)}
    write_atomic(Path(path), serialise(tensors, metadata))


def load_comparator(path: str | Path) -> Comparator:
    """Read what `save_comparator` wrote, in evaluation mode. Raises CheckpointError for anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; make one with `python -m edgemtl.train.study`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            name = _named(metadata)
            if name is None:
                raise CheckpointError(f"{path} holds no {' or '.join(COMPARATORS)}; give a checkpoint of a study's")
            model = make_network(name, ModelConfig.model_validate_json(metadata["config"]))
            model.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as e:
        reason = " ".join(str(e).split())[:200]
        raise CheckpointError(f"{path} is damaged ({reason}); train it again") from None
    assert not isinstance(model, MultiTaskViT)
    return model.eval()


def _named(metadata: dict[str, str] | None) -> str | None:
    """Which comparator a file's metadata names; None for other files."""
    name = (metadata or {}).get("format", "").removeprefix(FORMAT)
    return name if name in COMPARATORS else None
