"""How far the integer network is from the float model: per layer, and where the error grows most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler.calibrate import normalised, walk
from edgemtl_compiler.hls.network import Network
from edgemtl_compiler.hls.reference.fixed import Int
from edgemtl_compiler.hls.reference.forward import integer_forward
from edgemtl_compiler.hls.reference.head import raster


@dataclass(frozen=True)
class TaskReport:
    """Relative RMS error of the stream after each layer, and of the raw map, with the raw map's cosine."""

    layers: dict[str, float]
    raw: float
    cosine: float

    @property
    def worst(self) -> str:
        """The layer after which the relative error has grown most over the layer before."""
        names, errors = list(self.layers), np.array([0.0, *self.layers.values()])
        return names[int(np.argmax(np.diff(errors)))]


def compare(model: MultiTaskViT, network: Network, images: NDArray[np.uint8], task: str) -> TaskReport:
    """Integer against float over uint8 RGB images [n, 3, H, W] for one task."""
    error: dict[str, float] = {}
    power: dict[str, float] = {}
    grid, head = network.config.grid, network.heads[task]
    tile = network.config.patch // network.config.head_stride
    dot = 0.0

    def add(name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
        error[name] = error.get(name, 0.0) + float(np.square(got - want).sum())
        power[name] = power.get(name, 0.0) + float(np.square(want).sum())

    for image in images:
        floats: dict[str, NDArray[Any]] = {}

        def keep(name: str, value: Tensor, floats: dict[str, NDArray[Any]] = floats) -> None:
            floats[name] = value[0].double().numpy() if value.ndim > 2 else value.double().numpy()

        walk(model, normalised(image[None]), task, keep)

        def see(name: str, value: Int, floats: dict[str, NDArray[Any]] = floats) -> None:
            bits = head.stream_bits if name.startswith("head.") else network.stream_bits
            rows = raster(value, *grid, tile) if name.startswith("head.") else value
            add(name, rows * 2.0**-bits, floats[name])

        raw = integer_forward(network, image.transpose(1, 2, 0), task, see) * head.unit
        want = floats[f"{task}.raw"]
        add("raw", raw, want)
        add("got", np.zeros_like(raw), raw)
        dot += float((raw * want).sum())
    relative = {n: float(np.sqrt(error[n] / max(power[n], 1e-30))) for n in error if n != "got"}
    cosine = dot / float(np.sqrt(max(power["raw"] * power["got"], 1e-30)))
    return TaskReport({n: e for n, e in relative.items() if n != "raw"}, relative["raw"], cosine)
