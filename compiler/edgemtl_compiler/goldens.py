"""The inputs that a bundle is checked with for the rest of its life, and what the graph's NumPy reference answers.

A test holds the reference equal to PyTorch (tests/graph).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Preprocess
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import from_state, network, run
from edgemtl.graph.network import IMAGE
from edgemtl.media.preprocess import Preprocessor

SEED = 20261121
COUNT = 2

Inputs = dict[str, Array]
Outputs = dict[str, dict[str, Array]]


def default_images(config: ModelConfig) -> list[NDArray[np.uint8]]:
    """Synthetic rooms where they can be rendered, else smooth coloured noise; the same on every machine."""
    height, width = config.image_size
    if importlib.util.find_spec("embreex") and min(height, width) >= 16 and max(height, width) <= 2048:
        from edgemtl.data.rooms.write import RoomSet, make_view

        rooms = RoomSet(seed=SEED, count=COUNT, height=height, width=width)
        return [make_view(rooms, i).rgb for i in range(COUNT)]
    rng = np.random.default_rng(SEED)
    small = [rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8) for _ in range(COUNT)]
    return [np.asarray(cv2.resize(s, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8) for s in small]


def inputs(config: ModelConfig, settings: Preprocess, images: Sequence[NDArray[np.uint8]] | None) -> dict[str, Array]:
    """Network inputs [1, 3, H, W] by number, of RGB frames."""
    prepare = Preprocessor(config, settings)
    return {str(i): prepare(frame, "rgb")[0].copy() for i, frame in enumerate(images or default_images(config))}


def outputs(config: ModelConfig, state: Mapping[str, Array], given: Mapping[str, Array]) -> Outputs:
    """The raw maps [channels, h, w] by task and number that the graph's NumPy reference gives."""
    out: Outputs = {task: {} for task in config.task_names}
    values = from_state(state)
    for name, image in given.items():
        prefix: dict[str, Array] = {}
        for task, maps in out.items():
            parts = network(config, task)
            prefix = prefix or run(parts.prefix, {IMAGE: image[0].transpose(1, 2, 0)}, values)
            (raw,) = run(parts.task, prefix, values).values()
            maps[name] = np.ascontiguousarray(raw.transpose(2, 0, 1))
    return out


def error(got: NDArray[Any], want: NDArray[Any]) -> float:
    """max |got - want| / max |want|; infinite where the values are not finite or the shapes differ."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / max(float(np.abs(want).max()), 1e-12))


def check(what: str, got: NDArray[Any], want: NDArray[Any], tolerance: float) -> float:
    """The relative error. Raises CompileError when it is above `tolerance`."""
    found = error(got, want)
    if not found <= tolerance:
        raise CompileError(
            f"{what} differs from the reference by {found:.1e} of the largest value; {tolerance:.0e} is allowed"
        )
    return found
