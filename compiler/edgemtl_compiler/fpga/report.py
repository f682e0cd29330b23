"""How far the integer network is from the float model: metrics per task, and the layer where the error grows most.

The integer network is run by the NumPy reference, which the C simulation and the accelerator equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.config import ModelConfig
from edgemtl.graph import from_state, run
from edgemtl.graph.network import IMAGE
from edgemtl.graph.run import See
from edgemtl.model.checkpoint import arrays
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.data import Samples
from edgemtl.train.evaluate import Loss, Predictor, evaluate, losses, torch_predictor
from edgemtl_compiler.fpga import ops
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.quantise.calibrate import as_input


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


def pixels(image: Tensor, config: ModelConfig) -> NDArray[np.uint8]:
    """Normalised images [n, 3, H, W], made of uint8 pixels, as those pixels."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.image_mean, config.image_std))
    return ((image * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


@torch.no_grad()
def host_head(model: MultiTaskViT, tokens: NDArray[Any], task: str) -> NDArray[np.float32]:
    """The float head of `task` on the trunk's tokens [tokens, D]: its raw map [h, w, channels]."""
    raw: Tensor = model.heads[task](torch.from_numpy(tokens.astype(np.float32))[None])
    return raw[0].permute(1, 2, 0).numpy()


def raw_map(
    model: MultiTaskViT, network: IntegerNetwork, frame: NDArray[np.uint8], task: str, see: See | None = None
) -> NDArray[Any]:
    """Raw map [h, w, channels] of a frame [H, W, 3] in the task's own unit, whoever computes the head."""
    out = network.run(frame, task, see) * network.unit(task)
    return host_head(model, out, task) if network.host_heads else out


def integer_predictor(model: MultiTaskViT, network: IntegerNetwork) -> Predictor:
    """The integer network as `edgemtl.train.evaluate` wants a model; heads it lacks are the float model's."""

    def predict(image: Tensor) -> Mapping[str, Any]:
        frames = pixels(image, model.config).transpose(0, 2, 3, 1)
        out = {}
        for task in network.config.task_names:
            maps = np.stack([raw_map(model, network, frame, task) for frame in frames])
            out[task] = torch.from_numpy(maps.transpose(0, 3, 1, 2).astype(np.float32))
        return out

    return predict


def accuracy(
    model: MultiTaskViT,
    network: IntegerNetwork,
    data: Samples,
    limit: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Loss]:
    """Every task's main metric of the float model and of the integer network on the same `limit` images of `data`.

    `progress` is told which of the two runs ("float", "INT8"), the images done and their number.
    """
    results = []
    for what, predictor in (("float", torch_predictor(model)), ("INT8", integer_predictor(model, network))):

        def tell(done: int, of: int, what: str = what) -> None:
            if progress:
                progress(what, done, of)

        results.append(evaluate(predictor, data, model.config, limit=limit, batch=4, progress=tell))
    return losses(*results)


def compare(model: MultiTaskViT, network: IntegerNetwork, images: NDArray[np.uint8], task: str) -> TaskReport:
    """Integer against float over uint8 RGB images [n, 3, H, W] for one task, after every node that gives a stream."""
    error: dict[str, float] = {}
    power: dict[str, float] = {}
    graph, dot = network.graph(task), 0.0
    values = from_state(arrays(model.state_dict()))
    streams = [n.name for n in graph.nodes if ops.find(n).on_stream(n)]

    def add(name: str, got: NDArray[Any], want: NDArray[Any]) -> None:
        error[name] = error.get(name, 0.0) + float(np.square(got - want).sum(dtype=np.float64))
        power[name] = power.get(name, 0.0) + float(np.square(want).sum(dtype=np.float64))

    for image in images:
        floats: dict[str, Any] = {}
        run(graph, {IMAGE: as_input(image, model.config)}, values, floats.__setitem__)
        want = floats[graph.outputs[0]]
        want = host_head(model, want, task) if network.host_heads else want
        integers: dict[str, Any] = {}
        raw = raw_map(model, network, image.transpose(1, 2, 0), task, integers.__setitem__)
        for name in streams:
            bits = network.head_bits[task] if name.startswith("head.") else network.stream_bits
            add(name, integers[name] * 2.0**-bits, floats[name])
        add("raw", raw, want)
        add("got", np.zeros_like(raw), raw)
        dot += float((raw * want).sum(dtype=np.float64))
    relative = {n: float(np.sqrt(error[n] / max(power[n], 1e-30))) for n in error if n != "got"}
    cosine = dot / float(np.sqrt(max(power["raw"] * power["got"], 1e-30)))
    return TaskReport({n: e for n, e in relative.items() if n != "raw"}, relative["raw"], cosine)
