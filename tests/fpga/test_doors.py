"""What holds whichever door leads to the board: in process here; test_second_door.py runs the same under stock pynq.

The driver's door to pynq is also met by a stand-in for pynq, so that its errors are tested where pynq is not installed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import door_cases
import numpy as np
import pytest

import edgemtl
from edgemtl.errors import BackendError, BoardError
from edgemtl.fpga import registers, simulation
from edgemtl.fpga.simulation import CSimKernel
from edgemtl.fpga.virtual import VirtualBoard


@pytest.mark.parametrize("case", door_cases.CASES, ids=lambda c: c.__name__)
def test_in_process(case: Any, kernel: CSimKernel, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "CSimKernel", lambda: kernel)
    door_cases.run(case, integer_bundle, "fpga-sim")


@pytest.mark.parametrize("case", door_cases.CASES, ids=lambda c: c.__name__)
def test_through_a_stand_in_for_pynq(case: Any, stand_in: Any, integer_bundle: Path) -> None:
    """Engines share the one board; loaded once."""
    door_cases.run(case, integer_bundle, "fpga")
    assert stand_in.loads == 1
    assert stand_in.board.free_bytes == VirtualBoard(lambda *_: 0).free_bytes


def test_a_stuck_kernel_is_loaded_again(stand_in: Any, integer_bundle: Path) -> None:
    from edgemtl.runtime.backends.fpga import Fpga

    want = door_cases.Want(integer_bundle)
    with edgemtl.load(integer_bundle, "fpga", tasks="depth") as engine, pytest.MonkeyPatch.context() as patch:
        assert Fpga.timeout_s == 1
        patch.setattr(engine._runner.driver, "timeout_s", 0.2)
        stand_in.board.faults.add("stuck")
        with pytest.raises(BoardError, match=r"did not finish task 'depth' .*started 1, idle 0"):
            engine(want.golden.pixels[0])
        patch.setattr(engine._runner.driver, "timeout_s", 60)
        np.testing.assert_array_equal(engine(want.golden.pixels[0])["depth"].raw, want.raw("depth", 0))
    assert stand_in.loads == 2


def test_a_driver_that_keeps_the_board(stand_in: Any, integer_bundle: Path) -> None:
    """A frame that nobody fetches holds up others for a while, with an error; `close` lets go."""
    want = door_cases.Want(integer_bundle)
    with (
        edgemtl.load(integer_bundle, "fpga", tasks="depth") as a,
        edgemtl.load(integer_bundle, "fpga", tasks="edge") as b,
    ):
        b._runner.driver.timeout_s = 0.1
        a._runner.driver.start(want.golden.pixels[0], "depth")
        with pytest.raises(BoardError, match=r"another engine has kept the board for 0.1 s"):
            b(want.golden.pixels[0])
        a.close()
        b._runner.driver.timeout_s = 60
        np.testing.assert_array_equal(b(want.golden.pixels[0])["edge"].raw, want.raw("edge", 0))


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            RuntimeError("No Devices Found"),
            "could not load .*edgemtl.bit: RuntimeError: No Devices Found; type edgemtl",
        ),
        (OSError(13, "Permission denied"), "could not load .*Permission denied; type edgemtl doctor --board"),
    ],
)
def test_pynq_that_fails(stand_in: Any, integer_bundle: Path, failure: Exception, message: str) -> None:
    stand_in.failure = failure
    with pytest.raises(BoardError, match=message):
        edgemtl.load(integer_bundle, "fpga")
    stand_in.failure = None
    edgemtl.load(integer_bundle, "fpga").close()


def test_pynq_that_binds_another_driver(stand_in: Any, integer_bundle: Path) -> None:
    stand_in.bind = stand_in.DefaultIP
    with pytest.raises(BoardError, match="pynq binds DefaultIP to edgemtl_top_0"):
        edgemtl.load(integer_bundle, "fpga")


def test_errors_of_memory_and_registers(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgemtl.fpga import pynq_driver

    board = pynq_driver.board(Path(os.environ["EDGEMTL_BITSTREAM"]), "zcu104")
    assert board.clock_hz() == pytest.approx(299.997e6)
    with pytest.raises(BoardError, match=r"allocate \[268435457\] u1 of contiguous memory \(CMA\): .*memory is full"):
        board.allocate((1 + (256 << 20),), "u1")
    with pytest.raises(BoardError, match="could not read register 0x4000: BoardError: there is no register"):
        board.read(0x4000)
    with pytest.raises(BoardError, match="could not write register 0x10: BoardError: register ap_return can be read"):
        board.write(registers.RETURN, 1)
    monkeypatch.setattr(stand_in.Overlay, "download", lambda self: 1 / 0)
    with pytest.raises(BoardError, match="could not load the bitstream again: ZeroDivisionError"):
        board.reset()
    del stand_in.Clocks.fclk0_mhz
    with pytest.raises(BoardError, match="could not read the clock"):
        board.clock_hz()


def test_without_pynq(cli: Callable[..., Any], integer_bundle: Path) -> None:
    if importlib.util.find_spec("pynq"):
        pytest.skip("pynq is installed here")
    with pytest.raises(BackendError, match=r"'fpga' cannot be used here: pynq is not installed: pip install"):
        edgemtl.load(integer_bundle, "fpga")
    said = cli("verify", integer_bundle, "--backend", "fpga")
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_no_board_and_no_bitstream(stand_in: Any, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMTL_BITSTREAM", "/nowhere/edgemtl.bit")
    with pytest.raises(BoardError, match=r"no bitstream /nowhere/edgemtl.bit: .*make -C bitstreams BOARD builds"):
        edgemtl.load(integer_bundle, "fpga")
    monkeypatch.delenv("EDGEMTL_BITSTREAM")
    with pytest.raises(BoardError, match=rf"no bitstream {integer_bundle.parent}/edgemtl.bit"):
        edgemtl.load(integer_bundle, "fpga")
    monkeypatch.delenv("PYNQ_REMOTE_DEVICES")
    with pytest.raises(BackendError, match="this machine is no PYNQ board, and PYNQ_REMOTE_DEVICES names none"):
        edgemtl.load(integer_bundle, "fpga")
