"""The PyTorch model: M3ViT's backbone with declared task paths, light heads, and the exact single-task slice."""

from __future__ import annotations

from edgemtl.model.presets import PRESETS, ROOMS_TASKS, preset
from edgemtl.model.vit import MultiTaskViT

__all__ = ["PRESETS", "ROOMS_TASKS", "MultiTaskViT", "preset"]
