"""The accuracy report: integers scored by the same meters as the float model, and heads that stay on the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hls_models import integers, lively, normalised, pictures
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.errors import DataError
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.fpga.report import accuracy, compare, host_head, integer_predictor, pixels
from edgemtl_compiler.quantise.pictures import pictures as read_pictures

Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]


class Labelled:
    """Images whose labels are made from the model's own maps, so that what integers cost shows in every metric."""

    def __init__(self, model: MultiTaskViT, images: NDArray[np.uint8]) -> None:
        self.images, self.config, size = images, model.config, images.shape[2:]
        with torch.no_grad():
            maps = model(normalised(images, model.config))
        maps = {t: torch.nn.functional.interpolate(m, size, mode="bilinear") for t, m in maps.items()}
        self.labels = {
            "semseg": maps["semseg"].argmax(1),
            "depth": maps["depth"] + 0.1,
            "normals": torch.nn.functional.normalize(maps["normals"] + 0.01, dim=1),
            "edge": (maps["edge"] > 0).float(),
        }

    def __len__(self) -> int:
        return len(self.images)

    def set_epoch(self, epoch: int) -> None:
        pass

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        here = list(indices)
        return {
            "image": normalised(self.images[here], self.config),
            **{t: label[here] for t, label in self.labels.items()},
        }


def test_pixels_survive_normalisation() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    for name in ("micro", "hybrid"):  # ImageNet's mean and deviation, and EfficientNet-Lite's
        config = preset(name)
        np.testing.assert_array_equal(pixels(normalised(every, config), config), every)


def test_the_predictor_is_the_reference(quantised: Quantised) -> None:
    model, network, images = quantised
    maps = integer_predictor(model, network)(normalised(images[:2], model.config))
    for task in network.config.task_names:
        want = network.run(images[1].transpose(1, 2, 0), task) * network.unit(task)
        np.testing.assert_allclose(maps[task][1].permute(1, 2, 0).numpy(), want, rtol=1e-6)


def test_metrics_of_float_and_int8(quantised: Quantised) -> None:
    model, network, images = quantised
    data, told = Labelled(model, images), []
    found = accuracy(model, network, data, 6, lambda *step: told.append(step))
    assert {t: loss.metric for t, loss in found.items()} == {
        "semseg": "miou", "depth": "rmse", "normals": "mean_angle", "edge": "edge_f",
    }  # fmt: skip
    assert found["depth"].before == pytest.approx(0.1, rel=1e-3)
    assert found["semseg"].before > 0.99
    for loss in found.values():
        assert loss.after != loss.before
        worse = loss.after - loss.before if loss.metric in ("rmse", "mean_angle") else loss.before - loss.after
        assert loss.relative == pytest.approx(worse / loss.before)
    assert found["semseg"].relative > 0
    assert told[-1] == ("INT8", 6, 6)
    with torch.no_grad():
        spoilt = lively("micro")
        spoilt.heads["depth"].out.bias += 0.3
    assert accuracy(spoilt, network, data, 2)["depth"].relative < -0.2  # now the integers are the better ones


def test_heads_on_the_host(quantised: Quantised) -> None:
    """The trunk's integers are those of the whole network; a head that the accelerator lacks reads its tokens."""
    model, whole, images = quantised
    network = integers(model, pictures(40, 32, 64)[:32], host_heads=True)
    assert network.host_heads
    pixel = images[0].transpose(1, 2, 0)
    stream = network.run(pixel, "depth")
    assert (stream.shape, stream.dtype) == ((9, 32), np.int16)
    seen: dict[str, Any] = {}
    whole.run(pixel, "depth", seen.__setitem__)
    np.testing.assert_array_equal(stream, seen["blocks.3.experts"])
    report = compare(model, network, images[:4], "depth")
    assert list(report.layers)[-1] == "blocks.3.experts"
    assert 0 < report.raw < 0.04
    maps = integer_predictor(model, network)(normalised(images[:1], model.config))["depth"]
    want = host_head(model, stream * network.unit("depth"), "depth")
    np.testing.assert_array_equal(maps[0].permute(1, 2, 0).numpy(), want)


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    import cv2

    config = lively("micro").config
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40 + i, 90, 3), (0, 0, 10 * i), np.uint8))
    (tmp_path / "note.txt").write_text("no picture")
    found = read_pictures(tmp_path, config, 3)
    assert not found.labelled
    assert found.images.shape == (3, 3, 32, 64)
    assert found.images[:, 0].max((1, 2)).tolist() == [0, 10, 30]  # evenly spaced, RGB
    assert len(read_pictures(tmp_path, config, 9).images) == 5
    (tmp_path / "4.png").write_bytes(b"\x89PNG no more")
    assert len(read_pictures(tmp_path, config, 9).images) == 4, "a bad one is left out"
    with pytest.raises(DataError, match="does not exist; give a folder of images"):
        read_pictures(tmp_path / "nowhere", config, 3)
    assert len(read_pictures(tmp_path / "0.png", config, 3).images) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read_pictures(tmp_path / "empty", config, 3)
