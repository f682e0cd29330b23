"""CUDA programs as the compiler makes them: every launch and weight accounted for, no dense fallback, and code for
every architecture; then a whole bundle, checked in the emulation.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated_gpu
import numpy as np
import pytest
import torch

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError, CompileError
from edgemtl.graph import network
from edgemtl.graph.builder import Builder
from edgemtl.graph.network import PREFIX
from edgemtl.model import MultiTaskViT, preset
from edgemtl.runtime.cuda import driver
from edgemtl.runtime.cuda.plan import Plan, read
from edgemtl_compiler import compile_bundle, programs
from edgemtl_compiler.cuda import TYPES, build, lower, toolchain
from edgemtl_compiler.cuda.ops import attention

needs_nvcc = pytest.mark.skipif(bool(emulated_gpu.no_nvcc()), reason=emulated_gpu.no_nvcc())


@pytest.fixture(scope="module")
def plans(micro: Any) -> dict[str, tuple[Plan, Any]]:
    """Plan and manifest entry of the prefix and two tasks of the micro model."""
    depth, edge = (network(micro.config, task) for task in ("depth", "edge"))
    return {graph.name: build.plan(graph, micro.config, "f16") for graph in (depth.prefix, depth.task, edge.task)}


def kernels(plan: Plan) -> Counter[str]:
    return Counter(launch.kernel for launch in plan.launches)


ATTENTION = {"norm_linear": 1, "attention": 1, "linear_residual": 1}
EXPERTS = {"route": 1, "dispatch": 1, "expert_up": 1, "expert_down": 1, "combine": 1}


def test_launches_are_counted(plans: Any) -> None:
    """Three for an attention, two for a dense MLP, five for experts, however many of them there are."""
    assert kernels(plans[PREFIX][0]) == {
        "patch_embed": 1, "norm_linear": 2, "attention": 2, "linear_residual": 3, "norm_linear_gelu": 1,
    }  # fmt: skip
    for task in ("depth", "edge"):  # a path of 3 experts per block, and all 6
        assert kernels(plans[task][0]) == {
            **{k: 2 * n for k, n in ATTENTION.items()}, "linear_residual": 3, "norm_linear_gelu": 1,
            **{k: 2 * n for k, n in EXPERTS.items()}, "head_project": 1, "separable_step": 2, "to_map": 1,
        }  # fmt: skip


def test_experts_outside_the_path_are_not_in_the_program(plans: Any, micro: Any) -> None:
    plan, function = plans["depth"]
    named = [[function.params[w] for w in table] for table in plan.experts]
    paths = zip((1, 3), micro.config.path("depth"), strict=True)
    assert named == [[f"experts.{block}:{e}" for e in path] for block, path in paths]
    assert [list(t) for t in plan.ints] == [list(path) for path in micro.config.path("depth")]


def test_every_weight_is_an_argument_once(plans: Any) -> None:
    for plan, function in plans.values():
        used = [int(v) for launch in plan.launches for kind, v in launch.args if kind == "weight"]
        used += [w for table in plan.experts for w in table]
        assert sorted(used) == list(range(plan.params)) == list(range(len(function.params)))


def test_a_gate_with_a_bias_takes_the_same_launches(micro: Any, plans: Any) -> None:
    """The bias lies behind the columns of all experts that the whole model holds, so the kernel is told how many."""
    paths = {"depth": micro.config.path("depth")}
    config = preset("micro", gate_bias=True, paths=paths, tasks=micro.config.tasks)
    plan, _ = build.plan(network(config, "depth").task, config, "f16")
    assert kernels(plan) == kernels(plans["depth"][0])
    routes = [launch.args for launch in plan.launches if launch.kernel == "route"]
    assert [[value for kind, value in args if kind == "int"][2:4] for args in routes] == [[6, 3], [6, 3]]


def test_m3vits_decoder_is_nine_launches(micro: Any) -> None:
    """A norm, four convolutions, three doublings, a map: for a batch of two, each grid covers every pixel."""
    options: dict[str, Any] = {"head": "conv", "head_dim": 80, "head_stride": 2, "head_norm": False}
    config = preset("micro", tasks=micro.config.tasks, **options)
    plan, function = build.plan(network(config, "semseg").task, config, "bf16", batch=2)
    head = plan.launches[-9:]
    names = ["normalise_patches", *["conv_relu", "double_map"] * 3, "conv_relu", "to_map"]
    assert [launch.kernel for launch in head] == names
    high, wide = config.grid
    convs = [launch for launch in head if launch.kernel == "conv_relu"]
    for step, launch in enumerate(convs):
        rows, size = 2 * high * wide * 4**step, [high * 2**step, wide * 2**step]
        assert launch.grid == (-(-rows // lower.ROWS), 2, 1)
        numbers = [value for kind, value in launch.args if kind == "int"]
        assert numbers == [rows, config.dim if step == 0 else 80, 80, *size]
    assert function.outputs == ((2, micro.config.task("semseg").channels, 8 * high, 8 * wide),)
    used = [int(v) for launch in plan.launches for kind, v in launch.args if kind == "weight"]
    assert sorted([*used, *(w for table in plan.experts for w in table)]) == list(range(plan.params))


def test_m3vits_own_form_is_computed(tmp_path: Path) -> None:
    """Its decoder with batch norms, and a task-conditioned gate, which becomes one gate per task with a bias."""
    torch.manual_seed(3)
    conv: dict[str, Any] = {"head": "conv", "head_dim": 16, "head_stride": 2, "gate": "conditioned"}
    model = MultiTaskViT(preset("micro", paths={"depth": ((0, 2, 3), (1, 4, 5))}, **conv))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "norm" not in name:
                p.mul_(4)
        model.train()(torch.randn(8, 3, 32, 64))
    built = emulated_gpu.compiled(model.eval(), tmp_path / "m.edgemtl", tasks=["semseg", "depth"])
    assert set(built.errors["sm_90"]) == {"semseg", "depth"}
    assert all(0 < error < 5e-3 for error in built.errors["sm_90"].values())
    with Bundle.open(tmp_path / "m.edgemtl") as bundle:
        assert bundle.manifest.model.gate_bias
        assert {str(p.dtype) for n, p in bundle.parts["task.depth"].items() if ".conv_" in n} == {"float16"}


def test_a_bundle_in_bfloat16(micro: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored as such, checked against the rounded weights, run by the backend, and no CPU target has it."""
    import edgemtl_compiler

    path = tmp_path / "b.edgemtl"
    built = emulated_gpu.compiled(micro.model, path, precision="bf16", tasks=["depth"])
    assert 1e-4 < built.errors["sm_90"]["depth"] < build.TOLERANCE["bf16"] / 2
    with Bundle.open(path, check=True) as bundle:
        (program,) = bundle.manifest.programs
        assert (bundle.manifest.precision, program.tolerance) == ("bf16", build.TOLERANCE["bf16"])
        assert read(bundle.read(program.members["depth"]), "depth").precision == "bf16"
        assert str(bundle.parts["trunk"]["blocks.0.attn.qkv"].dtype) == "uint16"
        image = bundle.golden()[0]["0"]
    maps = []
    with emulated_gpu.installed("bf16", head=16):
        for backend in ("tvm-cuda", "torch"):
            with edgemtl.load(path, backend=backend) as engine:
                engine.activate("depth")
                maps.append(engine.raw(image)["depth"].copy())
    assert 0 < np.abs(maps[0] - maps[1]).max() < build.TOLERANCE["bf16"] / 2 * np.abs(maps[1]).max()
    assert "stored as bfloat16" in cli("inspect", path).out
    refused = cli("run", path, "x.jpg", "--backend", "tvm-cpu")
    assert refused.code == 2
    monkeypatch.setattr(edgemtl_compiler, "compile_bundle", lambda *_, **__: built)
    said = cli("compile", "x.safetensors", "-o", "x.edgemtl", "--target", "cuda", "--precision", "bf16")
    assert "rounding the weights to bfloat16 moved the maps by at most: depth " in said.out


@pytest.mark.parametrize("target", ["cpu", "x86_64", "aarch64-a53"])
def test_no_cpu_target_has_bfloat16(micro: Any, tmp_path: Path, target: str) -> None:
    with pytest.raises(CompileError, match="no CPU target multiplies bf16, which is for GPUs: choose --target cuda"):
        compile_bundle(micro.model, tmp_path / "x.edgemtl", targets=[target], precision="bf16")


def test_work_of_the_experts_grows_with_choices_not_with_experts(micro: Any) -> None:
    """A dense fallback would have blocks for every expert times every token."""
    pairs = micro.config.tokens * micro.config.top_k
    grids = {}
    for experts in (6, 24):
        config = preset("micro", experts=experts, tasks=micro.config.tasks)
        plan, _ = build.plan(network(config, "edge").task, config, "f16")
        grids[experts] = {launch.grid for launch in plan.launches if launch.kernel in ("expert_up", "expert_down")}
    assert grids == {6: {(6, 1, 1)}, 24: {(min(pairs, 24), 1, 1)}}


@pytest.mark.parametrize("counts", [[5, 0, 0], [32, 32, 32], [1, 33, 62], [96, 0, 0], [31, 31, 34]])
def test_the_grid_has_a_block_for_every_tile_of_any_routing(counts: list[int]) -> None:
    pairs = sum(counts)
    assert sum(-(-c // lower.ROWS) for c in counts) <= min(pairs, pairs // lower.ROWS + len(counts))


def mlp(b: Builder, name: str, x: str) -> str:
    y = b(f"{name}.norm", "layernorm", x, eps=1e-6, skip=0)
    y = b(f"{name}.fc1", "linear", y, outputs=128, activation="gelu")
    return b(name, "linear", y, x, outputs=32, activation="none")


def test_tensors_that_live_at_once_never_share_bytes(micro: Any) -> None:
    """Over a chain with an early tensor that is needed late; sizes of all kinds."""
    b = Builder({"x": (9, 32)})
    first = x = mlp(b, "0", "x")
    for i in range(1, 4):
        x = mlp(b, f"{i}", x)
    plan, _ = build.plan(b.graph("chain", mlp(b, "4", first)), micro.config, "f32")
    wide, narrow = 9 * 128 * 4, 9 * 32 * 4
    values: dict[int, str] = {}  # byte -> who wrote it last
    wanted: dict[int, str] = {}
    for number, launch in enumerate(plan.launches):
        rest, up = [a for a in launch.args if a[0] in ("scratch", "input", "output")], number % 2 == 0
        *sources, (kind, at) = rest
        for source in sources:
            if source[0] == "scratch":
                size = narrow if up or source is not sources[0] else wide
                owners = {values[b] for b in range(int(source[1]), int(source[1]) + size)}
                assert len(owners) == 1, f"launch {number} reads what several wrote"
        if kind == "scratch":
            size = wide if up else narrow
            values |= dict.fromkeys(range(int(at), int(at) + size), f"{number}")
    first = plan.launches[1].args[3]  # what the last operation reads again
    assert plan.launches[-2].args[0] == plan.launches[-1].args[2] == first
    assert {values[b] for b in range(int(first[1]), int(first[1]) + narrow)} == {"1"}
    assert not wanted
    assert plan.scratch < 4 * narrow + wide


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"heads": 4},
            r"blocks\.0\.attn\.heads \(attention\): dim / heads is 8; .* have heads of 16, 32, 64, 128 values",
        ),
        (
            {"mlp_ratio": 1.25},
            r"blocks\.0\.mlp\.fc1 \(linear\): rows of 40 values; the CUDA kernels need multiples of 16",
        ),
        ({"expert_ratio": 0.75}, r"blocks\.1\.experts \(experts\): rows of 24 values"),
        ({"head_dim": 24}, r"head\.step0 \(separable_step\): rows of 24 values"),
        ({"dim": 4096, "heads": 32, "experts": 4096}, "more than the 101376 that every GPU has"),
    ],
)
def test_a_shape_without_kernels(micro: Any, changes: dict[str, Any], message: str) -> None:
    config = preset("micro", tasks=micro.config.tasks, **changes)
    with pytest.raises(CompileError, match=f"target cuda has no kernel for .*{message}"):
        build.plan(network(config, "edge").whole, config, "f16")


def step(b: Builder, name: str, x: str, kernel: int, activation: str) -> str:
    around, point = (kernel // 2, kernel // 2), (1, 1)
    options: dict[str, Any] = {"outputs": 16, "kernel": (kernel, kernel), "padding": (around, around), "groups": 1}
    return b(name, "convolution", x, stride=point, bias=True, activation=activation, **options)


def two_steps(b: Builder) -> str:
    x = b("norm", "layernorm", "x", eps=1e-6, skip=1)
    x = step(b, "step", b("map", "reshape", x, shape=(2, 4, 32)), 3, "relu")
    return step(b, "again", x, 3, "relu")


def tiles_to_step(b: Builder) -> str:
    x = b("norm", "layernorm", "x", eps=1e-6, skip=1)
    x = b("proj", "linear", x, outputs=64, activation="gelu")
    return b("twice", "upsample", b("tiles", "tiles", x, grid=(2, 4), tile=2))


def stored_norm(b: Builder) -> str:
    x = b("norm", "layernorm", "x", eps=1e-6, skip=0)
    return b("map", "reshape", x, shape=(3, 3, 32))


@pytest.mark.parametrize(
    ("build_up", "message"),
    [
        (two_steps, r"again \(convolution\): it reads rounded values, and step has others"),
        (tiles_to_step, r"twice \(upsample\): it reads a map row by row, and proj lies in tiles"),
        (stored_norm, r"map \(reshape\): there is one that stores norm without its first token, and none with it"),
        (lambda b: b("fc", "linear", "x", outputs=32, activation="none"), r"fc \(linear\): there is none that reads x"),
        (lambda b: step(b, "c", two_steps(b), 5, "none"), r"again \(convolution\)"),
        (lambda b: b("sum", "add", "x", "x"), r"the op add, which sum is"),
    ],
)
def test_a_graph_without_kernels(micro: Any, build_up: Callable[[Builder], str], message: str) -> None:
    """Values that a kernel would read wrongly are refused, not read."""
    b = Builder({"x": (9, 32)})
    with pytest.raises(CompileError, match=f"^target cuda has no kernel for {message}"):
        build.plan(b.graph("some", build_up(b)), micro.config, "f16")


def test_what_no_kernel_writes_is_no_output(micro: Any) -> None:
    b = Builder({"x": (9, 32)})
    x, last = mlp(b, "0", "x"), mlp(b, "1", "x")
    with pytest.raises(CompileError, match=r"no kernel that writes 0\.fc1 as the output of some"):
        build.plan(b.graph("some", "0.fc1"), micro.config, "f16")
    with pytest.raises(CompileError, match="programs of one input and one output; some has others"):
        build.plan(b.graph("some", x, last), micro.config, "f16")


def test_the_hybrid_has_no_kernels_yet() -> None:
    config = preset("hybrid", head_norm=False)
    with pytest.raises(
        CompileError, match=r"^target cuda has no kernel for the op inverted_residual, which stem\.blocks"
    ):
        build.plan(network(config, config.task_names[0]).prefix, config, "f16")


def test_what_has_no_kernel_is_refused_before_other_work(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(CompileError, match="the CUDA kernels have heads of"):
        emulated_gpu.compiled(MultiTaskViT(preset("micro", heads=4)), tmp_path / "m.edgemtl", report=said.append)
    assert said == ["reading the model"]


def test_planning_needs_neither_torch_nor_tvm() -> None:
    """Nor anything else that a plan is not made of."""
    code = """
        import sys
        sys.modules.update({name: None for name in ("torch", "tvm", "onnx")})
        from edgemtl.config import ModelConfig
        from edgemtl.graph import network
        from edgemtl_compiler.cuda import build
        tasks = [{"name": "depth", "kind": "depth", "channels": 1}]
        config = ModelConfig(tasks=tasks, dim=64, heads=4, depth=2, experts=4, image_size=(64, 64))
        print(len(build.plan(network(config, "depth").whole, config, "f16")[0].launches))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout) == ("", "18\n")


def test_an_unknown_architecture() -> None:
    with pytest.raises(CompileError, match=r"no GPU architecture 'sm_42' here; choose sm_80, .*sm_90"):
        toolchain.check_arch("sm_42")


def test_cuda_without_a_gpu_needs_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnowhere.so")
    with pytest.raises(CompileError, match="needs the GPU's architecture where there is no GPU: add --arch, one of"):
        build.targets((), "f16")


def test_cuda_has_no_int8() -> None:
    with pytest.raises(CompileError, match="target cuda has no precision int8; choose f32, or f16 or bf16"):
        build.targets(("sm_90",), "int8")


def test_an_architecture_is_for_cuda(micro: Any, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="--arch is for GPUs: add --target cuda"):
        compile_bundle(micro.model, tmp_path / "x.edgemtl", targets=["cpu"], arches=["sm_90"])


def test_nvcc_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVCC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CompileError, match=r"no nvcc was found .*: pip install 'edgemtl\[cuda\]', or install NVIDIA's"):
        toolchain.find_nvcc()
    monkeypatch.setenv("NVCC", "/nowhere/nvcc")
    with pytest.raises(CompileError, match=r"\$NVCC is /nowhere/nvcc, which is not a program"):
        toolchain.find_nvcc()


def test_nvcc_of_the_python_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the PATH's, after $NVCC's."""
    (tmp_path / "nvidia" / "cu13" / "bin").mkdir(parents=True)
    nvcc, other = tmp_path / "nvidia" / "cu13" / "bin" / "nvcc", tmp_path / "nvcc"
    for file in (nvcc, other):
        file.write_text("#!/bin/sh\n")
        file.chmod(0o755)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NVCC", raising=False)
    assert toolchain.find_nvcc() == str(nvcc)
    monkeypatch.setenv("NVCC", str(other))
    assert toolchain.find_nvcc() == str(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"launches": []}, "at least 1 item"),
        ({"scratch": 0}, "names scratch .*, beyond what there is"),
        ({"experts": [[99], [0]]}, "a table of experts names a weight that the function does not have"),
        ({"arch": "sm_x"}, "match pattern"),
        ({"more": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_plan_that_is_none(plans: Any, change: dict[str, Any], message: str) -> None:
    """It comes out of a file: what names bytes or weights that there are not is refused before anything runs."""
    fields = json.loads(plans["depth"][0].model_dump_json()) | change
    with pytest.raises(BundleError, match=f"the program of 'depth' is no launch plan: .*{message}"):
        read(json.dumps(fields).encode(), "depth")


def ptx(arch: str, precision: str, head: int) -> dict[str, str]:
    """What nvcc makes of each kernel."""
    command = [toolchain.find_nvcc(), "-std=c++17", "-O3", f"-arch={arch.replace('sm', 'compute')}", "-ptx"]
    defines = toolchain._defines(precision, head)
    source = str(toolchain.KERNELS / "kernels.cu")
    text = subprocess.run([*command, *defines, "-o", "-", source], capture_output=True, text=True, check=True).stdout
    parts = re.split(r"\.visible \.entry (\w+)\(", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


PRODUCTS = (
    "patch_embed", "norm_linear", "norm_linear_gelu", "head_project", "linear_residual", "attention", "expert_up",
    "expert_down", "separable_step", "conv_relu",
)  # fmt: skip


@needs_nvcc
@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_products_of_16_bits_are_on_tensor_cores(precision: str) -> None:
    made = ptx("sm_90", precision, 64)
    multiply = f"mma.sync.aligned.m16n8k16.row.col.f32.{precision}.{precision}.f32"
    assert {name for name, text in made.items() if multiply in text} == set(PRODUCTS)
    assert all(text.count("mma.sync") == text.count(multiply) for text in made.values())
    assert {n for n, text in made.items() if "cp.async" in text} == set(PRODUCTS) - {"attention"}
    others = {"route", "dispatch", "combine", "to_map", "normalise_patches", "double_map", "prepare"}
    assert {*PRODUCTS, *others} == set(made)
    assert "fma.rn.f32" not in made["prepare"]  # which would round elsewhere than OpenCV


@needs_nvcc
def test_code_for_an_architecture_holds_every_kernel_of_the_plans(plans: Any) -> None:
    code = toolchain.cubin("sm_89", "f16", 16).read_bytes()
    assert code[:4] == b"\x7fELF"
    for plan, _ in plans.values():
        for launch in plan.launches:
            assert f".text.{launch.kernel}\0".encode() in code


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize(
    ("arch", "precision", "head"),
    [(arch, precision, 64) for arch in toolchain.ARCHES for precision in TYPES]
    + [("sm_90", precision, head) for head in attention.HEADS for precision in TYPES],
)
def test_code_for_every_architecture(arch: str, precision: str, head: int) -> None:
    code = toolchain.cubin(arch, precision, head).read_bytes()
    assert all(f".text.{name}\0".encode() in code for name in PRODUCTS)
    assert str(toolchain.KERNELS).encode() not in code


def test_a_bundle_is_checked_in_the_emulation(cuda_bundle: Any) -> None:
    built, path = cuda_bundle
    assert built.targets == built.emulated == ("sm_87", "sm_90")
    for errors in built.errors.values():
        assert set(errors) == {"semseg", "depth", "normals", "edge"}
        assert all(0 < e < 3e-3 for e in errors.values())
    with Bundle.open(path, check=True) as bundle:
        assert bundle.manifest.precision == "f16"
        for program in bundle.manifest.programs:
            assert (program.backend, program.tolerance) == ("tvm-cuda", build.TOLERANCE["f16"])
            assert "nvcc" in program.built_with
            plan = read(bundle.read(program.members["depth"]), "depth")
            assert (plan.arch, plan.precision, plan.head) == (program.target, "f16", 16)
            assert plan.cubin in bundle.entries


def test_a_model_too_large_to_emulate_is_not_checked(
    micro: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built all the same, and the command says so."""
    import edgemtl_compiler

    assert programs.worth_emulating(preset("m3vit-t"))
    assert not programs.worth_emulating(preset("m3vit-s"))
    monkeypatch.setattr(programs, "EMULATED", 0)
    monkeypatch.setattr(toolchain, "emulation", None)
    built = emulated_gpu.compiled(micro.model, tmp_path / "m.edgemtl", tasks=["depth"])
    assert (built.errors, built.emulated) == ({"sm_90": {}}, ())
    monkeypatch.setattr(edgemtl_compiler, "compile_bundle", lambda *_, **__: built)
    said = cli("compile", "x.safetensors", "-o", "x.edgemtl", "--target", "cuda", "--arch", "sm_90")
    assert "programs sm_90 (not checked: it runs elsewhere)" in said.out


def test_the_command_says_what_was_emulated(cli: Any, cuda_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its work, which the test above has done."""
    import edgemtl_compiler

    asked: dict[str, Any] = {}
    done = cuda_bundle[0]
    monkeypatch.setattr(edgemtl_compiler, "compile_bundle", lambda *_, **options: asked.update(options) or done)
    said = cli("compile", "x.safetensors", "-o", "x.edgemtl", "--target", "cuda", "--arch", "sm_87", "--arch", "sm_90")
    assert said.code == 0
    assert "sm_90 (emulated on a CPU, not run on a GPU; largest relative error: " in said.out
    assert (asked["targets"], asked["arches"]) == (("cuda",), ("sm_87", "sm_90"))


def test_inspect_counts_the_code_and_knows_that_there_is_no_gpu(
    cli: Any, cuda_bundle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnowhere.so")
    said = cli("inspect", cuda_bundle[1], "--json")
    programs = json.loads(said.out)["programs"]
    assert [p["cannot_run_here"] for p in programs] == ["no GPU here"] * 2
    with Bundle.open(cuda_bundle[1]) as bundle:
        of_one = [e.size for name, e in bundle.entries.items() if name.startswith("programs/tvm-cuda/sm_90/")]
    assert len(of_one) == 6  # five functions and the code
    assert programs[1]["bytes"] == sum(of_one)
