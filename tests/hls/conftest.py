"""Shared by the accelerator's tests: the C simulation, built once, and a quantised micro model."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from csim_units import CSim
from hls_models import HLS, integers, lively, pictures
from numpy.typing import NDArray

from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga.csim import build
from edgemtl_compiler.fpga.network import IntegerNetwork


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every model here is small."""


@pytest.fixture(scope="session")
def csim(tmp_path_factory: pytest.TempPathFactory) -> CSim:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler: apt-get install g++")
    return CSim(build(HLS, tmp_path_factory.mktemp("csim") / "hls.so"))


@pytest.fixture(scope="session")
def quantised() -> tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]:
    """Model, its network, and eight images that the calibration has not seen."""
    model, images = lively("micro"), pictures(40, 32, 64)
    return model, integers(model, images[:32]), images[32:]
