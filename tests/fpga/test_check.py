"""`edgemtl doctor --board` on boards that are made of files: each fault is found, by its name and with what helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import virtual_files

from edgemtl.fpga import bitstream, check
from edgemtl.fpga.board import find
from edgemtl.fpga.check import Machine


@pytest.fixture
def board(tmp_path: Path) -> Machine:
    """A ZCU104 as it should be."""
    files = {
        "proc/device-tree/chosen/pynq_board": "ZCU104\0",
        "home/xilinx/REVISION": "Release 4.0.0\nBoard ZCU104\n",
        "proc/version": "Linux version 6.12.10-xilinx (gcc) #1 SMP",
        "proc/meminfo": "MemTotal: 2000 kB\nCmaTotal:     262144 kB\nCmaFree:      200000 kB\n",
    }
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    environ = {"XILINX_XRT": "/usr", bitstream.VARIABLE: str(virtual_files.write(tmp_path / "bit"))}
    return Machine(tmp_path / "root", environ, lambda: 0, lambda: "4.0.0", lambda: 299.997e6)


def bad(points: list[check.Point]) -> dict[str, check.Point]:
    assert all(p.remedy for p in points if p.good is False)
    return {p.name: p for p in points if p.good is False}


def test_a_board_as_it_should_be(board: Machine, integer_bundle: Path) -> None:
    points = check.check(integer_bundle, board)
    assert all(p.good for p in points)
    assert len({p.name for p in points}) == 9
    assert {p.name for p in check.check(None, board) if p.good is None} == {"bundle"}


@pytest.mark.parametrize(
    ("name", "text", "point", "message"),
    [
        ("proc/device-tree/chosen/pynq_board", None, "board", "this is no PYNQ image"),
        ("proc/device-tree/chosen/pynq_board", "RFSoC4x2", "board", "RFSoC4x2, image Release 4.0.0"),
        ("proc/version", "Linux version 4.19.0", "kernel", "4.19.0"),
        ("proc/meminfo", "MemTotal: 1 kB", "contiguous memory", "has none"),
        ("proc/meminfo", "CmaTotal: 9999 kB\nCmaFree: 9 kB", "contiguous memory", "needed, 9216 of 10238976 free"),
    ],
)
def test_files(board: Machine, integer_bundle: Path, name: str, text: str | None, point: str, message: str) -> None:
    path = board.root / name
    path.write_text(text) if text is not None else path.unlink()
    found = bad(check.check(integer_bundle, board))
    assert list(found) == [point]
    assert message in found[point].found


@pytest.mark.parametrize(
    ("changes", "point", "message"),
    [
        ({"pynq": lambda: None}, "pynq", "not installed for this Python"),
        ({"pynq": lambda: "2.7.0"}, "pynq", "2.7.0"),
        ({"uid": lambda: 1000}, "root", "no"),
        ({"clock_hz": lambda: 100e6}, "clock", "100.000 MHz, the bitstream is built for 300 MHz"),
        ({"clock_hz": lambda: 1 / 0}, "clock", "pynq cannot read it: division by zero"),
    ],
)
def test_surroundings(board: Machine, integer_bundle: Path, changes: dict[str, Any], point: str, message: str) -> None:
    found = bad(check.check(integer_bundle, replace(board, **changes)))
    assert list(found) == [point]
    assert message in found[point].found


def test_environment_and_files_of_a_build(board: Machine, integer_bundle: Path, plain: Path, tmp_path: Path) -> None:
    bit = Path(board.environ[bitstream.VARIABLE])
    assert list(bad(check.check(integer_bundle, replace(board, environ={bitstream.VARIABLE: str(bit)})))) == [
        "XILINX_XRT"
    ]
    found = bad(check.check(integer_bundle, replace(board, environ={"XILINX_XRT": "/usr"})))
    assert found["bitstream"].found == f"there is no {integer_bundle.parent}/edgemtl.bit"
    bit.with_suffix(".hwh").write_text(virtual_files.hwh(find()) + "\n")
    found = bad(check.check(integer_bundle, board))
    assert "is stale" in found["bitstream"].found
    assert check.check(integer_bundle, board)[-1].good is None
    assert "holds nothing for the FPGA board" in bad(check.check(plain, board))["bundle"].found


def test_the_command(
    cli: Callable[..., Any], board: Machine, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "Machine", lambda: board)
    said = cli("doctor", "--board", integer_bundle, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["good"] is True
    monkeypatch.setattr(check, "Machine", lambda: replace(board, uid=lambda: 7))
    said = cli("doctor", "--board", integer_bundle)
    assert said.code == 2
    assert "WRONG" in said.out
    assert "sudo -i" in said.out
    said = cli("doctor", integer_bundle)
    assert (said.code, said.err) == (
        2,
        f"error: doctor looks at a bundle with --board only: edgemtl doctor --board {integer_bundle}\n",
    )
