"""What every command has in common: no traceback, whatever the terminal, the system and what was typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgemtl.cli import _guard


def _run(*args: object, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgemtl", *map(str, args)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=100, **how)


def _interrupted_at(module: str) -> subprocess.CompletedProcess[str]:
    """`edgemtl run` that gets Ctrl-C when it begins to import `module`."""
    code = f"""
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
sys.argv = ["edgemtl", "run", "no.edgemtl", "no.png", "--task", "depth"]
runpy.run_module("edgemtl", run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("module", ["edgemtl.cli", "typer", "edgemtl.cli.run", "edgemtl.media.sinks"])
def test_ctrl_c_while_it_starts(module: str) -> None:
    said = _interrupted_at(module)
    assert said.returncode in (-signal.SIGINT, 130)
    assert said.stdout == ""
    assert said.stderr in ("", "stopped\n")


@pytest.mark.parametrize("args", [["--version"], ["doctor", "--json"], ["run", "--help"]])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_output(args: list[str]) -> None:
    with open("/dev/full", "w") as full:
        said = _run(*args, stdout=full)
    assert said.returncode == 2
    assert re.fullmatch("error: .*standard output cannot be .*: No space left on device\n", said.stderr)


def test_a_reader_that_has_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as gone:
        said = _run("--version", stdout=gone)
    assert (said.returncode, said.stderr) == (1, "")


@pytest.mark.parametrize("args", [["run", "--help"], ["run", "nö.edgemtl", "b…"]])
def test_a_terminal_that_shows_ascii_only(args: list[str]) -> None:
    ascii_ = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    said = _run(*args, env=ascii_, stdout=subprocess.PIPE)
    assert said.returncode == (0 if "--help" in args else 2)
    assert "Traceback" not in said.stderr
    assert (said.stdout + said.stderr).isascii()


@pytest.mark.parametrize(
    "args",
    [
        ["rtsp://admin:s3cret@h/x", "b.edgemtl"],
        ["b.edgemtl", "0", "rtsp://admin:s3cret@h/x"],
        ["b.edgemtl", "0", "--task", "depth", "--threads", "2", "--unknown", "rtsp://admin:s3cret@h/x"],
        ["rtsp//admin:s3/cret@h/x"],
        ["b.edgemtl", "0", "--backend", "http://h/?key=s3cret"],
    ],
)
def test_no_message_repeats_a_secret(cli: Any, args: list[str]) -> None:
    said = cli("run", *args)
    assert said.code == 2
    assert said.err
    assert "cret" not in said.out + said.err


def test_what_the_system_refuses_is_a_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        _guard.guarded(lambda: (tmp_path / "none").read_bytes())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"
