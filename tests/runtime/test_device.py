"""A device: edgemtl's own requirements and the packed runtime, and nothing of what built the bundle."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime import pack, tvm_light

needs_tvm = pytest.mark.skipif(tvm_light.unusable() is not None, reason=str(tvm_light.unusable()))


def requirements(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """Into `found`: the distribution and all that it requires without extras."""
    if name in found:
        return
    found[name] = importlib.metadata.distribution(name)
    for line in found[name].requires or ():
        if ";" not in line:  # markers are for extras, other systems and older Pythons
            requirements(re.match(r"[A-Za-z0-9_.\-]+", line)[0].lower().replace("_", "-"), found)  # type: ignore[index]


def place(source: Path, to: Path) -> None:
    """The files under another name; OpenCV refuses to be imported through a symbolic link."""

    def link(a: str, b: str) -> None:
        try:
            os.link(a, b)
        except OSError:
            shutil.copy2(a, b)

    if source.is_dir():
        shutil.copytree(source, to, copy_function=link)
    else:
        link(str(source), str(to))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> pack.Packed:
    return pack.pack(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, packed: pack.Packed) -> Path:
    """Site-packages of a device: the installed requirements, and the two wheels as pip installs them."""
    site = tmp_path_factory.mktemp("device") / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(site)]
    done = subprocess.run([*command, *map(str, packed.wheels)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, importlib.metadata.Distribution] = {}
    requirements("edgemtl", found)
    for name, distribution in found.items():
        for top in {file.parts[0] for file in distribution.files or () if ".." not in file.parts}:
            if not top.startswith("__editable__") and top != "__pycache__":
                place(Path(str(distribution.locate_file(top))), site / top)
        if name == "edgemtl" and not (site / "edgemtl").exists():
            place(Path(pack.__file__).parents[1], site / "edgemtl")
    assert not {"torch", "tvm", "onnx", "edgemtl_compiler"} & {p.name for p in site.iterdir()}
    return site


RUN = """
import sys, time, json
begin = time.perf_counter()
site, path = sys.argv[1:]
sys.path.insert(0, site)
def watch(event, args):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork"):
        raise RuntimeError(f"a program was started: {event} {args}")
sys.addaudithook(watch)
import importlib.util
import numpy as np
import edgemtl
assert not [m for m in ("torch", "tvm", "onnx", "onnxruntime", "edgemtl_compiler") if importlib.util.find_spec(m)]
from safetensors.numpy import load
imported = time.perf_counter()
errors = {}
with edgemtl.load(path, threads=1) as engine:
    assert engine.backend == "tvm-cpu", engine.why
    golden = engine.manifest.golden
    images = load(engine._bundle.read(golden.inputs))
    for task in engine.tasks:
        engine.activate(task)
        wanted = load(engine._bundle.read(golden.outputs[task]))
        errors[task] = max(float(np.abs(engine.raw(i)[task] - wanted[n]).max() / np.abs(wanted[n]).max())
                           for n, i in images.items())
    loaded = time.perf_counter()
    engine(np.zeros((48, 80, 3), np.uint8))
from edgemtl.runtime import tvm_light
with open("/proc/self/maps") as maps:
    libraries = sorted({l.split()[-1] for l in maps if "tvm" in l and ".so" in l})
print(json.dumps({"errors": errors, "tolerance": golden.tolerance, "libraries": libraries,
                  "modules": sorted(m for m in sys.modules if m.split(".")[0] in ("torch", "tvm", "onnx")),
                  "source": tvm_light.source(), "seconds": [imported - begin, loaded - imported]}))
"""


@needs_tvm
def test_a_bundle_runs_with_nothing_but_the_runtime(device: Path, bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(bundle) as opened:
        assert any(p.backend == "tvm-cpu" for p in opened.manifest.programs)
    command = [sys.executable, "-I", "-S", "-c", RUN, str(device), str(bundle)]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["errors"]) == {"semseg", "depth", "normals", "edge"}
    assert max(report["errors"].values()) <= report["tolerance"]
    assert report["modules"] == []
    assert report["source"][0] == "edgemtl-tvm-runtime"
    assert [p for p in report["libraries"] if p.endswith("libtvm_runtime.so")] == [
        str(device / tvm_light.PACKAGE / tvm_light.LIBRARY)
    ]
    assert not any("compiler" in p for p in report["libraries"])


@needs_tvm
def test_the_runtime_is_small_and_carries_its_licences(packed: pack.Packed) -> None:
    runtime, ffi = packed.wheels
    assert runtime.name == (
        f"edgemtl_tvm_runtime-{importlib.metadata.version('apache-tvm')}-py3-none-manylinux_2_28_{platform.machine()}.whl"
    )
    assert runtime.stat().st_size + ffi.stat().st_size < 8e6
    with zipfile.ZipFile(runtime) as z:
        names = set(z.namelist())
        assert b"Apache License" in z.read("edgemtl_tvm_runtime/LICENSE")
        assert b"Apache Software Foundation" in z.read("edgemtl_tvm_runtime/NOTICE")
    assert {n for n in names if n.endswith(".so")} == {"edgemtl_tvm_runtime/libtvm_runtime.so"}


@needs_tvm
def test_the_same_wheel_every_time(packed: pack.Packed, tmp_path: Path) -> None:
    again = pack.pack(tmp_path / "new" / "folder")
    assert [w.read_bytes() for w in again.wheels] == [w.read_bytes() for w in packed.wheels]


@needs_tvm
def test_the_packed_runtime_comes_before_tvm(
    device: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Any]
) -> None:
    assert tvm_light.source()[0] == "apache-tvm"
    monkeypatch.syspath_prepend(str(device))
    assert tvm_light.source()[0] == "edgemtl-tvm-runtime"
    assert tvm_light.library() == device / tvm_light.PACKAGE / tvm_light.LIBRARY
    report = json.loads(cli("doctor", "--json").out)["tvm_runtime"]
    assert (report["package"], report["path"]) == ("edgemtl-tvm-runtime", str(tvm_light.library()))
    assert report["bytes"] == tvm_light.library().stat().st_size > 1e6
    assert "TVM runtime: edgemtl-tvm-runtime 0.27" in cli("doctor").out


@needs_tvm
def test_pack_by_command(cli: Callable[..., Any], tmp_path: Path) -> None:
    said = cli("runtime", "pack", "-o", tmp_path / "device")
    assert said.code == 0
    assert "pip install --no-index --find-links device edgemtl-tvm-runtime" in said.out
    assert len(list((tmp_path / "device").glob("*.whl"))) == 2
    said = json.loads(cli("runtime", "pack", "-o", tmp_path / "device", "--json").out)
    assert said["wheels"] == {str(w): w.stat().st_size for w in (tmp_path / "device").glob("*.whl")}


@needs_tvm
def test_wrong_requests(cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for args, words in (
        (("-o", tmp_path, "--machine", "riscv64"), "no TVM runtime for machine 'riscv64'; choose x86_64 or aarch64"),
        (("-o", tmp_path, "--python", "2.7"), "--python takes a version such as 3."),
        (("-o", tmp_path / "file"), "is a file; give a folder to write wheels to"),
    ):
        said = cli("runtime", "pack", *args)
        assert (said.code, said.out) == (2, "")
        assert words in said.err
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in (("PIP_NO_INDEX", "1"), ("EDGEMTL_CACHE", str(tmp_path / "cache"))):
        monkeypatch.setenv(name, value)
    other = "x86_64" if platform.machine() == "aarch64" else "aarch64"
    said = cli("runtime", "pack", "-o", tmp_path, "--machine", other)
    assert (said.code, said.out) == (2, "")
    assert re.search(rf"apache-tvm-ffi==\S+ for Python 3\.\d+ on {other} could not be downloaded: ", said.err)
    assert "is the package index reachable?" in said.err


def test_without_tvm_there_is_nothing_to_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(BackendError, match=r"apache-tvm is not installed, .*: pip install \"edgemtl\[cpu\]\""):
        pack.pack(tmp_path)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.28.0")
    with pytest.raises(BackendError, match=r"apache-tvm 0.28.0 is installed, this edgemtl needs 0.27.x"):
        pack.pack(tmp_path)
    shutil.rmtree(tmp_path)
