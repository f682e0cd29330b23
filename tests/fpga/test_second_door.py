"""The second door: stock pynq 4.0.0, from the package index, drives the virtual board over its remote protocol.

pynq needs numpy<2, so it has an environment of its own, made once under $EDGEMTL_CACHE (some two minutes).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edgemtl.fpga import deploy, simulation
from edgemtl.runtime.pack import cache

PYNQ = "pynq==4.0.0"
NEEDS = (
    "numpy<2",
    "opencv-python-headless>=4.10,<4.12",
    "pydantic>=2.9",
    "safetensors>=0.5",
    "typer>=0.15",
    "rich>=13",
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with pynq, and with this edgemtl from the wheel that `edgemtl deploy` writes."""
    folder = cache() / f"{PYNQ.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    made = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        command = [str(made), "-m", "pip", "install", "--quiet", PYNQ, *NEEDS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            pytest.skip(f"{PYNQ} cannot be installed: {lines[0].removeprefix('ERROR: ')}; is the index reachable?")
        (folder / "ready").touch()
    wheel = deploy.driver_wheel(tmp_path_factory.mktemp("wheel"))
    command = [str(made), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    subprocess.run(command, check=True)
    return made


@pytest.mark.slow
def test_the_unmodified_driver_under_stock_pynq(python: Path, bundle_file: Path, tmp_path: Path) -> None:
    if reason := simulation.obstacle():
        pytest.skip(reason)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 7967)) == 0:
            pytest.skip("port 7967, which pynq uses, is taken")
    script = Path(__file__).parent / "stock_pynq.py"
    command = [str(python), str(script), str(bundle_file), str(simulation.library()), str(tmp_path / "board")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("device") == "RemoteDevice of pynq 4.0.0"
    assert len(found) >= 13
    assert {k: v for k, v in found.items() if v != "ok"} == {}
