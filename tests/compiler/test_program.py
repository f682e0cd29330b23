"""A micro model compiled to programs: equal to PyTorch, complete, without weights inside, needing no compiler."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgemtl.bundle.layout import pack_state
from edgemtl.graph import network
from edgemtl.graph.network import PREFIX
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.cpu import program, targets
from edgemtl_compiler.cpu.program import Built

CPU = targets.resolve("cpu")
Weights = dict[str, dict[str, np.ndarray[Any, Any]]]
Build = Callable[..., Built]


def arrays(weights: Weights, built: Built) -> list[np.ndarray[Any, Any]]:
    return [weights[part][tensor] for part, _, tensor in (ref.partition(":") for ref in built.function.params)]


def relative(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.fixture(scope="session")
def build(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build("depth") compiles a function of the micro model for this machine, or for a target, once."""
    folder, done = tmp_path_factory.mktemp("programs"), {}

    def get(name: str, target: targets.Target = CPU) -> Built:
        if (name, target.name) not in done:
            parts = network(micro.config, "depth" if name == PREFIX else name)
            out = folder / f"{target.name}-{name}.so"
            graph = parts.prefix if name == PREFIX else parts.task
            done[name, target.name] = program.build(graph, target, out)
        return done[name, target.name]

    return get


HERE = [t for t in targets.TARGETS.values() if targets.runs_here(t) and "f32" in t.precisions]


@pytest.mark.parametrize("target", HERE, ids=lambda t: t.name)
def test_every_task_equals_pytorch(micro: Any, build: Build, target: targets.Target) -> None:
    prefix = build(PREFIX, target)
    run_prefix = program.load_function(prefix.path)
    for number, image in micro.inputs.items():
        (tokens,) = run_prefix([image, *arrays(micro.weights, prefix)])
        with torch.inference_mode():
            assert relative(tokens, micro.model.prefix(torch.from_numpy(image)).tokens.numpy()) < 2e-6
        for task in micro.config.task_names:
            built = build(task, target)
            (got,) = program.load_function(built.path)([tokens, *arrays(micro.weights, built)])
            assert built.function.outputs == (got.shape,)
            assert relative(got[0], micro.outputs[task][number]) < 2e-6


def test_threads_change_no_bit(micro: Any, build: Build) -> None:
    prefix, depth = build(PREFIX), build("depth")
    results = []
    for threads in (1, 2, 3):
        first, second = program.load_function(prefix.path), program.load_function(depth.path)
        first.threads = second.threads = threads
        (tokens,) = first([micro.inputs["0"], *arrays(micro.weights, prefix)])
        results += second([tokens, *arrays(micro.weights, depth)])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_only_what_the_task_needs_is_a_parameter(micro: Any, build: Build) -> None:
    refs = build("depth").function.params
    experts = [ref for ref in refs if ref.startswith("experts")]
    assert build("depth").function.fallback == build(PREFIX).function.fallback == {}
    assert experts == [
        f"experts.{b}:{e}" for b, path in zip((1, 3), micro.config.path("depth"), strict=True) for e in path
    ]
    assert not any("semseg" in ref or ref == "trunk:patch_embed" for ref in refs)
    assert {"task.depth:blocks.1.gate", "task.depth:blocks.3.gate", "task.depth:head.out"} < set(refs)
    both = set(refs) | set(build(PREFIX).function.params)
    assert both == {f"{part}:{t}" for part in ("trunk", "task.depth") for t in micro.weights[part]} | set(experts)


def test_weights_are_arguments_not_constants(micro: Any, build: Build) -> None:
    built = build("depth")
    run = program.load_function(built.path)
    tokens = np.random.default_rng(0).standard_normal(built.function.inputs[0], np.float32)
    given = arrays(micro.weights, built)
    (before,) = run([tokens, *given])
    for i, ref in enumerate(built.function.params):
        changed = [a.copy() if j == i else a for j, a in enumerate(given)]
        changed[i][: changed[i].size // 2] += 0.5
        assert not np.array_equal(run([tokens, *changed])[0], before), ref
    np.testing.assert_array_equal(run([tokens, *given])[0], before)


def test_a_program_is_small_and_names_no_machine(build: Build) -> None:
    for name in (PREFIX, "depth"):
        content = build(name).path.read_bytes()
        assert len(content) < 700_000
        for folder in (Path.home(), Path(tempfile.gettempdir()), Path.cwd(), "site-packages"):
            assert folder == Path("/") or str(folder).encode() not in content  # a home of "/" names nothing


def test_a_program_runs_without_the_compiler(micro: Any, build: Build, tmp_path: Path) -> None:
    """In a fresh process with tvm_ffi and libtvm_runtime alone, in the order that program.py documents."""
    built = build("depth")
    tokens = np.random.default_rng(1).standard_normal(built.function.inputs[0], np.float32)
    values = [tokens, *arrays(micro.weights, built)]
    np.savez(tmp_path / "in.npz", *values)
    script = """
        import ctypes, importlib.util, pathlib, sys
        import numpy as np, tvm_ffi
        folder, library = map(pathlib.Path, sys.argv[1:])
        lib = pathlib.Path(importlib.util.find_spec("tvm").submodule_search_locations[0]) / "lib" / "libtvm_runtime.so"
        ctypes.CDLL(str(lib), ctypes.RTLD_GLOBAL)
        module = tvm_ffi.load_module(str(library), keep_module_alive=False)
        vm = module["vm_load_executable"]()
        vm["vm_initialization"](1, 0, 2)
        module.imports_[0]["edgemtl_set_threads"](2)
        with np.load(folder / "in.npz") as given:
            arrays = [given[f"arr_{i}"] for i in range(len(given.files))]
        out = np.from_dlpack(vm["main"](*map(tvm_ffi.from_dlpack, arrays))).copy()
        np.save(folder / "out.npy", out)
        assert "tvm" not in sys.modules
        maps = pathlib.Path("/proc/self/maps").read_text()
        assert "libtvm_compiler" not in maps
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path, built.path], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), program.load_function(built.path)(values)[0])


def test_a_library_leaves_no_thread_behind(micro: Any, build: Build, tmp_path: Path) -> None:
    """Loading, running and dropping a program again and again: its threads end with it."""
    built = build("depth")
    np.savez(tmp_path / "in.npz", np.zeros(built.function.inputs[0], np.float32), *arrays(micro.weights, built))
    script = """
        import json, pathlib, shutil, sys
        import numpy as np
        from edgemtl_compiler.cpu.program import load_function
        folder, library = map(pathlib.Path, sys.argv[1:])
        with np.load(folder / "in.npz") as given:
            arrays = [given[f"arr_{i}"] for i in range(len(given.files))]
        def threads():
            return len(list(pathlib.Path("/proc/self/task").iterdir()))
        before, during = threads(), []
        for i in range(4):
            copy = shutil.copy(library, folder / f"{i}.so")
            run = load_function(copy)
            run.threads = 3
            run(arrays)
            during.append(threads())
            del run
        print(json.dumps([before, during, threads()]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path, built.path],
        check=True,
        timeout=120,
        capture_output=True,
    )
    before, during, after = json.loads(done.stdout)
    assert during == [before + 2] * 4
    assert after == before


def test_a_forked_child_has_threads_of_its_own(micro: Any, build: Build, tmp_path: Path) -> None:
    built = build("depth")
    np.savez(tmp_path / "in.npz", np.ones(built.function.inputs[0], np.float32), *arrays(micro.weights, built))
    script = """
        import os, pathlib, sys
        import numpy as np
        from edgemtl_compiler.cpu.program import load_function
        folder, library = map(pathlib.Path, sys.argv[1:])
        with np.load(folder / "in.npz") as given:
            arrays = [given[f"arr_{i}"] for i in range(len(given.files))]
        run = load_function(library)
        run.threads = 2
        want = run(arrays)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(run(arrays), want) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(run(arrays), want)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path, built.path], check=True, timeout=120)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_shallow_models(depth: int, tmp_path: Path) -> None:
    config = preset("micro", depth=depth)
    torch.manual_seed(depth)
    model = MultiTaskViT(config).eval()
    weights = pack_state(config, {k: v.numpy() for k, v in model.state_dict().items()})
    value = np.random.default_rng(0).standard_normal((1, 3, *config.image_size), np.float32)
    with torch.inference_mode():
        want = model(torch.from_numpy(value), ["depth"])["depth"].numpy()
    parts = network(config, "depth")
    for graph in (parts.prefix, parts.task):
        built = program.build(graph, CPU, tmp_path / f"{graph.name}.so")
        (value,) = program.load_function(built.path)([value, *arrays(weights, built)])
    assert relative(value, want) < 2e-6
