"""All programs of a bundle: built for every target from one set of weights, run, and checked against expected maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Program
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.graph import from_state
from edgemtl.graph.count import count
from edgemtl.graph.network import PREFIX, network
from edgemtl.graph.network import check as check_network
from edgemtl_compiler import cuda, goldens, toolchain
from edgemtl_compiler.cpu import program, targets
from edgemtl_compiler.cpu.targets import Target
from edgemtl_compiler.cuda import CudaTarget
from edgemtl_compiler.cuda import build as cuda_build
from edgemtl_compiler.onnx import export as onnx_export
from edgemtl_compiler.precision import Parts, Weights

if TYPE_CHECKING:
    from torch import Tensor

Report = Callable[[str], None]
EMULATED = 40e9  # multiply-accumulates of all tasks that an emulation on a CPU has done in some minutes
Wanted = Target | CudaTarget | str  # what to build for; the only word is "onnx"


@dataclass(frozen=True)
class Made:
    """One target's program and the files of its functions, by member name."""

    program: Program
    paths: dict[str, Path]

    @property
    def runs_here(self) -> bool:
        """Whether `runner` can run it; a CUDA program runs in the emulation where there is no GPU."""
        name = self.program.target
        return name not in targets.TARGETS or targets.runs_here(targets.TARGETS[name])

    @property
    def emulated(self) -> bool:
        """Whether `runner` would run it on a CPU though it is for a GPU."""
        if self.program.backend != cuda.BACKEND:
            return False
        from edgemtl_compiler.cuda.check import fits_here

        return not fits_here(self.program.target)

    def runner(self, parts: Parts) -> Callable[[Array, Sequence[str]], dict[str, Array]]:
        """A function of an input [1, 3, H, W] and tasks that gives raw maps [channels, h, w]."""
        if self.program.backend == cuda.BACKEND:
            from edgemtl_compiler.cuda.check import runner

            return runner(self.program, self.paths, parts)
        load = onnx_export.OnnxRunner if self.program.backend == onnx_export.BACKEND else program.load_function
        runners = {name: load(self.paths[member]) for name, member in self.program.members.items()}

        def call(name: str, values: Sequence[Array]) -> list[Array]:
            refs = (ref.partition(":") for ref in self.program.functions[name].params)
            return runners[name]([*values, *(parts[part][tensor] for part, _, tensor in refs)])

        def run(image: Array, tasks: Sequence[str]) -> dict[str, Array]:
            shared = call(PREFIX, [image]) if PREFIX in runners else [image]
            return {task: call(task, shared)[0][0] for task in tasks}

        return run

    def predictor(self, parts: Parts, tasks: Sequence[str]) -> Callable[[Tensor], Mapping[str, Any]]:
        """As `edgemtl.train.evaluate` wants a model, one image at a time."""
        run = self.runner(parts)
        return lambda image: run(image.contiguous().numpy(), tasks)


def worth_emulating(config: ModelConfig) -> bool:
    """Whether emulating programs for GPUs would end in minutes; M3ViT at 480 x 640 takes half an hour or hours."""
    return sum(count(config, task).total for task in config.task_names) <= EMULATED


def refuse(config: ModelConfig, boards: Sequence[str], precision: str) -> None:
    """Raises CompileError or ConfigError, naming the setting, for a model that a target has no programs for."""
    check_network(config)
    lacking = [*boards, *(["precision int8"] if precision == "int8" else [])]
    if config.stem != "patch" and lacking:
        raise CompileError(f"a model with stem {config.stem} has no program for {lacking[0]} yet; leave it out")


def start_compilers(wanted: Sequence[Wanted]) -> None:
    """Start the C++ compiler now: it takes seconds, and PyTorch's part comes first. Missing tools are found here."""
    real = [target for target in wanted if isinstance(target, Target)]
    if real:
        from edgemtl_compiler.cpu import tvm_adapter

        for target in real:
            toolchain.find_compiler(target)
        for target in real:
            toolchain.start_kernels(target, tvm_adapter.include_paths())


def build(weights: Weights, wanted: Sequence[Wanted], folder: Path, report: Report) -> list[Made]:
    """Programs for all targets, their files under `folder`. Raises CompileError."""
    made: list[Made] = []
    for target in wanted:
        if isinstance(target, CudaTarget):
            made.append(Made(*cuda_build.build(weights.config, target, folder, report)))
        elif isinstance(target, str):
            made.append(_onnx_program(weights, folder, report))
        else:
            made.append(_tvm_program(weights, target, folder, report))
    return made


def check_all(
    made: Sequence[Made],
    parts: Parts,
    given: Mapping[str, Array],
    expected: goldens.Outputs,
    tolerance: float,
    report: Report,
    emulate: bool = True,
) -> dict[str, dict[str, float]]:
    """`check` of every program, by target; without `emulate` those that need the emulation are left out and have
    no errors. The emulation knows nothing of architectures: it runs for the first of them, whose plans are the others'.
    """
    errors: dict[str, dict[str, float]] = {}
    emulated: dict[str, float] | None = None
    for one in made:
        if one.emulated and not emulate:
            errors[one.program.target] = {}
            continue
        report(f"checking {one.program.target}{' in an emulation on the CPU, which is slow' if one.emulated else ''}")
        if not one.emulated:
            found = check(one, parts, given, expected, tolerance)
        else:
            found = emulated = emulated or check(one, parts, given, expected, tolerance)
        errors[one.program.target] = found
    return errors


def check(
    made: Made, parts: Parts, given: Mapping[str, Array], expected: goldens.Outputs, tolerance: float
) -> dict[str, float]:
    """The largest relative error of each task; none for a program that cannot run here. The emulation, which is slow,
    gets the first input only.

    Raises CompileError when one is above the tolerance.
    """
    if not made.runs_here:
        return {}
    run = made.runner(parts)
    worst = dict.fromkeys(expected, 0.0)
    for number, image in list(given.items())[: 1 if made.emulated else None]:
        maps = run(image, list(expected))
        for task, wanted in expected.items():
            what = f"the {made.program.target} program of {task!r}"
            limit = max(tolerance, made.program.tolerance)
            worst[task] = max(worst[task], goldens.check(what, maps[task], wanted[number], limit))
    if hasattr(run, "close"):
        run.close()
    return worst


def _tvm_program(weights: Weights, target: Target, folder: Path, report: Report) -> Made:
    from edgemtl_compiler.cpu import tvm_adapter

    functions, members, paths = {}, {}, {}
    networks = [network(weights.config, task) for task in weights.config.task_names]
    for graph in (networks[0].prefix, *(n.task for n in networks)):
        name = graph.name
        report(f"building {target.name} {name}")
        made = program.build(graph, target, folder / f"{target.name}-{name}.so", weights.types)
        functions[name], members[name] = made.function, f"programs/{program.BACKEND}/{target.name}/{name}.so"
        paths[members[name]] = made.path
    described = Program(
        backend=program.BACKEND,
        target=target.name,
        machine=target.machine,
        needs=target.needs,
        functions=functions,
        members=members,
        built_with={**tvm_adapter.versions(), "c++": toolchain.compiler_version(target)},
    )
    return Made(described, paths)


def _onnx_program(weights: Weights, folder: Path, report: Report) -> Made:
    functions, members, paths, target = {}, {}, {}, onnx_export.TARGET
    for name in weights.config.task_names:
        report(f"exporting {target} {name}")
        graph = network(weights.config, name).whole
        made = onnx_export.export(graph, from_state(weights.state), folder / f"{name}.onnx")
        functions[name], members[name] = made.function, f"programs/{onnx_export.BACKEND}/{target}/{name}.onnx"
        paths[members[name]] = made.path
    described = Program(
        backend=onnx_export.BACKEND,
        target=target,
        functions=functions,
        members=members,
        built_with=onnx_export.versions(),
    )
    return Made(described, paths)
