"""A Python for aarch64 with what a device has, run by qemu's user-mode emulator: Debian's packages and PyPI's wheels.

Everything lies in one folder of edgemtl's cache ($EDGEMTL_CACHE or ~/.cache/edgemtl) and is made once; nothing of the
host is changed, and no root is needed.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from edgemtl.errors import BackendError
from edgemtl.runtime import pack

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EMULATOR = "qemu-aarch64-static"
DEBIAN = (
    f"python{PYTHON}-minimal", f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libc6", "libgcc-s1",
    "libstdc++6", "libcrypt1", "zlib1g", "libexpat1", "libffi8", "liblzma5", "libbz2-1.0", "libuuid1",
)  # fmt: skip
TESTING = ("pytest", "pytest-timeout")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"

APT = """APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "";
Dir::State::lists "{here}/lists";
Dir::State::status "{here}/status";
Dir::Cache "{here}/cache";
"""
# Python finds its executable and libraries by argv[0] and PYTHONHOME, and so starts itself again through this script.
START = """#!/bin/sh
PYTHONHOME={here}/debian/usr PYTHONPATH={here}/site PYTHONDONTWRITEBYTECODE=1 \\
  exec {emulator} -cpu "${{EDGEMTL_TEST_CPU:-cortex-a53}}" -L {here}/debian -0 "$0" \\
  {here}/debian/usr/bin/python{python} "$@"
"""


class MissingError(Exception):
    """Why there can be no such Python here."""


def python() -> Path:
    """The command that starts it, for the core in $EDGEMTL_TEST_CPU (cortex-a53). Raises MissingError."""
    for tool, package in ((EMULATOR, "qemu-user-static"), ("apt-get", "apt"), ("dpkg-deb", "dpkg")):
        if not shutil.which(tool):
            raise MissingError(f"{tool} was not found: apt-get install {package}")
    here = pack.cache() / f"aarch64-python{PYTHON}"
    start, made = here / "python", here / "made"
    recipe = "\n".join((*DEBIAN, *TESTING, CONSTRAINTS.read_text(), APT, START))
    if not (made.exists() and made.read_text() == recipe):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        _debian(here)
        _packages(here / "site", here / "wheels")
        start.write_text(START.format(here=here, emulator=shutil.which(EMULATOR), python=PYTHON))
        start.chmod(0o755)
        made.write_text(recipe)
    return start


def _debian(here: Path) -> None:
    """Python and the C library, unpacked under `debian`."""
    apt, folder = here / "apt", here / "apt" / "packages"
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "apt.conf").write_text(APT.format(here=apt))
    environment = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", *DEBIAN]):
        _run(command, "the arm64 packages of this Debian", cwd=folder, env=environment)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(here / "debian")], f"unpacking {package.name}")
    shutil.rmtree(apt)


def _packages(site: Path, wheels: Path) -> None:
    """What edgemtl requires, for aarch64; the packed runtime; the tests' tools; edgemtl's entry points."""
    try:
        packed = pack.pack(wheels, "aarch64", PYTHON)
    except BackendError as e:
        raise MissingError(str(e)) from e
    requires = importlib.metadata.requires("edgemtl") or []
    needed = [line for line in requires if ";" not in line] + list(TESTING)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site)]
    platforms = [f"--platform=manylinux_{glibc}_aarch64" for glibc in pack._GLIBCS]
    pip += [*platforms, "--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    _run([*pip, "-c", str(CONSTRAINTS), *needed], "the aarch64 wheels")
    _run([*pip, "--no-deps", *map(str, packed.wheels)], "the packed runtime")
    found = importlib.metadata.distribution("edgemtl")
    entry_points = site / f"edgemtl-{found.version}.dist-info"
    entry_points.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (entry_points / name).write_text(found.read_text(name) or "")


def _run(command: list[str], what: str, **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E")] or done.stderr.splitlines()
        raise MissingError(f"{what} could not be had: {lines[0] if lines else f'exit code {done.returncode}'}")
