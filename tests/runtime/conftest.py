"""Engines on the emulated GPU, and the device's memory watched while they live; and engines on a double."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import emulated_gpu
import pytest
from double import Double

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.runtime.backends.base import Backend, Choice
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


@pytest.fixture
def make(plain: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def engine(budget: int | None = None, kind: type[Backend] = Double) -> Engine:
        made.append(Engine(Bundle.open(plain), kind, Choice(None, ""), "test", 1, budget, "rgb"))
        return made[-1]

    yield engine
    for e in made:
        e.close()
