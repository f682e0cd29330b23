"""INT8 peers: same pictures for all, each tool gives a model that is near the float one, errors are measured over
pictures that nobody was calibrated on.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgemtl.bench import prepare, quantise
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import child
from edgemtl.bench.samples import Sample
from edgemtl.bench.subjects import parse
from edgemtl.bench.worker import _over_pictures
from edgemtl.errors import DataError

CONFIG = parse("micro")[0].config


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03d}.png"), rng.integers(0, 256, (20, 30, 3), np.uint8))
    return folder


def test_pictures_to_calibrate_on_and_to_check_with_are_apart(tmp_path: Path) -> None:
    fitted, checked = quantise.prepare_pictures(None, CONFIG, tmp_path)
    assert fitted.shape == (quantise.CALIBRATED, 3, *CONFIG.image_size)
    assert checked.shape == (quantise.CHECKED, 3, *CONFIG.image_size)
    assert not any(np.array_equal(a, b) for a in fitted for b in checked)
    files = sorted((tmp_path / quantise.PICTURES).glob("*.png"))
    assert len(files) == quantise.CALIBRATED
    picture = cv2.imread(str(files[0]))[..., ::-1].transpose(2, 0, 1) / 255  # what `edgemtl compile` sees
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(fitted[0], (picture - mean[:, None, None]) / std[:, None, None], atol=1e-5)


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("tvm")
    with pytest.raises(DataError, match="has 39 pictures; INT8 needs 40: 32 and 8"):
        quantise.prepare_pictures(pictures(tmp_path / "few", 39), CONFIG, tmp_path)


def test_the_error_is_over_all_pictures(tmp_path: Path) -> None:
    """An engine that is the mean of its input times two, against expected maps that are off by one on one picture."""
    rng = np.random.default_rng(0)
    checked = rng.normal(size=(4, 1, 2, 2)).astype(np.float32)
    expected = 2 * checked
    np.save(tmp_path / quantise.CHECK, checked)
    np.save(tmp_path / quantise.CHECK_EXPECTED, expected)
    image = np.ones((1, 1, 2, 2), np.float32)
    assert _over_pictures(lambda: 2 * image, image, tmp_path) == 0
    assert (image == 1).all()
    expected[3] += 1
    np.save(tmp_path / quantise.CHECK_EXPECTED, expected)
    assert _over_pictures(lambda: 2 * image, image, tmp_path) == pytest.approx(0.5 / expected.std())
    assert _over_pictures(lambda: image * np.nan, image, tmp_path) == float("inf")


def test_int8_may_err_more_but_not_without_end() -> None:
    def sample(precision: str, error: float) -> Sample:
        return Sample("micro", "x", "", 1, 0, {"ms": [1.0], "error": error, "precision": precision})

    assert [sample("int8", 0.05).right, sample("fp32", 0.05).right, sample("int8", 1.5).right] == [True, False, False]


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("onnxruntime", "onnx"))), reason="onnxruntime, onnx")
@pytest.mark.parametrize(
    ("engine", "artifact"),
    [
        ("onnxruntime-int8", "qdq-sparse"),
        pytest.param("openvino-int8", "nncf-sparse", marks=pytest.mark.slow),
    ],
)
def test_a_peer_in_int8_is_near_the_float_model(engine: str, artifact: str, tmp_path: Path) -> None:
    if reason := ENGINES[engine].missing():
        pytest.skip(reason)
    (subject,) = parse("micro")
    (line,) = child("edgemtl.bench.prepare", prepare.request(subject, tmp_path, [artifact]), 300)
    assert '"path"' in line, line
    image = np.load(tmp_path / prepare.INPUT)
    want = {"path": str(tmp_path / f"{artifact}.{'xml' if engine == 'openvino-int8' else 'onnx'}"), "threads": 1}
    call = ENGINES[engine].prepare(want, image)()
    assert 1e-6 < _over_pictures(call, image, tmp_path) < 0.3  # not float any more, and not garbage
