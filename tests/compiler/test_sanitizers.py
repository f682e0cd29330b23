"""The kernels under the compiler's sanitizers: no access out of bounds, no undefined behaviour, no data race."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu import targets


@pytest.mark.slow
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
@pytest.mark.parametrize("features", [True, False], ids=["best", "plain"])
def test_kernels(sanitizers: str, features: bool, tmp_path: Path) -> None:
    flags = targets.resolve("cpu").cxx_flags if features else ()
    source, program = Path(__file__).parent / "sanitize.cc", tmp_path / "kernels"
    command = [toolchain.find_compiler(), "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    command += ["-ffp-contract=fast", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", *flags]
    toolchain.run([*command, f"-I{toolchain.KERNELS}", "-pthread", "-o", str(program), str(source)], "the test driver")
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"


@pytest.mark.slow
def test_the_same_source_runs_on_aarch64(tmp_path: Path) -> None:
    """Compiled for NEON and run by an emulator, where both are installed."""
    cross, emulator = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64-static")
    if not (cross and emulator):
        pytest.skip("needs: apt-get install g++-aarch64-linux-gnu qemu-user-static")
    source, program = Path(__file__).parent / "sanitize.cc", tmp_path / "kernels"
    flags = ["-std=c++17", "-O2", "-ffp-contract=fast", "-static", "-pthread", f"-I{toolchain.KERNELS}"]
    toolchain.run([cross, *flags, "-o", str(program), str(source)], "cross-compiling")
    done = subprocess.run([emulator, program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
