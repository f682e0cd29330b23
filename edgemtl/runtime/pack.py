"""What a device needs of TVM, as two small wheels: TVM's runtime library alone, and apache-tvm-ffi, which calls it.

The `apache-tvm` package is 300 MB, nearly all of it the compiler. A device only runs programs: for that it needs
libtvm_runtime.so (3 MB). `pack` takes it, with TVM's licence texts, from the installed package or, for another machine,
from the wheel of the same release on the package index, and makes a wheel of it that pip installs like any other.
`edgemtl/runtime/tvm_light.py` looks for it first.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgemtl.errors import BackendError
from edgemtl.runtime.tvm_light import INSTALL, LIBRARY, PACKAGE, SUPPORTED

TVM, FFI = "apache-tvm", "apache-tvm-ffi"
MACHINES = ("x86_64", "aarch64")
_GLIBCS = ("2_28", "2_27", "2_24", "2_17")  # wheels for these run wherever the newest, the runtime's own, does

_METADATA = """Metadata-Version: 2.4
Name: edgemtl-tvm-runtime
Version: {version}
Summary: The runtime library of Apache TVM {version}, without the compiler, for edgemtl
License-Expression: Apache-2.0
Home-page: https://tvm.apache.org/
Requires-Dist: {ffi}=={ffi_version}
"""
_MODULE = '''"""The runtime library of Apache TVM, unchanged; see LICENSE and NOTICE beside this file."""\n'''


@dataclass(frozen=True)
class Packed:
    """Wheels that were written, and what their files take once installed."""

    wheels: tuple[Path, ...]
    installed: int  # bytes


def cache() -> Path:
    """Where downloads are kept: $EDGEMTL_CACHE, or ~/.cache/edgemtl."""
    return Path(os.environ.get("EDGEMTL_CACHE") or Path.home() / ".cache" / "edgemtl")


def pack(out: Path, machine: str | None = None, python: str | None = None) -> Packed:
    """Write the two wheels for `machine` (default: this one) and Python `python`, such as "3.11" (default: this one's)
    into the folder `out`. Raises BackendError: an unknown machine, no TVM to take it from, no package index.
    """
    machine = machine or platform.machine()
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = python or here
    if machine not in MACHINES:
        raise BackendError(f"there is no TVM runtime for machine {machine!r}; choose {' or '.join(MACHINES)}")
    if not (python.startswith("3.") and python[2:].isdigit()):
        raise BackendError(f"--python takes a version such as {here}, not {python!r}")
    if out.exists() and not out.is_dir():
        raise BackendError(f"{out} is a file; give a folder to write wheels to")
    out.mkdir(parents=True, exist_ok=True)
    versions = {name: _version(name) for name in (TVM, FFI)}
    if (machine, python) == (platform.machine(), here):
        ffi = _installed_wheel(FFI, out)
        files = dict(_runtime_files(_installed(TVM)))
    else:
        ffi = _download(f"{FFI}=={versions[FFI]}", machine, python, out)
        found = _download(f"{TVM}=={versions[TVM]}", machine, python, cache() / "wheels")
        with zipfile.ZipFile(found) as z:
            files = dict(_runtime_files((name, z.read(name)) for name in z.namelist() if _wanted(name)))
    if LIBRARY not in {Path(name).name for name in files}:
        raise BackendError(f"{TVM} {versions[TVM]} holds no {LIBRARY}; install another build of it: {INSTALL}")
    tag = f"py3-none-manylinux_{_GLIBCS[0]}_{machine}"
    metadata = _METADATA.format(version=versions[TVM], ffi=FFI, ffi_version=versions[FFI])
    runtime = write_wheel(out, PACKAGE, versions[TVM], (tag,), {**files, "METADATA": metadata.encode()})
    return Packed((runtime, ffi), sum(i.file_size for w in (runtime, ffi) for i in zipfile.ZipFile(w).infolist()))


def _version(name: str) -> str:
    """The installed release, which bundles are made and checked with."""
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise BackendError(f"{name} is not installed, and a runtime of the same release is packed: {INSTALL}") from None
    if name == TVM and not found.startswith(SUPPORTED):
        raise BackendError(f"{name} {found} is installed, this edgemtl needs {SUPPORTED}x: {INSTALL}")
    return found


def _wanted(name: str) -> bool:
    """Whether a file of TVM's package belongs to the runtime: the library, and the texts that must go with it."""
    return name in (f"tvm/lib/{LIBRARY}", "tvm/LICENSE", "tvm/NOTICE") or name.startswith("tvm/licenses/LICENSE")


def _runtime_files(files: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """The wheel's package, from those files of TVM's."""
    yield f"{PACKAGE}/__init__.py", _MODULE.encode()
    for name, data in files:
        if _wanted(name):
            path = name.removeprefix("tvm/").removeprefix("lib/")
            yield f"{PACKAGE}/{path}", data


def _installed(name: str) -> Iterator[tuple[str, bytes]]:
    """Files of an installed package that a wheel would hold: no scripts, no byte code, nothing of the installer's."""
    for file in importlib.metadata.distribution(name).files or ():
        parts = file.parts
        if ".." in parts or "__pycache__" in parts or parts[-1] in ("INSTALLER", "REQUESTED", "direct_url.json"):
            continue
        yield file.as_posix(), Path(str(file.locate())).read_bytes()


def _installed_wheel(name: str, out: Path) -> Path:
    """The wheel that an installed package came from, written anew."""
    version, package = importlib.metadata.version(name), name.replace("-", "_")
    info, files, tags = f"{package}-{version}.dist-info/", {}, []
    for path, data in _installed(name):
        if path == f"{info}WHEEL":
            tags = [line.split()[1] for line in data.decode().splitlines() if line.startswith("Tag:")]
        elif path != f"{info}RECORD":
            files[path.removeprefix(info)] = data
    return write_wheel(out, package, version, tuple(tags), files)


def write_wheel(out: Path, package: str, version: str, tags: tuple[str, ...], files: dict[str, bytes]) -> Path:
    """A wheel of `files`; those without a folder, and `licenses/`, are metadata. The same files give the same bytes."""
    info = f"{package}-{version}.dist-info"
    lines = "".join(f"Tag: {tag}\n" for tag in tags)
    pure = str(tags == ("py3-none-any",)).lower()
    files = {**files, "WHEEL": f"Wheel-Version: 1.0\nGenerator: edgemtl\nRoot-Is-Purelib: {pure}\n{lines}".encode()}
    inside = {n if "/" in n and not n.startswith("licenses/") else f"{info}/{n}": data for n, data in files.items()}
    record = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in inside.items()]
    inside[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    python, abi = tags[0].split("-")[:2]
    platforms = ".".join(dict.fromkeys(tag.split("-")[2] for tag in tags))
    path = out / f"{package}-{version}-{python}-{abi}-{platforms}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in inside.items():
            z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _download(requirement: str, machine: str, python: str, folder: Path) -> Path:
    """The wheel of `requirement` for another machine or Python, from the package index that pip is set up for."""
    folder.mkdir(parents=True, exist_ok=True)
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*{machine}.whl"
    tag = "cp" + python.replace(".", "")
    for held in sorted(folder.glob(pattern)):
        if f"-{tag}-" in held.name or "-py3-" in held.name:
            return held
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, "--dest", str(folder), requirement]
    command += [f"--platform=manylinux_{glibc}_{machine}" for glibc in _GLIBCS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [held for held in folder.glob(pattern) if f"-{tag}-" in held.name or "-py3-" in held.name]
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip found no such wheel"]
        raise BackendError(
            f"{requirement} for Python {python} on {machine} could not be downloaded:"
            f" {lines[0].removeprefix('ERROR: ')}; is the package index reachable?"
        )
    return found[0]
