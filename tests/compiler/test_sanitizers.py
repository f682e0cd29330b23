"""The kernels under the compiler's sanitizers: no access out of bounds, no undefined behaviour, no data race."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import emulated
import kernel_library
import pytest

from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu.targets import Target

SOURCE = str(Path(__file__).parent / "sanitize.cc")
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-ffp-contract=fast", "-pthread"]


def build(compiler: str, program: Path, *flags: str) -> None:
    command = [compiler, *FLAGS, *flags, f"-I{toolchain.KERNELS}", "-o", str(program), SOURCE]
    toolchain.run(command, "the test driver")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
@pytest.mark.parametrize("target", kernel_library.ALL, ids=lambda t: t.name)
def test_kernels(sanitizers: str, target: Target, tmp_path: Path) -> None:
    program = tmp_path / "kernels"
    checks = (f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all")
    build(toolchain.find_compiler(), program, "-O1", "-g", *checks, *target.cxx_flags)
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"


@pytest.mark.slow
@pytest.mark.parametrize("target", emulated.TARGETS, ids=lambda t: t.name)
def test_the_same_source_runs_on_aarch64(target: Target, tmp_path: Path) -> None:
    """Compiled for NEON and run by an emulator of the core, where both are installed."""
    if reason := emulated.missing(target):
        pytest.skip(reason)
    program = tmp_path / "kernels"
    build(toolchain.find_compiler(target), program, "-O2", "-static", *target.cxx_flags)
    command = [emulated.EMULATOR, "-cpu", emulated.MODELS[target.name], str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
