"""One bundle on several kinds of x86 CPU, emulated: each takes the program it can run, and an old one refuses."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.runtime import cpu
from edgemtl_compiler import compile_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86_64 host"),
    pytest.mark.skipif(
        not shutil.which("qemu-x86_64-static"), reason="needs qemu-x86_64: apt-get install qemu-user-static"
    ),
    pytest.mark.skipif(cpu.asked_features() is None, reason="needs glibc 2.33 or newer, which tells CPU features"),
]

RUN = """
import sys
sys.modules["torch"] = None  # not needed, and slow to import here
import numpy as np
import edgemtl
from safetensors.numpy import load
try:
    with edgemtl.load(sys.argv[1], "tvm-cpu", tasks="depth", threads=1) as engine:
        golden = engine.manifest.golden
        image, want = (load(engine._bundle.read(n))["0"] for n in (golden.inputs, golden.outputs["depth"]))
        error = float(np.abs(engine.raw(image)["depth"] - want).max() / np.abs(want).max())
        print(engine.program.target, error <= golden.tolerance)
except edgemtl.errors.BackendError as e:
    print(e)
"""


@pytest.fixture(scope="module")
def path(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("x86") / "micro.edgemtl"
    frames = list(np.random.default_rng(5).integers(0, 256, (1, 40, 70, 3), np.uint8))
    compile_bundle(micro.model, path, targets=["x86_64"], tasks=["depth"], golden_images=frames)
    return path


def said(model: str, path: Path, **variables: str) -> str:
    command = ["qemu-x86_64-static", "-cpu", model, sys.executable, "-c", RUN, str(path)]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr  # an illegal instruction would be a signal
    return done.stdout.strip()


def test_a_cpu_with_avx2_runs_that_program(path: Path) -> None:
    assert said("Haswell", path) == "x86_64-avx2 True"


def test_a_cpu_without_avx_refuses(path: Path) -> None:
    answer = said("Nehalem", path)
    assert answer.startswith("none of the bundle's programs for tvm-cpu can run here: x86_64-avx512 needs avx2, ")
    assert answer.endswith("x86_64-avx2 needs avx2, f16c, fma, which this CPU lacks")


def test_asking_for_too_much_is_refused_too(path: Path) -> None:
    answer = said("Haswell", path, EDGEMTL_TARGET="x86_64-avx512")
    assert answer.startswith("the program that was asked for cannot run here: x86_64-avx512 needs avx512bw, ")
