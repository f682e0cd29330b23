"""The light convolution network: its maps, its file, and that the loop trains it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_rooms import FakeRooms
from rich.console import Console

from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model import preset
from edgemtl.train.comparators import BiSeNet, bisenet, load_bisenet, load_network
from edgemtl.train.config import TrainConfig, load_train_config
from edgemtl.train.loop import Sets, Trainer
from edgemtl.train.report import Reporter

TASKS = preset("tiny").tasks


@pytest.fixture(autouse=True)
def _calm(one_thread: None) -> None:
    pass


def test_maps_are_a_quarter_of_the_frame() -> None:
    model = bisenet(TASKS).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 128, 256))
        one = model(torch.randn(1, 3, 64, 96), ["depth"])
    assert {k: tuple(v.shape) for k, v in maps.items()} == {t.name: (2, t.channels, 32, 64) for t in TASKS}
    assert {k: tuple(v.shape) for k, v in one.items()} == {"depth": (1, 1, 16, 24)}


def test_every_part_has_a_say() -> None:
    """Both streams, the global vector and both gates: each parameter gets a gradient from one task's map."""
    model = bisenet(TASKS[1:2]).train()
    model(torch.randn(2, 3, 64, 96))["depth"].square().sum().backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_loop_trains_and_stores_it(tmp_path: Path) -> None:
    base = load_train_config("rooms_micro").model_dump()
    base |= {"network": "bisenet", "batch": 8, "log_every": 1, "val_images": 4, "device": "cpu"}
    recipe = TrainConfig(**{**base, "stages": [{"name": "shared", "steps": 12}]})
    data = FakeRooms(16)
    path = Trainer(recipe, tmp_path, Sets(data, data, data), Reporter(Console(quiet=True))).run()
    with pytest.raises(ConfigError, match="trained from scratch; leave out --init"):
        Trainer(recipe, tmp_path / "b", Sets(data, data), Reporter(Console(quiet=True))).run(init=path)
    model = load_network(path)
    assert isinstance(model, BiSeNet)
    assert not model.training
    assert model.config.task_names == ("semseg", "depth", "normals", "edge")
    statistics = dict(model.named_buffers())["spatial.0.1.running_mean"]
    assert statistics.abs().max() > 0  # batch norm's statistics come along with the averaged weights


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_bisenet(tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x40\0\0\0\0\0\0\0{")
    for read in (load_bisenet, load_network):
        with pytest.raises(CheckpointError, match="damaged"):
            read(torn)
    vit = Path(__file__).parents[2] / "edgemtl" / "model" / "weights" / "rooms-tiny.safetensors"
    with pytest.raises(CheckpointError, match="holds no BiSeNet"):
        load_bisenet(vit)
