"""What a run starts from: the device, the weights of a checkpoint that fit, and the parts that torch.compile takes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model.checkpoint import load_checkpoint, to_multi_gate
from edgemtl.model.head import ConvHead, LightHead, PyramidHead
from edgemtl.model.positions import at_size
from edgemtl.model.stem import Lite0Stem
from edgemtl.model.vit import Attention, MultiTaskViT
from edgemtl.train.comparators import make_network
from edgemtl.train.config import TrainConfig
from edgemtl.train.state import FILE, RunState


def static_parts(model: nn.Module) -> list[nn.Module]:
    """Parts of a model whose shapes depend on no data, which the experts' do: what torch.compile is good at."""
    kinds = (Attention, Lite0Stem, PyramidHead, LightHead, ConvHead)
    found: list[nn.Module] = [m for m in model.modules() if isinstance(m, kinds)]
    return found or [model]


def choose_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch sees no CUDA device; set device: cpu or auto")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def initial(path: Path, want: ModelConfig, seed: int) -> tuple[ModelConfig, dict[str, Tensor], list[str]]:
    """Weights of a checkpoint for a first stage with configuration `want`; paths it declares are opened again.

    With the paths go the widths that they were trained at.
    Positions of another image size are resized, as M3ViT does with ImageNet's. Tasks may have other channels, and heads
    other parts: the tensors that then do not fit are named in the third value, and start anew.
    """
    model, info = load_checkpoint(path)
    found, state = info.config, dict(model.state_dict())
    if want.gate == "multi":
        found, state = to_multi_gate(found, state)
    if found.patch == want.patch and found.image_size != want.image_size:
        found, state = at_size(found, state, want.image_size)
    free = {"name", "paths", "widths", "tasks", "fov", "rays"}
    differ = [k for k in ModelConfig.model_fields if k not in free and getattr(found, k) != getattr(want, k)]
    differ += ["tasks"] if {t.name: t.kind for t in found.tasks} != {t.name: t.kind for t in want.tasks} else []
    if differ == ["gate"] and found.gate == "multi":
        raise CheckpointError(f"{path} has one gate per task already; leave stage shared out of the recipe")
    if differ:
        raise CheckpointError(f"{path} differs from the recipe's model in {', '.join(differ)}; give a matching one")
    torch.manual_seed(seed)
    fresh = MultiTaskViT(want).state_dict()
    fits = {k for k, v in fresh.items() if k in state and state[k].shape == v.shape}
    return want, {k: state[k] if k in fits else v for k, v in fresh.items()}, sorted(fresh.keys() - fits)


def restored(stored: RunState, recipe: TrainConfig) -> ModelConfig:
    """The configuration in a run's state; raises CheckpointError unless its tensors are those of that model."""
    try:
        config = ModelConfig(**stored.model_config)
        with torch.device("meta"):
            network = make_network(recipe.network, config)
    except (TypeError, ValueError) as e:
        raise _other(" ".join(str(e).split())[:120]) from None
    want, parameters = network.state_dict(), dict(network.named_parameters())
    parts = [("model", want)] + ([("average", parameters)] if recipe.ema else [])
    for part, tensors in parts:
        found, shapes = stored.part(part), {k: v.shape for k, v in tensors.items()}
        for key in sorted(found.keys() | shapes.keys()):
            if key not in found or found[key].shape != shapes.get(key):
                raise _other(f"{part}/{key}")
    for key, value in stored.part("optimiser").items():
        p = parameters.get(key.partition("/")[2])
        if p is None or (value.ndim and value.shape != p.shape):
            raise _other(f"optimiser/{key}")
    return config


def _other(what: str) -> CheckpointError:
    return CheckpointError(
        f"{FILE} is damaged or another edgemtl's ({what}); go on with the edgemtl that wrote it, or give another --out"
    )
