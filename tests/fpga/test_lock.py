"""A board has one process at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgemtl
from edgemtl.errors import BoardError
from edgemtl.fpga import lock

OTHER = """
import sys
from pathlib import Path
from edgemtl.fpga import lock
lock.FOLDER = Path(sys.argv[1])
lock.claim("here")
print("mine", flush=True)
sys.stdin.read()
"""


def test_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    command = [sys.executable, "-c", OTHER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(BoardError, match=f"process {other.pid} drives the board here: end it first"):
            lock.claim("here")
        lock.claim("192.0.2.7")  # another board
        other.kill()
    lock.claim("here")
    lock.claim("here")


def test_a_lock_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    (tmp_path / "edgemtl-here.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BoardError, match="cannot write .*edgemtl-here.lock, which keeps other processes off the board"):
        lock.claim("here")
    assert not (tmp_path / "elsewhere").exists()


def test_the_driver_claims_before_it_loads(
    stand_in: Any, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise BoardError(f"not {name}")

    monkeypatch.setattr(lock, "claim", refuse)
    with pytest.raises(BoardError, match="not 127.0.0.1"):
        edgemtl.load(integer_bundle, "fpga")
    assert stand_in.loads == 0
