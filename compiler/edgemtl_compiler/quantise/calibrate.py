"""The ranges that a float network's values take over calibration images: its graphs run, every value seen.

A range is called as the value: NODE or NODE.PART (edgemtl/graph/run.py), and TASK:NODE in a task's head. What tasks
share has one range over all of them. `NODE.fc1.EXPERT`, an expert's values before GELU, is there for every expert held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import Node, Weight, from_state, network, ops, run, weights
from edgemtl.graph.network import IMAGE
from edgemtl.graph.node import Array
from edgemtl.graph.run import Values

MIN_IMAGES = 32
KEPT_ROWS = 512  # rows of each activation kept for percentiles and for the search of a channel balance
MOST = 1e9  # a trained network's values stay far below; squares of sums of these are finite in float32
SEEN = 16  # rows that an expert must have got to be calibrated on its own tokens

Float = NDArray[np.float64]


@dataclass
class Range:
    """Least and greatest value per channel, and some rows."""

    low: Float
    high: Float
    rows: list[NDArray[np.float32]] = field(default_factory=list)
    count: int = 0

    def widened(self) -> Range:
        """Range with room for what unseen images add: a Gaussian's maximum over n is exceeded by about 1 / (2 ln n)."""
        centre, reach = (self.high + self.low) / 2, (self.high - self.low) / 2
        reach = reach * (1 + 1 / (2 * math.log(max(self.count, 8))))
        return Range(centre - reach, centre + reach, self.rows, self.count)

    @property
    def most(self) -> float:
        """Greatest magnitude of any channel."""
        return float(max(-self.low.min(), self.high.max(), 0.0))

    @property
    def sample(self) -> Float:
        """The kept rows [n, C]."""
        return np.concatenate(self.rows).astype(np.float64)


def key(task: str, name: str) -> str:
    """What the range of a value of the task's network is called."""
    return f"{task}:{name}" if name.startswith("head.") else name


def channels(config: ModelConfig) -> dict[str, int]:
    """The name of every range that `calibrate` gives, and how many channels it has."""
    out: dict[str, int] = {}
    for task in config.task_names:
        for node in network(config, task).nodes:
            if node.op != "route":
                each = {node.name: node.shape[-1]}
                each |= {f"{node.name}.{part}": n for part, n in ops.find(node.op).parts(node).items()}
                out |= {key(task, name): n for name, n in each.items()}
    return out | {name: hidden.weight.sources[0][1][0] for name, hidden in hidden_values(config).items()}


class Hidden(NamedTuple):
    """Values before GELU: the linear layer that makes them, and the range's name of what it reads."""

    weight: Weight
    reads: str

    def rows(self, ranges: Mapping[str, Range], values: Values) -> NDArray[np.float32]:
        """Some, made of the rows kept of what is read."""
        weight, bias, *_ = values(self.weight)
        return (ranges[self.reads].sample.astype(np.float32) @ weight.T + bias).astype(np.float32)


def hidden_values(config: ModelConfig) -> dict[str, Hidden]:
    """By the name of their range, those of every linear layer with GELU and of every expert held, also of experts on
    no task's path.
    """
    out: dict[str, Hidden] = {}
    banks: dict[str, Node] = {}
    for task in config.task_names:
        for node in network(config, task).nodes:
            if node.op == "experts":
                banks[node.weights[0].part] = node
            elif node.op == "linear" and node.attributes["activation"] == "gelu":
                out[key(task, f"{node.name}.inner")] = Hidden(node.weights[0], key(task, node.inputs[0]))
    for w in weights(config):
        if w.kind == "expert":
            out[f"{banks[w.part].name}.fc1.{w.tensor}"] = Hidden(w, banks[w.part].inputs[0])
    return out


class _Ranges:
    """Ranges on their way. `see(name, value)` is for `edgemtl.graph.run`."""

    def __init__(self, config: ModelConfig, images: int) -> None:
        self.ranges: dict[str, Range] = {}
        self.config, self.images, self.task = config, images, ""

    def see(self, name: str, value: Any) -> None:
        if isinstance(value, tuple) or name.endswith(".logits"):  # a gate's, as many as the task's path has experts
            return
        head, flat = name.startswith("head."), value.reshape(-1, value.shape[-1])
        if not usable(flat):
            of = f" of task {self.task!r}" if self.task else ""
            what = f"beyond {MOST:g}" if np.isfinite(flat).all() else "not finite"
            raise CompileError(f"calibration met an activation that is {what}, at {name}{of}")
        calls = self.images * (len(self.config.tasks) if self.task and not head else 1)
        self.add(key(self.task, name), flat, max(1, KEPT_ROWS // calls))

    def add(self, name: str, flat: Array, kept: int) -> None:
        """Widen the range `name` by the rows [n, C], and keep so many of them."""
        low, high = flat.min(0).astype(np.float64), flat.max(0).astype(np.float64)
        r = self.ranges.setdefault(name, Range(low, high))
        r.low, r.high = np.minimum(r.low, low), np.maximum(r.high, high)
        r.count += len(flat)
        draw = np.random.default_rng(len(r.rows))  # a fixed stride would meet the same columns of every picture
        r.rows.append(flat[draw.choice(len(flat), min(len(flat), kept), replace=False)])


def usable(value: NDArray[Any]) -> bool:
    """Whether all values are finite and of a size that can be quantised."""
    return float(value.min()) >= -MOST and float(value.max()) <= MOST


def as_input(image: NDArray[np.uint8], config: ModelConfig) -> NDArray[np.float32]:
    """uint8 RGB [3, H, W] as the network's input [H, W, 3]."""
    mean, std = (np.array(v, np.float32) for v in (config.image_mean, config.image_std))
    return (image.transpose(1, 2, 0).astype(np.float32) / np.float32(255) - mean) / std


def calibrate(config: ModelConfig, state: Mapping[str, Array], images: NDArray[np.uint8]) -> dict[str, Range]:
    """Widened ranges of every value over all tasks and images [n, 3, H, W]; `state` as `edgemtl.graph.from_state`.

    An expert that got fewer than SEEN tokens is calibrated on rows kept of all tokens.
    Raises CompileError for too few images, images of another form, and values that are not finite, naming the node.
    """
    _check(config, images)
    values, found = from_state(state), _Ranges(config, len(images))
    networks = {task: network(config, task) for task in config.task_names}
    prefix = networks[config.task_names[0]].prefix
    with np.errstate(all="ignore"):
        for image in images:
            found.task = ""
            shared = run(prefix, {IMAGE: as_input(image, config)}, values, found.see)
            for found.task, parts in networks.items():
                run(parts.task, shared, values, found.see)
    for name, hidden in hidden_values(config).items():
        if name not in found.ranges or found.ranges[name].count < SEEN:
            found.ranges.pop(name, None)
            found.add(name, hidden.rows(found.ranges, values), KEPT_ROWS)
    return {name: r.widened() for name, r in found.ranges.items()}


def _check(config: ModelConfig, images: NDArray[np.uint8]) -> None:
    height, width = config.image_size
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (3, height, width):
        raise CompileError(
            f"calibration needs uint8 images [n, 3, {height}, {width}]; given {images.dtype} {list(images.shape)}"
        )
    if len(images) < MIN_IMAGES:
        raise CompileError(f"calibration needs {MIN_IMAGES} images or more; given {len(images)}")
