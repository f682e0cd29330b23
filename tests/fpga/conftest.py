"""A micro bundle with the accelerator's part, and the means to damage it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgemtl.bundle.writer import write_bundle
from edgemtl_compiler.hls.image_bundle import FpgaPart, fpga_part


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models here are so small that threads only cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def part(micro: Any) -> FpgaPart:
    """Quantised on blocks of colour; two golden frames."""
    height, width = micro.config.image_size
    coarse = np.random.default_rng(1).integers(0, 256, (33, 3, height // 8, width // 8), np.uint8)
    return fpga_part(micro.model, coarse.repeat(8, 2).repeat(8, 3), source="blocks", frames=2)


@pytest.fixture(scope="session")
def bundle_file(micro: Any, part: FpgaPart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fpga") / "m.edgemtl"
    golden = (micro.inputs, micro.outputs)
    fields = {"name": "m", "model": micro.config, "fpga": [part.fpga]}
    write_bundle(path, manifest_fields=fields, weights=micro.weights, files=part.files, golden=golden)
    return path
