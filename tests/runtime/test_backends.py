"""Backends are found, chosen with a reason, and refused with the command that helps."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.cli.doctor import examine
from edgemtl.errors import BackendError
from edgemtl.runtime import backends, cpu, tvm_light
from edgemtl.runtime.backends.base import FEATURES, Backend


def with_program(path: Path, rezip: Any, **fields: Any) -> Path:
    """The bundle at `path` with one program for tvm-cpu, whose code is no code."""
    with zipfile.ZipFile(path) as z:
        inside = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(inside["manifest.json"])
    io = {"inputs": [[1]], "outputs": [[1]]}
    program = {
        "backend": "tvm-cpu",
        "target": "t",
        "functions": {"prefix": io, "depth": io},
        "members": {"prefix": "programs/p.so", "depth": "programs/p.so"},
        **fields,
    }
    manifest["programs"] = [program]
    path = rezip({**inside, "programs/p.so": b"not a library", "manifest.json": json.dumps(manifest).encode()})
    return Path(path)


def test_names_in_the_order_of_auto() -> None:
    assert backends.names()[:3] == ("tvm-cpu", "onnxruntime", "torch")


@pytest.mark.parametrize("name", backends.names())
def test_every_backend_keeps_the_protocol(name: str) -> None:
    backend = backends.find(name)
    assert backend.name == name
    assert tuple(backend.CAPABILITIES) == FEATURES
    own = [m for m, v in vars(Backend).items() if not m.startswith("_") and (callable(v) or isinstance(v, classmethod))]
    assert len(own) <= 7
    assert backend.maps == (backend.CAPABILITIES["mapped weights"].verdict == "yes")
    counted = backend.maps or name == "tvm-cuda"  # which counts what it allocates on the GPU
    assert counted == (backend.CAPABILITIES["residency"].verdict == "yes")
    assert all(cell.verdict in ("sparse-kept", "yes", "cannot") and cell.note for cell in backend.CAPABILITIES.values())


def test_unknown(plain: Path) -> None:
    with pytest.raises(BackendError, match=r"no backend 'tvm' \(did you mean 'tvm-cpu'\?\); this edgemtl has tvm-cpu"):
        edgemtl.load(plain, "tvm")
    with pytest.raises(BackendError, match="no backend 'zzz'; this edgemtl has"):
        edgemtl.load(plain, "zzz")


@pytest.mark.parametrize(
    ("name", "package", "command"),
    [("onnxruntime", "onnxruntime", "onnx"), ("torch", "torch", "train"), ("tvm-cpu", "apache-tvm", "cpu")],
)
def test_not_installed(plain: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, command: str) -> None:
    def absent(*_: Any) -> Any:
        raise importlib.metadata.PackageNotFoundError(package)

    backends.find(name)  # the module itself is there
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(tvm_light, "version", absent)
    with pytest.raises(BackendError, match=rf'{package} is not installed: pip install "edgemtl\[{command}\]"'):
        edgemtl.load(plain, name)


def test_another_release_of_tvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tvm_light, "source", lambda: ("apache-tvm", "0.28.1"))
    assert tvm_light.unusable() == (
        'apache-tvm 0.28.1 is installed, this edgemtl needs 0.27.x: pip install "edgemtl[cpu]"'
    )


def test_auto_says_what_it_took_and_what_not(plain: Path) -> None:
    with edgemtl.load(plain) as engine:
        assert engine.backend == "torch"
        assert engine.why.startswith("torch is the first that works: ")
        for other in ("tvm-cpu", "onnxruntime"):
            assert f"no program for backend '{other}' (it holds no program at all)" in engine.why


def test_auto_with_nothing_usable(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.find("torch"), "unusable", classmethod(lambda cls: "no torch here"))
    with pytest.raises(BackendError, match=r"no backend can run this bundle: .*'torch' cannot be used here: no torch"):
        edgemtl.load(plain, "auto")


def test_a_cpu_without_the_features(plain: Path, rezip: Any) -> None:
    path = with_program(plain, rezip, needs=["avx1024"])
    with pytest.raises(BackendError, match="none of the bundle's programs .* t needs avx1024, which this CPU lacks"):
        edgemtl.load(path, "tvm-cpu")
    path = with_program(plain, rezip, machine="riscv64")
    with pytest.raises(BackendError, match=f"t is for riscv64, this is {platform.machine()}"):
        edgemtl.load(path, "tvm-cpu")


needs_tvm = pytest.mark.skipif(tvm_light.unusable() is not None, reason=str(tvm_light.unusable()))


@needs_tvm
def test_a_program_that_is_none(plain: Path, rezip: Any) -> None:
    with (
        edgemtl.load(with_program(plain, rezip), "tvm-cpu") as engine,
        pytest.raises(BackendError, match="the program of 'prefix' cannot be loaded"),
    ):
        engine.activate("depth")


@needs_tvm
def test_a_program_without_the_task(plain: Path, rezip: Any) -> None:
    with (
        edgemtl.load(with_program(plain, rezip), "tvm-cpu") as engine,
        pytest.raises(BackendError, match="program t has no function"),
    ):
        engine.activate("edge")


@needs_tvm
def test_a_damaged_program_is_not_loaded(plain: Path, rezip: Any) -> None:
    path = with_program(plain, rezip)
    with Bundle.open(path) as bundle:
        offset = bundle.entries["programs/p.so"].offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with (
        edgemtl.load(path, "tvm-cpu") as engine,
        pytest.raises(Exception, match=r"programs/p.so' is damaged: it differs from its SHA-256"),
    ):
        engine.activate("depth")


@needs_tvm
def test_code_is_written_for_this_user_only_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []

    class Module:
        @staticmethod
        def load_module(path: str, **_: Any) -> None:
            seen.append((Path(path).read_bytes(), os.stat(Path(path).parent).st_mode & 0o777))
            raise RuntimeError("failed to map segment: Operation not permitted\nbacktrace")

        @staticmethod
        def get_global_func(name: str) -> Any:
            raise RuntimeError(f"memory lets no code run either: {name}")

    monkeypatch.setattr(tvm_light, "ffi", lambda: Module)
    with pytest.raises(BackendError, match=r"Operation not permitted; set TMPDIR to a folder .* noexec$"):
        tvm_light.load_library(b"code", "depth")
    assert seen == [(b"code", 0o700)]
    assert list(tmp_path.iterdir()) == []


@needs_tvm
def test_no_folder_for_temporary_files(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task's program is loaded from memory, again and again, and each is its own."""
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    with edgemtl.load(bundle, "tvm-cpu") as engine:
        tasks = [*engine.tasks, *engine.tasks]
        usual = []
        for task in tasks:
            engine.activate(task)
            usual.append(engine(frame)[task].map)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with edgemtl.load(bundle, "tvm-cpu") as engine:
        for task, wanted in zip(tasks, usual, strict=True):
            engine.activate(task)
            np.testing.assert_array_equal(engine(frame)[task].map, wanted)


@needs_tvm
@pytest.mark.parametrize("before", ["", "import torch;"])
def test_tvms_runtime_loads_without_tvm_and_torch(before: str) -> None:
    code = (
        f"import sys, os; {before} had = 'torch' in sys.modules;"
        "from edgemtl.runtime import tvm_light; tvm_light.ffi();"
        "assert 'tvm' not in sys.modules; assert ('torch' in sys.modules) == had;"
        "assert 'TVM_FFI_DISABLE_TORCH_C_DLPACK' not in os.environ"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_choice_is_the_cpu_modules(plain: Path, rezip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: Callable[..., Any] = cpu.best
    seen = []
    monkeypatch.setattr(cpu, "best", lambda programs: seen.append(programs) or chosen(programs))
    if tvm_light.unusable() is None:
        with edgemtl.load(with_program(plain, rezip), "tvm-cpu") as engine:
            assert engine.program is not None
            assert engine.program.target == "t"
            assert "runs on any CPU" in engine.why
        assert len(seen) == 1


def stops() -> None:
    raise SystemExit("no licence")


class Raises(Backend):
    @classmethod
    def unusable(cls) -> str | None:
        raise RuntimeError("no\nreason")


@pytest.mark.parametrize(
    "value", ["no.such:Thing", f"{__name__}:stops", f"{__name__}:Nothing", "os:path", "os:PathLike"]
)
def test_a_broken_package_is_named_and_harms_no_other(value: str, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = backends.entry_points(group=backends.GROUP)
    both = [EntryPoint("theirs", value, backends.GROUP), EntryPoint("torch", value, backends.GROUP)]
    monkeypatch.setattr(backends, "entry_points", lambda group: [*before, *both])
    backends._declared.cache_clear()
    try:
        with pytest.raises(BackendError, match="backend 'theirs' cannot be loaded: "):
            edgemtl.load(plain, "theirs")
        assert "cannot be loaded" in examine()["backends"]["theirs"]["reason"]
        with edgemtl.load(plain, "torch", threads=1) as engine:
            assert engine.backend == "torch"
    finally:
        backends._declared.cache_clear()


def test_a_class_that_raises_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "entry_points", lambda group: [EntryPoint("theirs", f"{__name__}:Raises", group)])
    backends._declared.cache_clear()
    assert examine()["backends"]["theirs"]["reason"] == "RuntimeError: no reason"
    backends._declared.cache_clear()
