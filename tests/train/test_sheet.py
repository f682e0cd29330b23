"""The picture sheet of `edgemtl eval`, and the figures of the papers' protocols."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from fake_rooms import FakeRooms
from typer.testing import CliRunner

from edgemtl.cli.evaluate import evaluate as evaluate_command
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import ConfigError, DataError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl.train.evaluate import evaluate
from edgemtl.train.protocols import PROTOCOLS, gain, table_row
from edgemtl.train.sheet import DARK, draw_sheet, write_sheet
from edgemtl.train.tasks import find

CONFIG = preset("micro")


class Halves(FakeRooms):
    """The second image has no depth label."""

    def batch(self, indices: Any) -> dict[str, torch.Tensor]:
        out = super().batch(indices)
        lost = torch.tensor([int(i) == 1 for i in indices])
        out["depth"][lost] = 255
        return {**out, "present/depth": ~lost}


def perfect(image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Maps read off the picture at full size, so that prediction and truth are equal."""
    semseg = torch.nn.functional.one_hot((image[:, 0] * 3 + 6).clamp(0, 12).long(), 13).permute(0, 3, 1, 2).float()
    return {
        "semseg": semseg,
        "depth": image[:, 1:2].abs() + 1,
        "normals": torch.nn.functional.normalize(image, dim=1),
        "edge": torch.where(image[:, :1] > 1, 40.0, -40.0),
    }


def test_the_sheet_shows_truth_over_prediction() -> None:
    data = Halves(2, augment=False)
    sheet = draw_sheet(perfect, data, CONFIG, images=2)
    strip, (high, wide) = 18, data.size
    assert sheet.shape == (4 * (high + strip), 5 * wide, 3)
    tiles = sheet.reshape(4, high + strip, 5, wide, 3)[:, strip:]
    upper, lower = tiles[0], tiles[1]
    for column, task in enumerate(CONFIG.task_names, 1):
        labelled = slice(2, None) if task in ("semseg", "depth") else slice(None)
        np.testing.assert_array_equal(upper[labelled, column], lower[labelled, column], err_msg=task)
        assert upper[labelled, column].std() > 5
    assert (upper[:2, 1] == DARK).all()  # pixels without a label
    assert (tiles[2][:, 2] == DARK).all()  # an image without one
    assert tiles[3][:, 2].std() > 5


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    data = FakeRooms(1, augment=False)
    write_sheet(tmp_path / "sheet.png", perfect, data, CONFIG)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] == 5 * 64
    for bad in ("nowhere/sheet.png", "sheet.xyz"):
        with pytest.raises(DataError, match="cannot be written; give a file ending in .png"):
            write_sheet(tmp_path / bad, perfect, data, CONFIG)


def test_an_image_without_a_label_is_reported() -> None:
    results = evaluate(perfect, Halves(3, augment=False), CONFIG)
    assert results["images"] == {"count": 3, "without_label": {"depth": 1}}
    whole = evaluate(perfect, FakeRooms(3, augment=False), CONFIG)
    assert whole["images"] == {"count": 3}
    assert whole["semseg"] == results["semseg"]


def test_protocols_differ_in_saliency_and_take_odsf() -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'edgemtl[train]'")
    saliency = TaskConfig(name="sal", kind="saliency", channels=1)
    config = ModelConfig(**{**CONFIG.model_dump(), "tasks": (*CONFIG.tasks, saliency)})

    class More(FakeRooms):
        def batch(self, indices: Any) -> dict[str, torch.Tensor]:
            out = super().batch(indices)
            return {**out, "sal": (out["image"][:, 1:2] > 0).float()}

    def predict(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {**perfect(image), "sal": image[:, 1:2] + 0.3}

    results = evaluate(predict, More(3, augment=False), config, boundary=0.02)
    m3vit, invpt = (table_row(results, config, name) for name in PROTOCOLS)
    assert m3vit["edge"][1] == invpt["edge"][1] == pytest.approx(100 * results["edge"]["ods_f"])
    assert m3vit["edge"][1] > 80
    assert m3vit["sal"][0].key != invpt["sal"][0].key
    assert m3vit["sal"][1] < invpt["sal"][1]
    assert m3vit["depth"][1] == pytest.approx(0, abs=1e-5)
    assert table_row(results, config, None)["edge"][0] is find("edge").own
    with pytest.raises(ConfigError, match="no protocol 'coco'; choose one of m3vit, invpt"):
        table_row(results, config, "coco")


@pytest.mark.usefixtures("one_thread")
def test_a_set_to_test_on_needs_no_training_split(tmp_path: Path) -> None:
    """From the command to its results: table, sheet, JSON, and the gain of a result over itself."""
    generate(RoomSet(seed=5, count=4, height=32, width=64, val_share=1), tmp_path / "rooms")
    model = tmp_path / "m.safetensors"
    save_checkpoint(model, MultiTaskViT(CONFIG), dtype="float32")
    app = typer.Typer()
    app.command()(evaluate_command)
    arguments = [str(model), "--data", str(tmp_path / "rooms"), "--sheet", str(tmp_path / "s.png")]
    first = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert first.exit_code == 0
    assert "baselines are the evaluated labels' own means" in " ".join(first.stderr.split())
    assert cv2.imread(str(tmp_path / "s.png")) is not None
    scores = json.loads(first.stdout)
    assert scores["images"]["count"] == 4
    (tmp_path / "a.json").write_text(first.stdout)
    again = CliRunner().invoke(app, [*arguments[:3], "--against", str(tmp_path / "a.json")], catch_exceptions=False)
    assert "+0.00 %" in again.stdout
    with pytest.raises(ConfigError, match="is no result"):
        CliRunner().invoke(app, [*arguments[:3], "--against", str(model)], catch_exceptions=False)


def test_gain_over_another_result() -> None:
    results = {
        "semseg": {"miou": 0.55},
        "depth": {"rmse": 0.9},
        "normals": {"mean_angle": 10.0},
        "edge": {"edge_f": 0.5},
    }
    other = {
        "semseg": {"miou": 0.5},
        "depth": {"rmse": 1.0},
        "normals": {"mean_angle": 10.0},
        "edge": {"edge_f": 0.5},
    }
    assert gain(results, other, CONFIG, None) == pytest.approx((10 + 10 + 0 + 0) / 4)
    with pytest.raises(ConfigError, match="lacks some of semseg: miou_all"):
        gain(results, other, CONFIG, "m3vit")
    with pytest.raises(ConfigError, match="lacks some of"):
        gain(results, {"depth": None}, CONFIG, None)


def test_the_frame_is_shown_as_it_was_before_the_models_normalisation() -> None:
    """The same pixels normalised by two models give the same picture."""
    other = ModelConfig(**{**CONFIG.model_dump(), "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.25, 0.5)})

    class Pixels(FakeRooms):
        def __init__(self, config: ModelConfig) -> None:
            super().__init__(1, augment=False)
            self.mean, self.std = (torch.tensor(v).view(1, 3, 1, 1) for v in (config.image_mean, config.image_std))

        def batch(self, indices: Any) -> dict[str, torch.Tensor]:
            out = super().batch(indices)
            return {**out, "image": (torch.linspace(0, 1, 64).expand(1, 3, 32, 64) - self.mean) / self.std}

    frames = [draw_sheet(perfect, Pixels(c), c, images=1)[18:50, :64].astype(int) for c in (CONFIG, other)]
    assert np.abs(frames[0] - np.linspace(0, 255, 64)[None, :, None]).max() <= 1
    assert np.abs(frames[0] - frames[1]).max() <= 1
