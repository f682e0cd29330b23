"""The C++ compiler: finds it, and compiles the kernels once per target and process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgemtl.errors import CompileError
from edgemtl_compiler.targets import Target

KERNELS = Path(__file__).parent / "kernels"
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-ffp-contract=fast")
# Two programs with different kernels share a process: nothing of one may be taken for the other's.
HIDDEN = ("-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-gnu-unique")


def find_compiler() -> str:
    """Path of the C++ compiler: $CXX, or g++. Raises CompileError when there is none."""
    for name in (os.environ.get("CXX"), "g++"):
        if name and (path := shutil.which(name)):
            return path
    raise CompileError("no C++ compiler was found; install one with: apt-get install g++")


def compiler_version() -> str:
    """For the record, such as "g++ 12.2.0"."""
    compiler = find_compiler()
    found = subprocess.run([compiler, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, check=False)
    return f"{Path(compiler).name} {found.stdout.split()[0] if found.stdout.split() else 'of unknown version'}"


@contextlib.contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns whatever a tool raises into a CompileError of one sentence: `what`, and the tool's first words."""
    try:
        yield
    except CompileError:
        raise
    except Exception as e:  # the tools have no common class of errors
        words = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise CompileError(f"{what}: {words}") from e


def run(command: list[str], what: str) -> None:
    """Run a compiler. Raises CompileError with its first complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompileError(f"{what} failed: {lines[0] if lines else f'exit code {done.returncode}'}")


def compile_kernels(target: Target, include: tuple[str, ...], out: Path, mode: Sequence[str] = ("-c",)) -> Path:
    """Compile the kernels for `target` to `out`: an object file, or what else the flags of `mode` make of them."""
    paths = [flag for folder in include for flag in ("-isystem", folder)]
    # Source names get into error messages: shorten them, to the same on every machine.
    maps = [f"-ffile-prefix-map={KERNELS}={KERNELS.name}", f"-ffile-prefix-map={sysconfig.get_paths()['purelib']}/="]
    source = str(KERNELS / "exports.cc")
    command = [find_compiler(), *FLAGS, *HIDDEN, *target.cxx_flags, *paths, *maps, *mode, "-o", str(out), source]
    run(command, f"compiling the kernels for {target.name}")
    return out


@functools.cache
def _folder() -> Path:
    """A folder that goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="edgemtl-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def start_kernels(target: Target, include: tuple[str, ...]) -> Future[Path]:
    """Compile the kernels for `target` in the background, once per process."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(compile_kernels, target, include, _folder() / f"{target.name}.o")
    pool.shutdown(wait=False)
    return future


def kernels(target: Target, include: tuple[str, ...]) -> Path:
    """The kernels' object file for `target`; it lives as long as the process."""
    return start_kernels(target, include).result()
