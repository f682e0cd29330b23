"""`compile_bundle` as a whole: what is in the file, tasks left out, and everything that can go wrong."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgemtl.bundle.manifest import Preprocess
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError, CheckpointError, CompileError, ConfigError, EdgeMTLError, TaskError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl_compiler import compile_bundle, goldens, toolchain
from edgemtl_compiler.cpu import program, targets
from edgemtl_compiler.cpu.targets import Target
from edgemtl_compiler.onnx import export as onnx_export


def test_the_manifest_says_what_was_built(bundle: Path, micro: Any) -> None:
    with Bundle.open(bundle) as opened:
        manifest = opened.manifest
    cpu = next(p for p in manifest.programs if p.backend == program.BACKEND)
    target = targets.resolve("cpu")
    assert (cpu.target, cpu.needs, cpu.machine) == (target.name, target.needs, target.machine)
    assert set(cpu.functions) == {"prefix", *micro.config.task_names}
    assert cpu.functions["prefix"].inputs == ((1, 3, 32, 64),)
    assert cpu.functions["prefix"].outputs == cpu.functions["depth"].inputs == ((1, 9, 32),)
    assert cpu.functions["depth"].outputs == ((1, 1, 8, 16),)
    assert set(cpu.built_with) == {"apache-tvm", "apache-tvm-ffi", "c++"}
    onnx = next(p for p in manifest.programs if p.backend == onnx_export.BACKEND)
    assert set(onnx.functions) == set(micro.config.task_names)
    assert onnx.functions["depth"].inputs == ((1, 3, 32, 64),)
    assert not onnx.functions["depth"].params
    assert manifest.golden is not None
    assert manifest.golden.count == 2


def test_some_tasks_alone(micro: Any, tmp_path: Path) -> None:
    """Experts that no kept task may choose are left out, and the outputs stay the same."""
    built = compile_bundle(
        micro.model, tmp_path / "two.edgemtl", tasks=("normals", "depth"), preprocess=Preprocess(fill=3)
    )
    assert max(built.errors[targets.resolve("cpu").name].values()) < 2e-6
    with Bundle.open(built.path) as opened:
        config = opened.manifest.model
        assert opened.manifest.preprocess.fill == 3
        assert set(opened.parts["experts.1"]) == {"0", "2", "3", "4", "5"}
    assert config.task_names == ("depth", "normals")  # in the model's order
    assert config.slots == ((0, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5))
    assert config.paths == {t: micro.config.paths[t] for t in ("depth", "normals")}


def test_the_model_given_is_left_as_it_was(tmp_path: Path) -> None:
    model = MultiTaskViT(preset("micro", depth=2)).double().train()
    compile_bundle(model, tmp_path / "m.edgemtl", tasks=("depth",))
    assert model.training
    assert next(model.parameters()).dtype == torch.float64


def test_a_checkpoint_file(micro: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Through the command line, with its origin; the figures are printed for people and as JSON."""
    save_checkpoint(tmp_path / "micro.safetensors", micro.model, origin="random weights")
    out = tmp_path / "micro.edgemtl"
    said = cli(
        "compile", tmp_path / "micro.safetensors", "--tasks", "depth, edge", "--letterbox", "--name", "x1", "-o", out
    )
    assert said.code == 0, said.err
    assert "largest relative error: depth" in said.out
    with Bundle.open(out) as opened:
        manifest = opened.manifest
    assert (manifest.name, manifest.origin, manifest.preprocess.mode) == ("x1", "random weights", "letterbox")
    assert manifest.model.task_names == ("depth", "edge")
    said = cli("compile", tmp_path / "micro.safetensors", "--tasks", "depth", "--json", "-o", out)
    assert '"max_relative_error"' in said.out


class TestErrors:
    """One sentence, exit code 2, and no file left behind."""

    @pytest.fixture
    def fails(self, micro: Any, tmp_path: Path) -> Callable[..., str]:
        def call(error: type[EdgeMTLError] = CompileError, model: Any = None, **arguments: Any) -> str:
            with pytest.raises(error) as caught:
                compile_bundle(micro.model if model is None else model, tmp_path / "x.edgemtl", **arguments)
            assert not list(tmp_path.iterdir())
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return call

    def test_targets(self, fails: Any) -> None:
        assert "there is no target 'gpu' (did you mean cpu?); choose cpu, x86_64, aarch64" in fails(
            targets=("cpu", "gpu")
        )
        assert "no target was asked for" in fails(targets=())

    def test_tasks(self, fails: Any) -> None:
        assert "there is no task 'sleep'; this model has semseg" in fails(TaskError, tasks=("sleep",))
        assert "no task was asked for" in fails(TaskError, tasks=())

    def test_name(self, fails: Any) -> None:
        assert "'a/b' cannot be a bundle's name" in fails(name="a/b")

    def test_checkpoint(self, fails: Any) -> None:
        assert "there is no checkpoint" in fails(CheckpointError, model="nothing.safetensors")

    def test_a_hybrid_where_it_has_no_program(self, fails: Any) -> None:
        model = MultiTaskViT(preset("hybrid", image_size=(32, 48), depth=1))
        assert "no program for zcu104 yet" in fails(model=model, calibrate=Path(__file__).parent, targets=("zcu104",))

    def test_a_setting_for_training(self, fails: Any) -> None:
        model = MultiTaskViT(preset("micro", router="dselect_k", experts=8))
        assert "router dselect_k is for training alone" in fails(ConfigError, model=model)

    def test_folder(self, micro: Any, tmp_path: Path) -> None:
        with pytest.raises(CompileError, match="there is no folder"):
            compile_bundle(micro.model, tmp_path / "no" / "x.edgemtl")

    def test_full_disk(self, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from edgemtl.bundle import writer

        def full(path: Path, image: Any) -> None:
            path.write_bytes(b"part")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writer, "_store", full)
        assert "No space left on device" in fails(BundleError, tasks=("depth",))

    def test_a_wrong_program_is_not_written(self, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        right = program.Runner.__call__

        def wrong(self: program.Runner, arrays: Any) -> list[Any]:
            return [out * np.float32(1.001) for out in right(self, arrays)]

        monkeypatch.setattr(program.Runner, "__call__", wrong)
        assert "program of 'depth' differs from the reference by" in fails(tasks=("depth",))

    def test_no_compiler(self, fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
        assert "apt-get install g++" in fails()

    def test_a_failing_compiler(self, tmp_path: Path) -> None:
        broken = Target("broken", "x86_64", ("no-such-feature",))
        with pytest.raises(CompileError, match="compiling the kernels for broken failed: .*no-such-feature"):
            toolchain.compile_kernels(broken, (), tmp_path / "x.o")

    def test_tvm_is_missing_or_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from edgemtl_compiler.cpu import tvm_adapter

        monkeypatch.setattr(tvm_adapter, "version", lambda name: "0.31.0")
        with pytest.raises(CompileError, match=r"apache-tvm 0.31.0 is not 0.27.x, which this compiler needs"):
            tvm_adapter.versions()

        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(tvm_adapter, "version", missing)
        with pytest.raises(CompileError, match="apache-tvm is not installed"):
            tvm_adapter.versions()

    def test_cli(self, tmp_path: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        said = cli("compile", tmp_path / "no.safetensors", "-o", tmp_path / "x.edgemtl")
        assert (said.code, said.out) == (2, "")
        assert "there is no checkpoint" in said.err
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        for more, package in (((), "tvm"), (("--target", "onnx"), "onnx")):
            said = cli("compile", tmp_path / "no.safetensors", "-o", tmp_path / "x.edgemtl", *more)
            assert said.code == 2
            assert f"{package} not installed; compiling needs it: pip install" in said.err


def test_default_golden_images_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset("micro")
    monkeypatch.setattr(goldens.importlib.util, "find_spec", lambda name: None)  # without the renderer
    first, again = goldens.default_images(config), goldens.default_images(config)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (32, 64, 3)
    assert first[0].std() > 20


def test_values_that_are_not_finite_never_pass() -> None:
    with pytest.raises(CompileError, match="differs from the reference by inf"):
        goldens.check("x", np.array([np.nan]), np.array([1.0]), 1e-4)


BLOCKED = """
import sys
for name in ("torch", "onnxscript", "torchvision"):
    sys.modules[name] = None  # an import of it fails
from edgemtl.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("target", ["cpu", "onnx"])
def test_float32_needs_no_torch(micro: Any, tmp_path: Path, target: str) -> None:
    checkpoint, out = tmp_path / "m.safetensors", tmp_path / "m.edgemtl"
    save_checkpoint(checkpoint, micro.model)
    command = [sys.executable, "-c", BLOCKED, "compile", str(checkpoint), "--target", target, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Bundle.open(out) as opened:
        assert len(opened.manifest.programs) == 1
