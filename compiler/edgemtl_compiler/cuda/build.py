"""The CUDA program of a bundle: a launch plan per function, and one cubin for them all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path

import torch

from edgemtl.bundle.layout import entries
from edgemtl.bundle.manifest import Function, Program
from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError, CompileError
from edgemtl.model.vit import MultiTaskViT
from edgemtl.runtime.cuda import driver
from edgemtl.runtime.cuda.plan import Plan, Precision
from edgemtl_compiler import export
from edgemtl_compiler.cpu import program
from edgemtl_compiler.cpu.patterns import PREFIX
from edgemtl_compiler.cuda import BACKEND, TYPES, CudaTarget, lower, rules, toolchain
from edgemtl_compiler.export import Exported
from edgemtl_compiler.precision import Weights

# Of programs that round activations, against PyTorch in float32. In f16 most maps differ by 1e-3; where a gate's choice
# is nearly a tie it may fall the other way, which moves the map around one token by several times that. bf16 rounds
# eight times as coarsely, and more decisions fall the other way.
TOLERANCE: dict[str, float] = {"f32": 0, "f16": 5e-2, "bf16": 0.2}

PRECISIONS: dict[str, Precision] = {"panel16-f32": "f32", "panel16-f16": "f16", "panel16-bf16": "bf16"}  # by layout
Planned = dict[str, tuple[Plan, Function]]  # by function


def targets(arches: Sequence[str], precision: str) -> tuple[CudaTarget, ...]:
    """One for each architecture; with none given, the GPU of this machine. Raises CompileError."""
    if precision not in TYPES:
        raise CompileError(
            f"target cuda has no precision {precision}; choose f32, or f16 or bf16 (both on tensor cores)"
        )
    if not arches:
        try:
            arches = (driver.architecture(),)
        except BackendError:
            raise CompileError(
                f"target cuda needs the GPU's architecture where there is no GPU: add --arch, one of"
                f" {', '.join(toolchain.ARCHES)}"
            ) from None
    toolchain.find_nvcc()
    return tuple(CudaTarget(toolchain.check_arch(arch), precision) for arch in dict.fromkeys(arches))


def plan_function(
    exported: Exported, config: ModelConfig, *, precision: Precision, arch: str, cubin: str
) -> tuple[Plan, Function]:
    """The launch plan of an exported function, for as many images as its input has, and its place in the manifest.

    precision: that linear layers and experts are stored and multiplied in, on tensor cores unless it is "f32"; `cubin`:
    the bundle's member with the kernels. Raises CompileError unless every layer became a kernel and every weight that
    the function needs, each expert of the task's path included, became a parameter.
    """
    lower.check_config(config)
    types = {entry.ref: TYPES[precision] for entry in entries(config) if entry.compact}
    expected = rules.expected_matches(config, exported.name)
    stored = program.stored_weights(config, types)
    graph, params = program.rewritten(exported, config, rules.RULES, expected, stored)
    sizes, batch = (4 * prod(exported.input), 4 * prod(exported.output)), exported.input[0]
    plan = lower.lower(
        graph.calls(), params, config, precision=precision, arch=arch, cubin=cubin, batch=batch, sizes=sizes
    )
    return plan, Function(inputs=(exported.input,), outputs=(exported.output,), params=params)


def plans(
    weights: Weights,
    pieces: Mapping[str, MultiTaskViT],
    report: Callable[[str], None] = lambda _: None,
    batch: int = 1,
) -> Planned:
    """Plans of the prefix and of every slice in `pieces`, for no architecture yet. Raises CompileError."""
    made, precision = {}, PRECISIONS[weights.layout]
    for name in (PREFIX, *pieces):
        report(f"planning {name}")
        if name == PREFIX:
            exported = export.export_prefix(weights.model, batch)
        else:
            exported = export.export_task(pieces[name], batch)
        made[name] = plan_function(exported, weights.model.config, precision=precision, arch="sm_00", cubin="none")
    return made


def build(
    planned: Planned, config: ModelConfig, target: CudaTarget, folder: Path, report: Callable[[str], None]
) -> tuple[Program, dict[str, Path]]:
    """The program for one architecture, and its files under `folder` by member. Raises CompileError."""
    from edgemtl_compiler.cpu import tvm_adapter

    place = f"programs/{BACKEND}/{target.name}"
    report(f"compiling the kernels for {target.name}")
    cubin = f"{place}/kernels.cubin"
    code = toolchain.cubin(target.name, target.precision, config.dim // config.heads)
    paths = {cubin: Path(shutil.copy(code, folder / f"{target.name}.cubin"))}
    functions, members = {}, {}
    for name, (plan, functions[name]) in planned.items():
        plan = plan.model_copy(update={"arch": target.name, "cubin": cubin})
        members[name] = f"{place}/{name}.json"
        paths[members[name]] = folder / f"{target.name}-{name}.json"
        paths[members[name]].write_text(plan.model_dump_json())
    described = Program(
        backend=BACKEND,
        target=target.name,
        functions=functions,
        members=members,
        built_with={**tvm_adapter.versions(), "torch": torch.__version__, "nvcc": toolchain.nvcc_version()},
        tolerance=TOLERANCE[target.precision],
    )
    return described, paths
