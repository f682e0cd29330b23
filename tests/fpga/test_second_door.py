"""The second door: stock pynq 4.0.0, from the package index, drives the virtual board over its remote protocol.

pynq needs numpy<2, so it has an environment of its own, made once under $EDGEMTL_CACHE (some two minutes). What runs
there: the cases that every door shares, the faults, and tests/suite as it is.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import given
import pytest

from edgemtl.fpga import deploy, simulation
from edgemtl.runtime.pack import cache

HERE = Path(__file__).parent
PYNQ = "pynq==4.0.0"
ADDRESS, PORT = "127.0.0.1", 7967
NEEDS = (
    "numpy<2",
    "opencv-python-headless>=4.10,<4.12",
    "pydantic>=2.9",
    "safetensors>=0.5",
    "typer>=0.15",
    "rich>=13",
    "pytest>=8",
    "pytest-timeout>=2.3",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with pynq, and with this edgemtl from the wheel that `edgemtl deploy` writes."""
    folder = cache() / f"{PYNQ.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    made = folder / "bin" / "python"
    ready, wanted = folder / "ready", "\n".join((PYNQ, *NEEDS))
    if not ready.is_file() or ready.read_text() != wanted:
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(made), "-m", "pip", "install", "--quiet", PYNQ, *NEEDS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            pytest.skip(f"{PYNQ} cannot be installed: {lines[0].removeprefix('ERROR: ')}; is the index reachable?")
        ready.write_text(wanted)
    wheel = deploy.driver_wheel(tmp_path_factory.mktemp("wheel"))
    command = [str(made), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    subprocess.run(command, check=True)
    return made


@pytest.fixture
def free_port() -> None:
    if reason := simulation.obstacle():
        pytest.skip(reason)
    with socket.socket() as probe:
        if probe.connect_ex((ADDRESS, PORT)) == 0:
            pytest.skip(f"port {PORT}, which pynq uses, is taken")


def run(python: Path, *words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | variables
    command = [str(python), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("free_port")
def test_the_unmodified_driver_under_stock_pynq(python: Path, integer_bundle: Path, tmp_path: Path) -> None:
    script = HERE / "stock_pynq.py"
    done = run(python, script, integer_bundle, simulation.library(), tmp_path / "board", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("device") == "RemoteDevice of pynq 4.0.0"
    assert len(found) >= 14
    assert {k: v for k, v in found.items() if v != "ok"} == {}


@pytest.mark.slow
@pytest.mark.usefixtures("free_port")
def test_the_suite_of_every_backend(python: Path, micro: Any, integer_bundle: Path, tmp_path: Path) -> None:
    """tests/suite with the backend `fpga`, pynq installed and no PyTorch."""
    files, root = tmp_path / "board", Path(__file__).parents[2]
    given.write(tmp_path, micro, integer_bundle)
    command = [str(python), str(HERE / "remote_board.py"), str(simulation.library()), "--files", str(files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stdout is not None
            assert "virtual ZCU104" in server.stdout.readline()
            done = run(
                python, "-m", "pytest", root / "tests" / "suite", "-q", "-p", "no:cacheprovider",
                "-k", "fpga and not sim", "-c", root / "pyproject.toml", "-o", "filterwarnings=default",
                f"--basetemp={tmp_path / 'pytest'}", cwd=tmp_path, PYNQ_REMOTE_DEVICES=ADDRESS,
                EDGEMTL_BITSTREAM=str(files / "edgemtl.bit"), **{given.VARIABLE: str(tmp_path)},
            )  # fmt: skip
        finally:
            server.terminate()
    summary = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert int(summary.split(" passed")[0].split()[-1]) > 30
