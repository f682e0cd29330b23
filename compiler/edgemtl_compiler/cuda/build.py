"""The CUDA program of a bundle: a launch plan per function, and one cubin for them all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from edgemtl.bundle.manifest import Function, Program
from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError, CompileError
from edgemtl.graph import Graph, network
from edgemtl.graph.node import Shape
from edgemtl.runtime.cuda import driver
from edgemtl.runtime.cuda.plan import Plan, Precision
from edgemtl_compiler.cuda import BACKEND, TYPES, CudaTarget, lower, toolchain

# Of programs that round activations, against PyTorch in float32. In f16 most maps differ by 1e-3; where a gate's choice
# is nearly a tie it may fall the other way, which moves the map around one token by several times that. bf16 rounds
# eight times as coarsely, and more decisions fall the other way.
TOLERANCE: dict[Precision, float] = {"f32": 0, "f16": 5e-2, "bf16": 0.2}

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


def plan(graph: Graph, config: ModelConfig, precision: Precision, batch: int = 1) -> tuple[Plan, Function]:
    """The launch plan of a graph for `batch` images and no architecture yet, and its place in the manifest.

    Raises CompileError, naming the node, for what the kernels do not cover.
    """
    made = lower.lower(graph, precision, config.dim // config.heads, batch)
    inputs, outputs = graph.inputs.values(), map(graph.shape, graph.outputs)
    described = Function(
        inputs=tuple(_outside(shape, batch) for shape in inputs),
        outputs=tuple(_outside(shape, batch) for shape in outputs),
        params=tuple(w.ref for w in graph.weights),
    )
    return made, described


def _outside(shape: Shape, batch: int) -> tuple[int, ...]:
    """A value's shape as callers see it: a map has its channels first."""
    return (batch, *shape[2:], *shape[:2])


def plans(config: ModelConfig, precision: Precision, batch: int = 1) -> Planned:
    """Plans of the prefix and of every task, which take milliseconds. Raises CompileError as `plan` does."""
    made: Planned = {}
    for task in config.task_names:
        net = network(config, task)
        for graph in (net.task,) if made else (net.prefix, net.task):
            made[graph.name] = plan(graph, config, precision, batch)
    return made


def build(
    config: ModelConfig, target: CudaTarget, folder: Path, report: Callable[[str], None]
) -> tuple[Program, dict[str, Path]]:
    """The program for one architecture, and its files under `folder` by member. Raises CompileError."""
    place = f"programs/{BACKEND}/{target.name}"
    report(f"compiling the kernels for {target.name}")
    cubin = f"{place}/kernels.cubin"
    code = toolchain.cubin(target.name, target.precision, config.dim // config.heads)
    paths = {cubin: Path(shutil.copy(code, folder / f"{target.name}.cubin"))}
    functions, members = {}, {}
    for name, (plan, functions[name]) in plans(config, target.precision).items():
        plan = plan.model_copy(update={"arch": target.name, "cubin": cubin})
        members[name] = f"{place}/{name}.json"
        paths[members[name]] = folder / f"{target.name}-{name}.json"
        paths[members[name]].write_text(plan.model_dump_json())
    described = Program(
        backend=BACKEND,
        target=target.name,
        functions=functions,
        members=members,
        built_with={"nvcc": toolchain.nvcc_version()},
        tolerance=TOLERANCE[target.precision],
    )
    return described, paths
