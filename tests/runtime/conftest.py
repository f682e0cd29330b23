"""Engines on the emulated GPU, and the device's memory watched while they live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import emulated_gpu
import pytest

import edgemtl
from edgemtl.runtime.engine import Engine


@pytest.fixture
def gpu16(cuda_bundle: Any) -> Iterator[emulated_gpu.Emulation]:
    with emulated_gpu.installed("f16", head=16) as emulation:
        yield emulation


@pytest.fixture
def load(gpu16: emulated_gpu.Emulation, cuda_bundle: Any) -> Iterator[Callable[..., Engine]]:
    """`edgemtl.load` for tvm-cuda and the bundle `cuda_bundle`, with these tasks active."""
    made: list[Engine] = []

    def make(*tasks: str) -> Engine:
        made.append(edgemtl.load(cuda_bundle[1], "tvm-cuda", tasks=tasks))
        return made[-1]

    before = gpu16.bytes
    yield make
    for engine in made:
        engine.close()
    made.clear()
    assert gpu16.bytes == before  # everything was given back, and no guard zone was touched
