"""Named model shapes.

`m3vit-t`, `m3vit-s` and `m3vit-b` are the paper's (M3ViT, Liang et al., NeurIPS 2022), decoder included, at the image
sizes of Cityscapes and NYUD-v2; its small model has 12 heads, where DeiT's has 6. The others are for small devices and
have the light head. `tiny` is the paper's tiny backbone with its routing (16 experts of ratio 1, top-4); `edge-moe` is
the shape that Edge-MoE put on an FPGA (Sarkar et al., ICCAD 2023: top-2 of ratio 2); `micro` is small enough for a
test. `hybrid` has a convolution stem with ImageNet weights and heads that read its features (docs/models.md).
"""

from __future__ import annotations

from typing import Any

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import ConfigError

NYUD_FOV = 56.71  # horizontal degrees of NYU Depth V2's usual crop: 560 pixels at a focal length of 518.86


def nyud_tasks() -> tuple[TaskConfig, ...]:
    """The four tasks of NYU Depth V2 with its 40 classes."""
    from edgemtl.data.homes.classes import CLASSES, PALETTE

    return (_semseg(CLASSES, PALETTE), *_DENSE)


def rooms_tasks() -> tuple[TaskConfig, ...]:
    """The four tasks of the rooms data set; class names and colours come from the generator."""
    from edgemtl.data.rooms.classes import CLASSES, PALETTE

    return (_semseg(CLASSES, PALETTE), *_DENSE)


def _semseg(classes: tuple[str, ...], palette: Any) -> TaskConfig:
    colours = tuple((int(r), int(g), int(b)) for r, g, b in palette)
    return TaskConfig(name="semseg", kind="semseg", channels=len(classes), classes=classes, palette=colours)


_DENSE = (
    TaskConfig(name="depth", kind="depth", channels=1),
    TaskConfig(name="normals", kind="normals", channels=3),
    TaskConfig(name="edge", kind="edge", channels=1),
)
TASKS = {"rooms": rooms_tasks, "nyud": nyud_tasks}  # what a recipe may write instead of a list of tasks
ROOMS_TASKS = ("semseg", "depth", "normals", "edge")

_M3VIT = {
    "depth": 12,
    "experts": 16,
    "top_k": 4,
    "expert_ratio": 1.0,
    "head": "conv",
    "head_dim": 256,
    "head_stride": 2,
}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"dim": 192, "depth": 12, "heads": 3, "experts": 16, "top_k": 4, "expert_ratio": 1.0},
    "edge-moe": {"dim": 192, "depth": 12, "heads": 3, "experts": 16, "top_k": 2, "expert_ratio": 2.0},
    "micro": {
        "dim": 32,
        "depth": 4,
        "heads": 2,
        "experts": 6,
        "top_k": 2,
        "expert_ratio": 1.0,
        "image_size": (32, 64),
        "head_dim": 16,
    },
    "hybrid": {
        "tasks": "nyud",
        "image_size": (192, 256),
        "image_mean": (127 / 255,) * 3,
        "image_std": (128 / 255,) * 3,
        "image_border": 127,
        "fov": NYUD_FOV,
        "stem": "lite0",
        "dim": 192,
        "depth": 4,
        "heads": 3,
        "experts": 16,
        "top_k": 4,
        "expert_ratio": 1.0,
        "head": "pyramid",
        "head_dim": 48,
    },
    "m3vit-t": {**_M3VIT, "dim": 192, "heads": 3, "image_size": (128, 256)},
    "m3vit-s": {**_M3VIT, "dim": 384, "heads": 12, "image_size": (480, 640)},
    "m3vit-b": {**_M3VIT, "dim": 768, "heads": 12, "image_size": (480, 640)},
}


def preset(name: str, /, **changes: Any) -> ModelConfig:
    """The configuration called `name`, with fields replaced by `changes`.

    Raises ConfigError for a name that is no preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    fields = {"name": name, "tasks": "rooms", **PRESETS[name], **changes}
    if isinstance(fields["tasks"], str):
        if fields["tasks"] not in TASKS:
            raise ConfigError(f"there are no tasks of {fields['tasks']!r}; give a list, or one of {', '.join(TASKS)}")
        fields["tasks"] = TASKS[fields["tasks"]]()
    return ModelConfig(**fields)
