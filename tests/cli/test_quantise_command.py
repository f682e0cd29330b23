"""`edgemtl quantise`: the table, the JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint

pytest.importorskip("edgemtl_compiler", reason="pip install 'edgemtl[compile]'")


def checkpoint(path: Path, scale: float = 3.0) -> Path:
    torch.manual_seed(0)
    model = MultiTaskViT(preset("micro")).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "norm" not in name:
                p.mul_(scale)
    save_checkpoint(path, model, model.config, origin="random weights", dtype="float32")
    return path


def picture(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.integers(0, 256, (4, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights") / "micro.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(36):
        cv2.imwrite(str(folder / f"{i:02}.png"), picture(rng))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 images to train on and 4 to validate with, in the NYUD_MT layout."""
    root, rng = tmp_path_factory.mktemp("labelled"), np.random.default_rng(1)
    for name in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (root / name).mkdir()
    for i in range(36):
        image = picture(rng)
        cv2.imwrite(str(root / "images" / f"{i:02}.jpg"), image)
        cv2.imwrite(str(root / "segmentation" / f"{i:02}.png"), image[..., 0] // 32 + 1)
        np.save(root / "depth" / f"{i:02}.npy", image[..., 1].astype(np.float32) / 64 + 1)
        np.save(root / "normals" / f"{i:02}.npy", image.astype(np.float32) - 127.5)
        np.save(root / "edge" / f"{i:02}.npy", (image[..., 2] > 128).astype(np.uint8))
    normals = root / "normals"
    for path in normals.iterdir():
        n = np.load(path)
        np.save(path, n / np.linalg.norm(n, axis=-1, keepdims=True))
    (root / "gt_sets" / "train.txt").write_text("\n".join(f"{i:02}" for i in range(32)))
    (root / "gt_sets" / "val.txt").write_text("\n".join(f"{i:02}" for i in range(32, 36)))
    (root / "rooms.json").write_text(json.dumps({"classes": [f"c{i}" for i in range(13)]}))
    return root


def test_metrics_beside_the_float_models(cli: Any, weights: Path, labelled: Path) -> None:
    report = json.loads(cli("quantise", weights, "--calibrate", labelled, "--images", 32, "--json").out)
    assert (report["calibrated_on"], report["scored_on"], report["head"]) == (32, 4, "accelerator")
    scored = json.loads(cli("eval", weights, "--data", labelled, "--json").out)
    for task, facts in report["tasks"].items():
        assert facts["float"] == pytest.approx(scored[task][facts["metric"]], rel=1e-5)
        assert abs(facts["relative_loss"]) < 0.05
        assert facts["error_grows_most"] in facts["layers"]
    said = cli("quantise", weights, "--calibrate", labelled, "--images", 32, "--evaluate", 2)
    assert said.code == 0
    for words in ("mIoU", "RMSE (m)", "mean angle", "loss", "Metrics on 2 val images", "NumPy reference"):
        assert words in said.out


def test_a_folder_without_labels(cli: Any, weights: Path, photos: Path) -> None:
    said = cli("quantise", weights, "--calibrate", photos, "--images", 32)
    assert said.code == 0, said.err
    assert "No labels, so no metrics" in said.out
    assert "4 images not calibrated on" in said.out
    report = json.loads(cli("quantise", weights, "--calibrate", photos, "--host-heads", "--json").out)
    assert (report["head"], report["calibrated_on"], report["compared_images"]) == ("host, float", 36, "calibrated on")
    assert "float" not in report["tasks"]["depth"]
    assert 0 < report["tasks"]["depth"]["raw_map_error"] < 0.05
    assert list(report["tasks"]["depth"]["layers"])[-1] == "blocks.3.experts"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--images", 31), "calibration needs 32 images or more; given 31"),
        (("--percentile", 90), "would saturate at percentile 90; the limit is 0.10%: raise the percentile"),
        (("--percentile", 0), "a percentile lies above 0 and up to 100; given 0"),
    ],
)
def test_settings_that_cannot_work(
    cli: Any, weights: Path, photos: Path, options: tuple[object, ...], message: str
) -> None:
    said = cli("quantise", weights, "--calibrate", photos, *options)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_files_that_cannot_work(cli: Any, weights: Path, photos: Path, tmp_path: Path) -> None:
    said = cli("quantise", weights, "--calibrate", tmp_path / "nowhere")
    assert said.code == 2
    assert "nowhere does not exist; give a folder of images" in said.err
    said = cli("quantise", tmp_path / "none.safetensors", "--calibrate", photos)
    assert said.code == 2
    assert "none.safetensors" in said.err
    wild = checkpoint(tmp_path / "wild.safetensors", scale=1e25)
    said = cli("quantise", wild, "--calibrate", photos)
    assert said.code == 2
    assert "calibration met an activation that is beyond 1e+09, at" in said.err
