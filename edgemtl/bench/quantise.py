"""INT8 for the peers, each by its makers' own tool: ONNX Runtime static (QDQ), OpenVINO through NNCF.

All are calibrated on the same pictures as edgemtl's own INT8, and all are judged on other pictures that none has seen.
Needs the extra [bench]; everything heavy is imported where it is used.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.config import ModelConfig
from edgemtl.media.preprocess import Array

CALIBRATION, CHECK, CHECK_EXPECTED = "calibration.npy", "check.npy", "check_expected.npy"
PICTURES = "pictures"  # the calibration pictures as files, for `edgemtl compile`
CALIBRATED, CHECKED = 32, 8  # pictures


def prepare_pictures(source: Path | None, config: ModelConfig, folder: Path) -> tuple[Array, Array]:
    """Inputs to calibrate on and inputs to check with, float32 [n, 3, H, W]; written to `folder`, pictures too.

    source: a data set or a folder of pictures; None: seeded noise, for models whose weights are random anyway. Raises
    DataError where there are too few.
    """
    import cv2

    from edgemtl.bundle.manifest import Preprocess
    from edgemtl.errors import DataError

    wanted = CALIBRATED + CHECKED
    if source is None:
        images = np.random.default_rng(1).integers(0, 256, (wanted, 3, *config.image_size), np.uint8)
    else:
        pictures: Any = importlib.import_module("edgemtl_compiler.quantise.pictures")
        images = pictures.pictures(source, config, wanted).images
        if len(images) < wanted:
            raise DataError(f"{source} has {len(images)} pictures; INT8 needs {wanted}: {CALIBRATED} and {CHECKED}")
    checked = np.arange(0, wanted, wanted // CHECKED)[:CHECKED]
    fitted = np.setdiff1d(np.arange(wanted), checked)
    shutil.rmtree(folder / PICTURES, ignore_errors=True)
    (folder / PICTURES).mkdir(parents=True)
    for i in fitted:
        cv2.imwrite(str(folder / PICTURES / f"{i:03d}.png"), images[i].transpose(1, 2, 0)[..., ::-1])
    settings = Preprocess()
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (settings.mean, settings.std))
    inputs = ((images / np.float32(255) - mean) / std).astype(np.float32)
    np.save(folder / CALIBRATION, inputs[fitted])
    np.save(folder / CHECK, inputs[checked])
    return inputs[fitted], inputs[checked]


def quantise(name: str, onnx: Path, folder: Path) -> Path:
    """The artifact TOOL-FORM from the float export `onnx`, calibrated on what `prepare_pictures` wrote."""
    tool = name.split("-")[0]
    inputs = np.load(folder / CALIBRATION)
    if tool == "nncf":
        return _nncf(onnx, inputs, folder / f"{name}.xml")
    out = folder / f"{name}.onnx"
    ort: Any = importlib.import_module("onnxruntime.quantization")
    ort.quantize_static(
        str(onnx),
        str(out),
        _Reader(inputs),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
    )
    return out


class _Reader:
    """One input after the other, once: what ONNX Runtime takes for a CalibrationDataReader."""

    def __init__(self, inputs: Array) -> None:
        self.left = ({"image": image[None]} for image in inputs)

    def get_next(self) -> dict[str, Array] | None:
        return next(self.left, None)


def _nncf(onnx: Path, inputs: Array, out: Path) -> Path:
    """Post-training quantisation with NNCF's settings for transformers."""
    ov: Any = importlib.import_module("openvino")
    nncf: Any = importlib.import_module("nncf")
    model = nncf.quantize(
        ov.Core().read_model(str(onnx)),
        nncf.Dataset([image[None] for image in inputs]),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
    ov.save_model(model, str(out), compress_to_fp16=False)
    return out
