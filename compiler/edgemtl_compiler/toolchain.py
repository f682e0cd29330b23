"""The C++ compilers: finds them, and compiles the kernels once per target and process."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import platform
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from edgemtl.errors import CompileError
from edgemtl_compiler.cpu.targets import Target

KERNELS = Path(__file__).parent / "cpu" / "kernels"
FLAGS = ("-O2", "-std=c++17", "-fPIC", "-ffp-contract=fast")
# Two programs with different kernels share a process: nothing of one may be taken for the other's.
HIDDEN = ("-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-gnu-unique")


@functools.cache
def kernel_names() -> tuple[str, ...]:
    """The functions that the kernels export, as their sources say."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(KERNELS.glob("exports*")))
    return tuple(dict.fromkeys(re.findall(r"(?:FUNC\(|__tvm_ffi_)(edgemtl_\w+)", text)))


def find_compiler(target: Target | None = None) -> str:
    """Path of the C++ compiler for `target`, by default for this machine: $CXX or g++; for another machine it is a
    cross-compiler, $CXX_AARCH64 or aarch64-linux-gnu-g++. Raises CompileError, with the command that installs it.
    """
    if target is None or target.machine == platform.machine():
        variable, command, package = "CXX", "g++", "g++"
    else:
        variable, command = f"CXX_{target.machine.upper()}", f"{target.triple}-g++"
        package = f"g++-{target.triple.replace('_', '-')}"
    asked = os.environ.get(variable)
    for name in (asked, command):
        if name and (path := shutil.which(name)):
            return path
    what = f"for {target.name} " if target else ""
    gone = f" (${variable} is {asked}, which is not a program)" if asked else ""
    raise CompileError(f"no C++ compiler {what}was found{gone}; install one with: apt-get install {package}")


def compiler_version(target: Target | None = None) -> str:
    """For the record, such as "g++ 12.2.0"."""
    compiler = find_compiler(target)
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
    command = [find_compiler(target), *FLAGS, *HIDDEN, *target.cxx_flags, *paths, *maps, *mode, "-o", str(out), source]
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
