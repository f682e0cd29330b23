"""The virtual board with the Verilated twins behind it: the same maps, the same bytes, and cycles of origin rtl-sim."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from csim_units import CSim
from hls_models import HLS
from numpy.typing import NDArray

from edgemtl.errors import BoardError
from edgemtl.fpga import counters, simulation
from edgemtl.fpga.driver import Driver
from edgemtl.fpga.simulation import TwinKernel
from edgemtl.fpga.virtual import VirtualBoard
from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga.csim import build as build_csim
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.fpga.program import build

Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]


def test_it_compiles(tmp_path: Path) -> None:
    """Without the twins themselves, which take minutes."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler: apt-get install g++")
    made = build_csim(HLS, tmp_path / "twin.so", twins=True)
    assert b"edgemtl_csim_twins" in made.read_bytes()


@pytest.mark.slow
def test_frames_of_every_task(
    csim: CSim, quantised: Quantised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := simulation.obstacle(simulation.TWIN):
        pytest.skip(reason)
    _, network, images = quantised
    libraries = simulation.twin_libraries()  # where they are kept; the rest is built afresh
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path))
    monkeypatch.setenv(simulation.VARIABLE, simulation.TWIN)
    monkeypatch.setattr(simulation, "twin_libraries", lambda: libraries)
    kernel = simulation.kernel()
    assert isinstance(kernel, TwinKernel)
    program, config = build(network), network.config
    driver = Driver(VirtualBoard(kernel), program, timeout_s=60)
    spent = set()
    for task in config.task_names:
        for image in images[:2]:
            pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
            np.testing.assert_array_equal(driver.frame(pixels, task), csim.frame(program, pixels, task))
            count, plain = driver.last_count, counters.read(csim.counters, "csim")
            assert count is not None
            assert (count.origin, count.cycles_origin, count.cycles) == ("csim", "rtl-sim", None)
            for name, unit in count.units.items():
                same = plain.units[name]
                assert (unit.steps, unit.read_bytes, unit.written_bytes) == (
                    same.steps, same.read_bytes, same.written_bytes,
                )  # fmt: skip
                assert (unit.cycles is not None) == (name in ("linear", "attention"))
            attention = count.units["attention"]
            assert attention.stalls is not None
            assert attention.stalls > 0
            spent.add(attention.cycles)
    assert len(spent) == 1  # the shapes decide, not the values
    driver.close()


@pytest.mark.slow
def test_a_damaged_table_is_refused_by_the_twin(quantised: Quantised) -> None:
    """The frame ends with the kernel's own status, and the next one is right."""
    if reason := simulation.obstacle(simulation.TWIN):
        pytest.skip(reason)
    _, network, images = quantised
    program = build(network)
    pixels = np.ascontiguousarray(images[0].transpose(1, 2, 0))
    driver = Driver(VirtualBoard(TwinKernel()), program, timeout_s=60)
    want = driver.frame(pixels, "depth")
    embed = int(program.words[1 + len(program.tasks), 3])  # the first descriptor's weights
    factor = driver._weights[0, embed, 7].copy()
    for value in (255, factor):  # a shift of 255 is none
        driver._weights[0, embed, 7] = value
        driver._weights.flush()
        if value != factor:
            with pytest.raises(BoardError, match="a value in the weight image outside its range"):
                driver.frame(pixels, "depth")
    np.testing.assert_array_equal(driver.frame(pixels, "depth"), want)
    driver.close()
