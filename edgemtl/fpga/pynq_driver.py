"""The driver's door to pynq: overlay, contiguous memory and registers of a real board, or of one behind PYNQ.remote.

The only module that imports pynq, which takes seconds; the backend `fpga` imports it where it is asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pynq

from edgemtl.errors import BoardError
from edgemtl.fpga import lock, registers
from edgemtl.fpga.bitstream import VIRTUAL, Bitstream, open_bitstream
from edgemtl.fpga.driver import Board, Buffer

_guard = threading.Lock()
_loaded: PynqBoard | None = None


class Accelerator(pynq.DefaultIP):  # type: ignore[misc]
    """pynq binds this class to the kernel in any overlay that holds one."""

    bindto = [registers.VLNV]  # noqa: RUF012


class PynqBoard(Board):
    """A board with the bitstream loaded; see `board`. pynq's errors become BoardError."""

    def __init__(self, bitstream: Bitstream) -> None:
        super().__init__()
        self.bitstream = bitstream
        self.origin = "csim" if bitstream.record.tool == VIRTUAL else "measured"
        lock.claim(os.environ.get(lock.REMOTE) or "here")
        try:
            self._overlay = pynq.Overlay(str(bitstream.bit.resolve()))
            self._ip = getattr(self._overlay, bitstream.handoff.instance)
        except Exception as error:  # of pynq, XRT, gRPC, or the operating system
            raise self._failed(f"load {bitstream.bit}", error) from error
        if not isinstance(self._ip, Accelerator):
            raise BoardError(f"{bitstream.bit}: pynq binds {type(self._ip).__name__} to {bitstream.handoff.instance}")

    def allocate(self, shape: Sequence[int], dtype: Any) -> Buffer:
        try:
            return pynq.allocate(tuple(shape), dtype, target=self._ip.device)
        except Exception as error:
            raise self._failed(f"allocate {list(shape)} {dtype} of contiguous memory (CMA)", error) from error

    def read(self, offset: int) -> int:
        try:
            return int(self._ip.read(offset))
        except Exception as error:
            raise self._failed(f"read register {offset:#x}", error) from error

    def write(self, offset: int, value: int) -> None:
        try:
            self._ip.write(offset, int(value))
        except Exception as error:
            raise self._failed(f"write register {offset:#x}", error) from error

    def reset(self) -> None:
        """Load the bitstream again: the kernel has no reset register of its own."""
        try:
            self._overlay.download()
        except Exception as error:
            raise self._failed("load the bitstream again", error) from error

    def clock_hz(self) -> float:
        """What the clock of the programmable logic is set to now."""
        try:
            return float(pynq.Clocks.fclk0_mhz) * 1e6
        except Exception as error:
            raise self._failed("read the clock", error) from error

    def _failed(self, what: str, error: Exception) -> BoardError:
        text = " ".join(str(getattr(error, "details", lambda: error)()).split())
        return BoardError(f"pynq could not {what}: {type(error).__name__}: {text}; type edgemtl doctor --board")


def board(bit: Path, name: str) -> PynqBoard:
    """The board `name` with `bit` loaded, after every check of its files. One per process: engines share it while it is
    the same build. Raises BoardError.
    """
    global _loaded
    found = open_bitstream(bit, name)
    with _guard:
        if _loaded is None or _loaded.bitstream.record != found.record:
            _loaded = PynqBoard(found)
        return _loaded
