"""A kind of task that edgemtl does not know, from two files: from the configuration to the page, and nothing else."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import edgemtl
from edgemtl import tasks
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.data.dataset import LabelledSet
from edgemtl.data.form import Label
from edgemtl.data.nyud import Nyud
from edgemtl.errors import ConfigError, FrameError
from edgemtl.media import legend
from edgemtl.media.feed import Frame
from edgemtl.media.sinks import picture, store
from edgemtl.media.stage import Stage
from edgemtl.model import MultiTaskViT, preset
from edgemtl.train import tasks as learners
from edgemtl.train.balancers import make_balancer
from edgemtl.train.config import LossConfig, load_train_config
from edgemtl.train.evaluate import evaluate, losses, summary, torch_predictor, training_constants
from edgemtl.train.parallel import Group
from edgemtl.train.protocols import table_row
from edgemtl.train.sheet import draw_sheet
from edgemtl.train.step import Stepper

compiler = pytest.importorskip("edgemtl_compiler.bundle", reason="the compiler is not installed")

BRIGHTNESS = """
import numpy as np
from edgemtl.tasks import Kind, resized

class Brightness(Kind):
    shows, words = "how bright", "white: bright"
    stored, none, usual = np.float16, -1, 0.5

    def result(self, raw, size, out=None):
        grey = resized(raw[0], size, out)
        return np.clip(grey, 0, 1, out=grey)

KIND = Brightness()
"""
LEARNT = """
from edgemtl.tasks import INVALID
from edgemtl.train.tasks import Figure, Learner, mean

class Error:
    def __init__(self, constant):
        self.constant, self.off, self.trivial, self.count = constant, 0.0, 0.0, 0

    def update(self, pred, label):
        valid = label != INVALID
        self.off += float((pred - label)[valid].abs().sum())
        self.trivial += float((self.constant - label[valid]).abs().sum())
        self.count += int(valid.sum())

    def compute(self):
        return {"off": self.off / self.count, "off_baseline": self.trivial / self.count}

class Brightness(Learner):
    weight, own, constant_from_training = 3.0, Figure("off", "error", lower=True), True

    def loss(self, pred, label, counted, options, weight):
        valid = label != INVALID
        return mean(((pred - label).abs() * valid).sum(), counted)

    def meter(self, task, constant, boundary):
        return Error(0.0 if constant is None else constant)

    def sums(self, label):
        return label.new_tensor([label[label != INVALID].sum(), (label != INVALID).sum()])

    def constant(self, sums):
        return float(sums[0] / sums[1])

LEARNER = Brightness()
"""
SPOT = '''
import numpy as np
from edgemtl.tasks import Kind

class Spot(Kind):
    """The one place where the raw map is highest."""

    form, shows, words = "points", "the spot", "red: the spot"

    def result(self, raw, size, out=None):
        y, x = np.unravel_index(raw[0].argmax(), raw[0].shape)
        across, down = size[1] / raw[0].shape[1], size[0] / raw[0].shape[0]
        return np.array([[(x + 0.5) * across, (y + 0.5) * down, 0, raw[0, y, x]]], np.float32)

    def draw(self, result, picture):
        for x, y in result[:, :2].astype(int):
            picture[y, x] = 255, 0, 0

KIND = Spot()
'''
FRAME = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)


class Glow(Nyud):
    """A data set with a label that no layout of edgemtl's has."""

    labels = {"glow": Label("brightness", "glow/ID.npy: numbers [H, W], 0 to 1, -1 = no label")}  # noqa: RUF012

    def path(self, root: Path, split: str, name: str, image_id: str) -> Path:
        return root / name / (image_id + (".jpg" if name == "image" else ".npy"))


@pytest.fixture(autouse=True)
def _kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two kinds in folders beside those of the package."""
    for package, files in ((tasks, {"brightness": BRIGHTNESS, "spot": SPOT}), (learners, {"brightness": LEARNT})):
        folder = tmp_path / package.__name__
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    tasks.names.cache_clear()
    yield
    tasks.names.cache_clear()
    for package in (tasks, learners):
        for name in ("brightness", "spot"):
            sys.modules.pop(f"{package.__name__}.{name}", None)
            vars(package).pop(name, None)


def config(**more: Any) -> ModelConfig:
    named = [("glow", "brightness"), ("depth", "depth"), ("where", "spot")]
    return preset("micro", tasks=tuple(TaskConfig(name=n, kind=k, channels=1) for n, k in named), **more)


def data_set(root: Path) -> Path:
    """Four images of blocks; brightness is their grey value, and unknown in the upper row."""
    (root / "gt_sets").mkdir(parents=True)
    for folder in ("image", "glow"):
        (root / folder).mkdir()
    for i in range(4):
        grey = np.kron(np.random.default_rng(i).integers(0, 255, (4, 8)), np.ones((8, 8))).astype(np.uint8)
        cv2.imwrite(str(root / "image" / f"{i}.jpg"), grey[..., None].repeat(3, 2))
        label = grey / np.float32(255)
        label[:8] = -1
        np.save(root / "glow" / f"{i}.npy", label)
    for split in ("train", "val"):
        (root / "gt_sets" / f"{split}.txt").write_text("0\n1\n2\n3\n")
    return root


@pytest.mark.usefixtures("one_thread")
def test_it_is_learnt_and_scored(tmp_path: Path) -> None:
    alone = preset("micro", gate="single", tasks=(TaskConfig(name="glow", kind="brightness", channels=1),))
    data = LabelledSet(data_set(tmp_path / "set"), "train", ["glow"], size=(32, 64), train=True, layout=Glow())
    batch = data.batch(range(4))
    assert batch["glow"].shape == (4, 1, 32, 64)
    assert (batch["glow"] == 255).any()
    assert float(batch["glow"][batch["glow"] != 255].max()) <= 1
    torch.manual_seed(0)
    model = MultiTaskViT(alone)
    recipe = load_train_config("rooms_micro").model_copy(update={"loss": LossConfig(), "accumulate": 2})
    balancer = make_balancer(recipe.balancer, ("glow",), {"glow": 1.0})
    run = Stepper(model, recipe, Group(), balancer, contextlib.nullcontext)
    optimiser, found = torch.optim.AdamW(model.parameters(), 1e-3), []
    for step in range(12):
        found.append(float(run(batch, ("glow",), step, {}).losses["glow"]))
        optimiser.step()
    assert found[-1] < 0.8 * found[0]
    plain = data.plain()
    constants = training_constants(plain, alone)
    known = plain.batch(range(4))["glow"]
    assert constants["glow"] == pytest.approx(float(known[known != 255].mean()), rel=1e-5)
    scores = evaluate(torch_predictor(model), plain, alone, constants=constants)
    assert 0 < scores["glow"]["off"] < 1
    assert summary(scores).startswith("glow error ")
    assert losses(scores, scores)["glow"].metric == "off"
    assert table_row(scores, alone, "m3vit")["glow"][0].name == "error", "its own figure where papers have none"
    assert draw_sheet(torch_predictor(model), plain, alone, 1).shape == (2 * (32 + 18), 2 * 64, 3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    out = tmp_path / "glow.edgemtl"
    compiler.compile_bundle(MultiTaskViT(config()).eval(), out, targets=("torch",))
    return out


def test_from_a_bundle_to_the_page(bundle: Path, tmp_path: Path) -> None:
    with edgemtl.load(bundle, backend="torch", tasks=["glow", "depth"]) as engine:
        mine = np.empty(FRAME.shape[:2], np.float32)
        out = engine(FRAME, out={"glow": mine})
        glow = out["glow"]
        assert glow.map is mine
        assert glow.form == "map"
        assert 0 <= mine.min() <= mine.max() <= 1
        assert (glow.colour()[..., 0] == np.clip(mine * 255 + 0.5, 0, 255).astype(np.uint8)).all()
        assert glow.overlay(FRAME).shape == FRAME.shape
        assert legend.strip(glow.task, mine, None, "viridis", 200, color="rgb").max() > 100, "it has words"
        stage = Stage(engine, ["glow", "depth"])
        stage.select("glow")
        (tile,) = stage.show(Frame(FRAME, 0.0, "a"))
        assert tile.picture.shape == FRAME.shape
        told = json.loads(json.dumps({"about": stage.about(), "figures": stage.figures()}))
        shown = {"shows": "how bright", "words": "white: bright", "unit": "", "classes": [], "colours": []}
        assert told["about"]["tasks"]["glow"] == shown
        assert told["figures"]["limits"] == {}
        stage.select("depth")
        stage.show(Frame(FRAME, 0.0, "a"))
        assert list(stage.figures()["limits"]) == ["depth"]


def test_a_result_that_is_no_map(bundle: Path, tmp_path: Path) -> None:
    """Points go the way of maps: result, picture, overlay, files, page."""
    with edgemtl.load(bundle, backend="torch", tasks=["where"]) as engine:
        out = engine(FRAME)
        where = out["where"]
        assert (where.form, where.map.shape) == ("points", (1, 4))
        x, y = where.map[0, :2].astype(int)
        assert where.colour()[y, x].tolist() == [255, 0, 0]
        seen = where.overlay(FRAME)
        assert seen[y, x].tolist() == [255, 0, 0]
        assert (seen != FRAME).any(-1).sum() == 1
        with pytest.raises(FrameError, match="out names 'where', whose result has a size that the frame decides"):
            engine(FRAME, out={"where": np.empty((1, 4), np.float32)})
        frame = Frame(FRAME, 0.0, "a")
        assert picture(frame, out, "sheet", "viridis", None).shape == (18 + 48, 160, 3)
        store(tmp_path / "points.npz", out, None)
        np.testing.assert_array_equal(np.load(tmp_path / "points.npz")["where"], where.map)
        stage = Stage(engine, ["where"])
        (tile,) = stage.show(frame)
        assert tile.picture[y, x].tolist() == [0, 0, 255], "BGR, and opaque"


def test_a_kind_without_a_learner_is_refused_where_it_would_be_trained() -> None:
    assert "spot" in tasks.names()
    assert "spot" not in learners.names()
    with pytest.raises(ConfigError, match=r"kind 'spot' are not trained .* edgemtl/train/tasks has no spot\.py"):
        learners.find("spot")


def test_the_head_starts_near_its_labels() -> None:
    model = MultiTaskViT(config(stem="lite0", head="pyramid", patch=16, moe=(1,), image_size=(32, 64)))
    bias = model.heads["glow"].out.bias
    assert bias is not None
    assert float(bias.detach()) == 0.5
