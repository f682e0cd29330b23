"""Shared by the accelerator's tests: the C simulation, built once, and a quantised micro model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hls_models import HLS, lively, pictures
from numpy.typing import NDArray

from edgemtl.model import MultiTaskViT
from edgemtl_compiler.hls.csim import CSim, build
from edgemtl_compiler.hls.network import Network
from edgemtl_compiler.hls.quantise import quantise


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models here are so small that threads only cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def csim(tmp_path_factory: pytest.TempPathFactory) -> CSim:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler: apt-get install g++")
    return CSim(build(HLS, tmp_path_factory.mktemp("csim") / "hls.so"))


@pytest.fixture(scope="session")
def quantised() -> tuple[MultiTaskViT, Network, NDArray[np.uint8]]:
    """Model, its network, and eight images that the calibration has not seen."""
    model, images = lively("micro"), pictures(40, 32, 64)
    return model, quantise(model, images[:32]), images[32:]
