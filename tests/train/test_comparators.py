"""The light convolution networks: their maps, their files, what they cost, and that the loop trains them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fake_rooms import FakeRooms
from pydantic import ValidationError
from rich.console import Console
from safetensors import safe_open

from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.graph.count import count
from edgemtl.model import preset
from edgemtl.model.checkpoint import save_checkpoint, serialise
from edgemtl.model.stem import Lite0Stem
from edgemtl.model.stem_files import save_stem
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.comparators import (
    COMPARATORS,
    BiSeNet,
    BiSeNetLite0,
    Comparator,
    load_comparator,
    load_network,
    make_network,
    save_network,
)
from edgemtl.train.config import TrainConfig, load_train_config
from edgemtl.train.loop import Sets, Trainer
from edgemtl.train.report import Reporter
from edgemtl.train.study_report import macs

TASKS = preset("tiny").tasks


@pytest.fixture(autouse=True)
def _calm(one_thread: None) -> None:
    pass


def _make(kind: type[Comparator], tasks: int = 4) -> Comparator:
    return kind(preset("hybrid", tasks=TASKS[:tasks]))


@pytest.mark.parametrize("kind", COMPARATORS.values())
def test_maps_are_a_quarter_of_the_frame(kind: type[Comparator]) -> None:
    model = _make(kind).eval()
    with torch.no_grad():
        maps = model(torch.randn(2, 3, 192, 256))
        one = model(torch.randn(1, 3, 64, 96), ["depth"])
        alike = model.trace(torch.randn(1, 3, 64, 96), ["edge"], torch.tensor([60.0]))[0]
    assert {k: tuple(v.shape) for k, v in maps.items()} == {t.name: (2, t.channels, 48, 64) for t in TASKS}
    assert {k: tuple(v.shape) for k, v in one.items()} == {"depth": (1, 1, 16, 24)}
    assert alike.keys() == {"edge"}


@pytest.mark.parametrize("kind", COMPARATORS.values())
def test_every_part_has_a_say(kind: type[Comparator]) -> None:
    """Both streams, the global vector and both gates: each parameter gets a gradient from one task's map."""
    model = _make(kind, tasks=1).train()
    model(torch.randn(2, 3, 64, 96))["semseg"].square().sum().backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_fair_one_costs_what_the_hybrid_costs() -> None:
    """And starts from the same stem: the same tensors of the same shapes."""
    config = preset("hybrid", tasks=TASKS)
    hybrid, light = make_network("vit", config).eval(), make_network("bisenet-lite0", config).eval()
    assert isinstance(light, BiSeNetLite0)
    assert isinstance(hybrid, MultiTaskViT)
    for tasks in (["depth"], list(config.task_names)):
        assert macs(light, tasks) == pytest.approx(macs(hybrid, tasks), rel=0.08)
    mine, theirs = light.stem.state_dict(), hybrid.backbone.stem.state_dict()
    assert {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}


def test_multiply_accumulates_are_those_of_the_formulas() -> None:
    """But for the gates' products, which PyTorch's counter does not see; they are a thousandth of the whole."""
    config = preset("micro")
    counted = count(config, "depth")
    assert macs(make_network("vit", config).eval(), ["depth"]) == counted.total - counted.gates


@pytest.mark.parametrize(("name", "kind"), COMPARATORS.items())
def test_files_say_which_they_are(name: str, kind: type[Comparator], tmp_path: Path) -> None:
    model = _make(kind, tasks=2).eval()
    path = tmp_path / "model.safetensors"
    save_network(name, path, model.state_dict(), model.config, "here")
    again = load_network(path)
    assert type(again) is kind
    assert again.config == model.config
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for task, raw in model(image).items():
            assert torch.equal(raw, again(image)[task])


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


def test_the_loop_starts_it_from_a_stem(tmp_path: Path) -> None:
    torch.manual_seed(5)
    given = Lite0Stem().state_dict()
    save_stem(tmp_path / "stem.safetensors", given, "here")
    base = load_train_config("rooms_micro").model_dump()
    base |= {"preset": "hybrid", "model": {"image_size": [32, 64], "tasks": "rooms"}, "ema": 0, "val_images": 0}
    base |= {"stem": str(tmp_path / "stem.safetensors"), "optimiser": {"lr": 1e-9}, "device": "cpu"}
    recipe = TrainConfig(**{**base, "network": "bisenet-lite0", "stages": [{"name": "shared", "steps": 1}]})
    data = FakeRooms(4)
    path = Trainer(recipe, tmp_path / "run", Sets(data, data), Reporter(Console(quiet=True))).run()
    model = load_network(path)
    assert isinstance(model, BiSeNetLite0)
    for name, p in model.stem.named_parameters():
        assert torch.allclose(p, given[name], atol=1e-6), name
    with pytest.raises(ValidationError, match="network 'bisenet' is trained from scratch; leave out stem"):
        TrainConfig(**{**recipe.model_dump(), "network": "bisenet"})


def test_sides_that_cannot_be_halved_are_refused(tmp_path: Path) -> None:
    """A file that claims another image size, too: its weights fit any."""
    model = _make(BiSeNet, tasks=2)
    save_network("bisenet", tmp_path / "m.safetensors", model.state_dict(), model.config, "here")
    with safe_open(str(tmp_path / "m.safetensors"), "pt") as file:
        metadata = dict(file.metadata())
    config = model.config.model_copy(update={"image_size": (48, 64)})
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    data = serialise(tensors, {**metadata, "config": config.model_dump_json()})
    (tmp_path / "m.safetensors").write_bytes(data)
    with pytest.raises(ConfigError, match="multiples of 32, not 48x64"):
        load_network(tmp_path / "m.safetensors")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_comparator(tmp_path / "none.safetensors")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x40\0\0\0\0\0\0\0{")
    for read in (load_comparator, load_network):
        with pytest.raises(CheckpointError, match="damaged"):
            read(torn)
    vit = tmp_path / "vit.safetensors"
    save_checkpoint(vit, MultiTaskViT(preset("micro")))
    with pytest.raises(CheckpointError, match="holds no bisenet or bisenet-lite0"):
        load_comparator(vit)
