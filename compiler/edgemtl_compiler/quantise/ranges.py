"""Where ranges come from: pictures, or the file beside the checkpoint, so that compiling INT8 needs no pictures.

NAME.ranges.safetensors has a tensor [2 + n, C] per range: the least values, the greatest, and n rows of the sample.
They are float16, or float32 where that does not hold them. Rows of values before GELU are not stored but made again, by
the weights, of the rows of what their layer reads. The metadata says of which weights the file is (SHA-256), over how
many images of what. Nothing is unpickled, and everything is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edgemtl.bundle.checkpoint import State, read_checkpoint
from edgemtl.bundle.deployable import deployable
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.files import replacing
from edgemtl.graph import from_state, network
from edgemtl_compiler.quantise.calibrate import MIN_IMAGES, Range, calibrate, channels, hidden_values, key, usable
from edgemtl_compiler.quantise.pictures import pictures

VERSION = 1
VALUES = 6144  # of a range's sample that are stored, in 64 rows at most
_BOUNDS_ALONE = ("linear", "experts", "patch_embed")  # what these write is coded by its bounds
_KEY = "edgemtl-ranges"
_NARROW = float(np.finfo(np.float16).max) / 2


@dataclass(frozen=True)
class Calibration:
    """Ranges, and over how many `images` of what they were measured; `stored` if before this compilation."""

    ranges: dict[str, Range]
    images: int
    source: str
    stored: bool = False

    @property
    def about(self) -> str:
        """Its source in words."""
        return f"{self.source}, ranges stored with the weights" if self.stored else self.source


def measure(config: ModelConfig, state: State, folder: Path, count: int, *, exactly: bool = False) -> Calibration:
    """Ranges over up to `count` pictures of `folder`.

    Raises DataError for a folder or picture that cannot be read, what `calibrate` raises, and with `exactly`
    CompileError for fewer pictures than asked for.
    """
    images = pictures(folder, config, count).images
    if exactly and MIN_IMAGES <= len(images) < count:
        raise CompileError(
            f"{folder} holds {len(images)} pictures to calibrate on, not {count}: add --images {len(images)}"
        )
    source = "synthetic rooms" if (folder / "rooms.json").exists() else folder.resolve().name
    return Calibration(calibrate(config, state, images), len(images), source)


def beside(checkpoint: Path) -> Path:
    """Where the ranges of a checkpoint are stored."""
    return checkpoint.with_name(checkpoint.name.removesuffix(".safetensors") + ".ranges.safetensors")


def store(checkpoint: Path, folder: Path, count: int, out: Path | None = None) -> tuple[Path, Calibration]:
    """Measure a checkpoint's ranges and write them, by default beside it. Raises also CheckpointError."""
    info, state = read_checkpoint(checkpoint)
    config, deployed = deployable(info.config, state)
    found = measure(config, deployed, folder, count)
    path = out or beside(checkpoint)
    about = {"version": VERSION, "weights": _sha256(state), "images": found.images, "source": found.source}
    few = _by_bounds(config)
    tensors = {name: _narrow(r, 1 if name in few else VALUES) for name, r in sorted(found.ranges.items())}
    try:
        with replacing(path) as new:
            new.write_bytes(save(tensors, {_KEY: json.dumps(about, sort_keys=True)}))
    except OSError as error:
        raise CompileError(f"{path} cannot be written ({error.strerror or error}); name another place") from None
    return path, found


def read(path: Path, config: ModelConfig, state: State) -> Calibration:
    """Stored ranges of the checkpoint that has this configuration and state, all its tasks.

    Raises CompileError for a file that is damaged, of other weights or of another version.
    """
    again = "measure them again with `edgemtl calibrate`, or add --calibrate FOLDER"
    try:
        with safe_open(str(path), "np") as file:
            about = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        version, weights = about.get("version"), about.get("weights")
        images, source = int(about.get("images", 0)), str(about.get("source", ""))
    except (SafetensorError, OSError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CompileError(f"{path} is damaged or no file of ranges ({reason}): {again}") from None
    if version != VERSION or images < 1:
        raise CompileError(f"{path} holds no ranges that this edgemtl reads (version {VERSION}): {again}")
    if weights != _sha256(state):
        raise CompileError(f"{path} holds the ranges of other weights: {again}")
    config, deployed = deployable(config, state)
    want = channels(config)
    if odd := sorted(want.keys() ^ tensors.keys()):
        raise CompileError(f"{path} has not the ranges of this model ({odd[0]} is one too few or many): {again}")
    for name, value in tensors.items():
        _check(path, name, value, want[name], again)
    found = {name: _range(value) for name, value in tensors.items()}
    for name, hidden in hidden_values(config).items():
        found[name].rows = [hidden.rows(found, from_state(deployed))]
    return Calibration(found, images, source, stored=True)


def _by_bounds(config: ModelConfig) -> set[str]:
    """Names of the ranges whose sample is not needed, or made again."""
    nodes = [(task, n) for task in config.task_names for n in network(config, task).nodes]
    return {key(task, n.name) for task, n in nodes if n.op in _BOUNDS_ALONE} | hidden_values(config).keys()


def _check(path: Path, name: str, value: NDArray[Any], wide: int, again: str) -> None:
    fits = value.dtype in (np.float16, np.float32) and value.ndim == 2 and value.shape[1] == wide and len(value) > 2
    if not fits or not usable(value) or (value[0] > value[1]).any():
        raise CompileError(f"{path}: {name} is no range of {wide} channels: {again}")


def _narrow(r: Range, values: int) -> NDArray[np.floating[Any]]:
    sample = r.sample
    few = min(len(sample), max(1, min(64, values // sample.shape[1])))
    rows = sample[np.random.default_rng(0).choice(len(sample), few, replace=False)]
    every = np.concatenate([[r.low], [r.high], rows])
    return every.astype(np.float16 if np.abs(every).max() < _NARROW else np.float32)


def _range(value: NDArray[Any]) -> Range:
    low, high, *_ = value.astype(np.float64)
    return Range(low, high, [value[2:].astype(np.float32)], len(value) - 2)


def _sha256(state: State) -> str:
    """Of a checkpoint's weights: names, shapes and float32 values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.shape} ".encode())
        digest.update(np.ascontiguousarray(value, np.float32).tobytes())
    return digest.hexdigest()
