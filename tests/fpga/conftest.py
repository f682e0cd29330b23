"""The simulated kernel, and a stand-in for pynq."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import virtual_files

import edgemtl.fpga
from edgemtl.fpga import lock, registers, simulation
from edgemtl.fpga.contract import KERNEL
from edgemtl.fpga.simulation import CSimKernel
from edgemtl.fpga.virtual import VirtualBoard


@pytest.fixture(scope="session", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every model here is small."""


@pytest.fixture(scope="session")
def kernel(simulation_cache: Path) -> Iterator[CSimKernel]:
    if reason := simulation.obstacle():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMTL_CACHE", str(simulation_cache))
        path = simulation.library()
        before = path.stat().st_mtime_ns
        assert simulation.library() == path
        assert path.stat().st_mtime_ns == before  # from the cache
        yield CSimKernel(path)


def _forget() -> None:
    """The module that has imported the stand-in."""
    sys.modules.pop("edgemtl.fpga.pynq_driver", None)
    vars(edgemtl.fpga).pop("pynq_driver", None)


@pytest.fixture
def stand_in(kernel: CSimKernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A module with the four names of pynq that the driver uses, and a virtual board behind them."""
    board = VirtualBoard(kernel)

    class DefaultIP:
        device = "the board"

        def read(self, offset: int) -> int:
            return board.read(offset)

        def write(self, offset: int, value: int) -> None:
            assert type(value) is int  # pynq's MMIO refuses NumPy's integers
            board.write(offset, value)

    class Overlay:
        def __init__(self, path: str) -> None:
            assert Path(path).is_absolute()
            fake.loads += 1
            if fake.failure:
                raise fake.failure
            (driver,) = (c for c in fake.DefaultIP.__subclasses__() if registers.VLNV in c.bindto)
            setattr(self, f"{KERNEL}_0", (fake.bind or driver)())

        def download(self) -> None:
            fake.loads += 1
            board.reset()

    def allocate(shape: tuple[int, ...], dtype: Any, target: Any) -> Any:
        assert target == "the board"
        return board.allocate(shape, dtype)

    fake: Any = types.ModuleType("pynq")
    fake.DefaultIP, fake.Overlay, fake.allocate = DefaultIP, Overlay, allocate
    fake.Clocks = types.SimpleNamespace(fclk0_mhz=299.997)
    fake.board, fake.loads, fake.failure, fake.bind = board, 0, None, None
    monkeypatch.setitem(sys.modules, "pynq", fake)
    _forget()
    monkeypatch.setenv("EDGEMTL_BITSTREAM", str(virtual_files.write(tmp_path / "bit")))
    monkeypatch.setenv("PYNQ_REMOTE_DEVICES", "127.0.0.1")
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    fake.__spec__ = importlib.machinery.ModuleSpec("pynq", None)  # what tells that it is installed
    yield fake
    _forget()
