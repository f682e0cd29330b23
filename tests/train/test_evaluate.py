"""Evaluation with any predictor, and the commands `edgemtl train` and `edgemtl eval`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import typer
from fake_rooms import FakeRooms
from typer.testing import CliRunner

import edgemtl
import edgemtl.train.data
from edgemtl.cli import evaluate as cli_evaluate
from edgemtl.cli import train as cli
from edgemtl.config import ModelConfig
from edgemtl.data.nyud import Nyud
from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl.train.evaluate import evaluate, summary, torch_predictor, training_constants

CONFIG = preset("micro")
OPENED: list[str] = []
OPTIONS: list[dict[str, Any]] = []


def _truth(image: torch.Tensor) -> dict[str, Any]:
    """Perfect maps, read off the picture's blocks; NumPy, and without the batch axis, as an engine gives them."""
    small = image[..., 2::4, 2::4]
    semseg = torch.nn.functional.one_hot((small[:, 0] * 3 + 6).clamp(0, 12).long(), 13).permute(0, 3, 1, 2).float()
    maps = {"semseg": semseg, "depth": small[:, 1:2].abs() + 1, "normals": small, "edge": (small[:, :1] - 1) * 50}
    return {k: np.ascontiguousarray(v[0].numpy()) for k, v in maps.items()}


def test_a_perfect_predictor_beats_its_baselines() -> None:
    data = FakeRooms(6, augment=False)
    constants = training_constants(data, CONFIG)
    results = evaluate(_truth, data, CONFIG, constants=constants)
    assert results["images"]["count"] == 6
    assert results["semseg"]["pixel_accuracy"] > 0.8  # blocks' borders blur when a map is resized
    assert results["depth"]["rmse"] < 0.5 * results["depth"]["rmse_baseline"]
    assert results["normals"]["mean_angle"] < 0.3 * results["normals"]["mean_angle_baseline"]
    assert results["edge"]["edge_f"] > results["edge"]["edge_f_baseline"] + 0.3
    assert "semseg mIoU" in summary(results)


def test_batches_do_not_change_the_result() -> None:
    torch.manual_seed(0)
    data, predictor = FakeRooms(5, augment=False), torch_predictor(MultiTaskViT(CONFIG))
    one, four = (evaluate(predictor, data, CONFIG, batch=b) for b in (1, 4))
    assert one["depth"]["rmse"] == pytest.approx(four["depth"]["rmse"], rel=1e-5)
    assert one["semseg"]["miou"] == pytest.approx(four["semseg"]["miou"], abs=1e-3)


def test_a_model_that_gives_nan_is_refused() -> None:
    def broken(image: torch.Tensor) -> dict[str, Any]:
        return {**_truth(image), "normals": np.full((3, 8, 16), np.nan, np.float32)}

    with pytest.raises(CheckpointError, match="the model's normals map of image 0 holds values that are not finite"):
        evaluate(broken, FakeRooms(1, augment=False), CONFIG)


def test_limit_is_spread_over_the_set() -> None:
    seen: list[int] = []

    class Watching(FakeRooms):
        def batch(self, indices: Any) -> dict[str, torch.Tensor]:
            seen.extend(indices)
            return super().batch(indices)

    evaluate(_truth, Watching(10, augment=False), CONFIG, limit=4)
    assert seen == [0, 2, 5, 7]


def test_depth_is_scored_in_the_metres_of_each_camera() -> None:
    """A model that learnt a canonical camera is scored as one that learnt the set's own."""
    wide = 2 * math.degrees(math.atan(0.5))  # the canonical camera's focal length is half the set's
    config = ModelConfig(**{**CONFIG.model_dump(), "fov": wide})
    tele = 2 * math.degrees(math.atan(0.25))

    class Canonical(FakeRooms):
        def batch(self, indices: Any) -> dict[str, torch.Tensor]:
            out = super().batch(indices)
            known = out["depth"] != 255
            seen = [int(i) % 2 == 0 for i in indices]
            half = torch.tensor([0.5 if s else 1.0 for s in seen]).view(-1, 1, 1, 1)
            fov = torch.tensor([tele if s else float("nan") for s in seen])
            return {**out, "depth": torch.where(known, out["depth"] * half, 255), "fov": fov}

    def plain(image: torch.Tensor) -> dict[str, Any]:
        return {**_truth(image), "depth": np.full((1, 8, 16), 2.0, np.float32)}

    def canonical(image: torch.Tensor) -> dict[str, Any]:
        even = any(torch.equal(image, FakeRooms(4, augment=False).batch([i])["image"]) for i in (0, 2))
        return {**_truth(image), "depth": np.full((1, 8, 16), 1.0 if even else 2.0, np.float32)}

    own, other = FakeRooms(4, augment=False), Canonical(4, augment=False)
    want = evaluate(plain, own, CONFIG, constants=training_constants(own, CONFIG))["depth"]
    found = evaluate(canonical, other, config, constants=training_constants(other, config))["depth"]
    assert found == pytest.approx(want, rel=1e-5)


def test_training_constants() -> None:
    data = FakeRooms(3, augment=False)
    constants = training_constants(data, CONFIG)
    depth = data.batch(range(3))["depth"]
    assert constants["depth"][0] == pytest.approx(float(depth[depth != 255].mean()), rel=1e-6)
    assert float(constants["normals"].norm()) == pytest.approx(1, rel=1e-6)


class _Files(FakeRooms):
    layout = Nyud()
    root, split = Path("nowhere"), "val"

    def stored_size(self) -> tuple[int, int]:
        return 48, 96

    def preload(self) -> None:
        pass

    def plain(self) -> _Files:
        return _Files(self.images, augment=False)

    def reports(self) -> list[str]:
        return []


def _invoke(*arguments: str) -> Any:
    app = typer.Typer()
    app.command("train")(cli.train)
    app.command("eval")(cli_evaluate.evaluate)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_a_folder_with_other_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgemtl.data.dataset

    class Real:
        labels: ClassVar = {task.name: task for task in CONFIG.tasks}

        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert options["size"] == (32, 64)

        def classes(self, task: str) -> int:
            return 40

    monkeypatch.setattr(edgemtl.data.dataset, "LabelledSet", Real)
    with pytest.raises(ConfigError, match="labels 40 classes, the model's semseg has 13"):
        edgemtl.train.data.open_data(tmp_path, "val", CONFIG)


@pytest.fixture
def _fake_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_data(root: Path, split: str, config: Any, *, train: bool = False, **options: Any) -> _Files:
        OPTIONS.append(options)
        OPENED.append(split)
        out = _Files(6, augment=train)
        out.root, out.split = root, split
        return out

    OPENED.clear()
    OPTIONS.clear()
    monkeypatch.setattr(edgemtl.train.data, "open_data", open_data)


@pytest.mark.usefixtures("_fake_folder")
def test_a_held_out_part_stands_for_val(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "preset: micro\nholdout: true\nphoto: 0.5\nbatch: 2\nval_images: 2\nstages: [{name: shared, steps: 1}]"
    )
    model = _invoke("train", str(recipe), "--out", str(tmp_path / "run"), "--threads", "1").stdout.strip()
    assert OPENED == ["train:fit", "train:hold"]
    assert [options.get("photo", 0) for options in OPTIONS] == [0.5, 0]
    OPENED.clear()
    assert _invoke("eval", model, "--data", str(tmp_path), "--split", "train:hold").exit_code == 0
    assert OPENED == ["train:hold", "train:fit"]  # baselines know as much as the model


@pytest.mark.usefixtures("_fake_folder")
def test_commands(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("preset: micro\nval_images: 0\nbatch: 2\nstages: [{name: shared, steps: 2}]")
    result = _invoke("train", str(recipe), "--out", str(tmp_path / "run"), "--threads", "1")
    assert result.exit_code == 0
    model = tmp_path / "run" / "model.safetensors"
    assert result.stdout.strip() == str(model)
    (tmp_path / "rooms.json").write_text('{"classes": ["wall"]}')
    result = _invoke("eval", str(model), "--data", str(tmp_path), "--limit", "3")
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "synthetic rooms, val, 3 of the 6 images, evenly spaced; stored 48x96; evaluated 32x64; semseg 13" in words
    assert "trivial baseline" in words
    assert "mean image" in words
    assert "boundary F1 ↑" in words
    result = _invoke("eval", str(model), "--data", str(tmp_path), "--json")
    scores = json.loads(result.stdout)
    assert scores["data"] == "synthetic rooms"
    assert {"rmse", "rmse_baseline", "rmse_mean_image_baseline", "boundary_f1"} <= set(scores["depth"])
    assert scores["protocol"] == {
        "set": "synthetic rooms",
        "split": "val",
        "images": 6,
        "count": "6 images",
        "stored": [48, 96],
        "crop": None,
        "evaluated": [32, 64],
        "classes": {"semseg": 13},
        "figures": "edgemtl",
        "text": "synthetic rooms, val, 6 images; stored 48x96; evaluated 32x64; semseg 13 classes; figures of edgemtl",
    }
    (tmp_path / "rooms.json").unlink()
    result = _invoke("eval", str(model), "--data", str(tmp_path), "--json", "--split", "train:hold", "--limit", "4")
    real = json.loads(result.stdout)["protocol"]
    assert (real["set"], real["crop"]) == ("NYU Depth V2", "425x560 of 480x640")
    assert real["text"].startswith("NYU Depth V2, train:hold, 4 of the 795 official training images, evenly spaced;")
    with pytest.raises(ConfigError, match="--backend torch is for bundles"):
        _invoke("eval", str(model), "--data", str(tmp_path), "--backend", "torch")


@pytest.mark.usefixtures("_fake_folder")
def test_a_bundle_is_scored_by_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights through a stand-in engine's `raw` score as through torch."""
    torch.manual_seed(0)
    network = MultiTaskViT(CONFIG).eval()
    save_checkpoint(tmp_path / "m.safetensors", network, dtype="float32")
    opened: list[Any] = []

    class Engine:
        manifest = type("Manifest", (), {"model": CONFIG})()

        def activate(self, *tasks: str) -> None:
            opened.append(tasks)

        def raw(self, image: np.ndarray) -> dict[str, np.ndarray]:
            assert image.shape == (1, 3, 32, 64)
            with torch.no_grad():
                return {k: v[0].numpy() for k, v in network(torch.from_numpy(image)).items()}

    def load(path: str, **options: Any) -> Engine:
        opened.append((path, options))
        return Engine()

    monkeypatch.setattr(edgemtl, "load", load, raising=False)
    bundle = str(tmp_path / "m.edgemtl")
    a = json.loads(_invoke("eval", bundle, "--data", str(tmp_path), "--json", "--backend", "stub").stdout)
    b = json.loads(_invoke("eval", str(tmp_path / "m.safetensors"), "--data", str(tmp_path), "--json").stdout)
    assert opened == [(bundle, {"backend": "stub"}), CONFIG.task_names]
    assert a["depth"] == pytest.approx(b["depth"])
    assert a["data"] == "NYU Depth V2"


@pytest.mark.usefixtures("_fake_folder")
def test_a_narrower_path_is_scored_as_the_model_of_that_width(tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = dict.fromkeys(CONFIG.task_names, ((4, 0, 2), (1, 5, 3)))
    network = MultiTaskViT(preset("micro", paths=paths, widths=(1, 2, 3)))
    narrow = MultiTaskViT(network.config.at_width(1))
    narrow.load_state_dict(network.state_dict())
    whole, alone = tmp_path / "whole.safetensors", tmp_path / "alone.safetensors"
    save_checkpoint(whole, network, dtype="float32")
    save_checkpoint(alone, narrow, dtype="float32")

    def scores(*arguments: str) -> Any:
        found = json.loads(_invoke("eval", *arguments, "--data", str(tmp_path), "--json").stdout)
        return found.pop("width", None), {task: found[task] for task in CONFIG.task_names}

    assert scores(str(whole), "--width", "1") == (1, scores(str(alone))[1])
    assert scores(str(whole), "--width", "3") == (3, scores(str(whole))[1])
    assert scores(str(whole))[1] != scores(str(alone))[1]
    assert "paths of 1 experts, on" in " ".join(
        _invoke("eval", str(whole), "--data", str(tmp_path), "--width", "1").stdout.split()
    )
    with pytest.raises(ConfigError, match="no paths of width 4: it was trained at 1, 2, 3"):
        scores(str(whole), "--width", "4")
    with pytest.raises(ConfigError, match="is a bundle, which runs whole paths"):
        scores("m.edgemtl", "--width", "1")


def test_json_holds_no_infinity() -> None:
    found = cli_evaluate._without_nan({"a": {"b": math.inf, "c": 1.0}, "d": -math.inf, "e": math.nan})
    assert found == {"a": {"b": None, "c": 1.0}, "d": None, "e": None}
