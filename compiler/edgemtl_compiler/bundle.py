"""From a model to a bundle: programs for every target, packed weights, goldens, and a check of all against PyTorch."""

from __future__ import annotations

import copy
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgemtl.bundle.layout import Array, pack_state
from edgemtl.bundle.manifest import Preprocess, Program
from edgemtl.bundle.writer import write_bundle
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError, TaskError
from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler import export, goldens, onnx_export, program, targets, toolchain
from edgemtl_compiler.patterns import PREFIX
from edgemtl_compiler.targets import Target

TOLERANCE = 1e-4  # of a program against PyTorch, relative to the largest value of the map

Report = Callable[[str], None]
Parts = dict[str, dict[str, Array]]


@dataclass
class Built:
    """What `compile_bundle` made. errors: target -> task -> relative error; a target that cannot run here has none."""

    path: Path
    size: int
    targets: tuple[str, ...]
    seconds: float = 0
    errors: dict[str, dict[str, float]] = field(default_factory=dict)


def compile_bundle(
    model: MultiTaskViT | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    targets: Sequence[str] = ("cpu",),
    name: str | None = None,
    tasks: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    golden_images: Sequence[NDArray[np.uint8]] | None = None,
    origin: str | None = None,
    report: Report = lambda _: None,
) -> Built:
    """Compile a model, or a checkpoint file, into the bundle `out`.

    targets: "cpu" (the best for this machine), names of `targets.TARGETS`, "onnx". tasks: those to keep (default all);
    experts that none of them may choose are left out. golden_images: RGB frames to check with, now and on the device.
    Raises CompileError, or CheckpointError, TaskError, BundleError; then no file is left behind.
    """
    start = time.perf_counter()
    out = Path(out)
    name = _name(name, out)
    wanted = _targets(targets)
    if not out.parent.is_dir():
        raise CompileError(f"cannot write {out}: there is no folder {out.parent}")
    report("reading the model")
    if not isinstance(model, MultiTaskViT):
        from edgemtl.model.checkpoint import load_checkpoint

        model, info = load_checkpoint(Path(model))
        origin = info.origin if origin is None else origin
    model = subset(copy.deepcopy(model).float().cpu().eval(), tasks)
    export.check_config(model.config)
    settings = preprocess or Preprocess()
    _compile_kernels_meanwhile(wanted)
    report("computing the expected outputs")
    slices = {task: model.slice(task).eval() for task in model.config.task_names}
    given = goldens.inputs(model.config, settings, golden_images)
    golden = goldens.outputs(model, slices, given)
    parts = pack_state(model.config, {key: value.numpy() for key, value in model.state_dict().items()})
    built = Built(out, 0, tuple(t if isinstance(t, str) else t.name for t in wanted))
    programs, files = [], {}
    with tempfile.TemporaryDirectory(prefix="edgemtl-compile-") as folder:
        for target in wanted:
            if isinstance(target, str):
                made, members = _onnx_program(slices, Path(folder), report)
            else:
                made, members = _tvm_program(model, slices, target, Path(folder), report)
            programs.append(made)
            files.update({member: path.read_bytes() for member, path in members.items()})
            report(f"checking {made.target}")
            built.errors[made.target] = _verify(made, members, parts, given, golden)
    report("writing the bundle")
    fields: dict[str, Any] = {"name": name, "model": model.config, "preprocess": settings, "programs": programs}
    fields |= {"origin": origin or "", "golden_tolerance": TOLERANCE}
    write_bundle(out, manifest_fields=fields, weights=parts, files=files, golden=(given, golden))
    built.size, built.seconds = out.stat().st_size, time.perf_counter() - start
    return built


def subset(model: MultiTaskViT, tasks: Sequence[str] | None) -> MultiTaskViT:
    """The model of some of its tasks, without the experts that none of them may choose; outputs stay the same."""
    config = model.config
    if tasks is None or tuple(tasks) == config.task_names:
        return model
    if not tasks:
        raise TaskError(f"no task was asked for; this model has {', '.join(config.task_names)}")
    for task in tasks:
        if task not in config.task_names:
            raise TaskError(f"there is no task {task!r}; this model has {', '.join(config.task_names)}")
    kept = [t for t in config.task_names if t in tasks]
    slots = tuple(tuple(sorted(set().union(*banks))) for banks in zip(*(config.path(t) for t in kept), strict=True))
    changes = {
        "tasks": tuple(config.task(t) for t in kept),
        "paths": {t: p for t, p in config.paths.items() if t in kept},
        "slots": None if slots == config.held and config.slots is None else slots,
    }
    smaller = MultiTaskViT(ModelConfig(**{**dict(config), **changes}))
    full, state = model.state_dict(), {}
    for key in smaller.state_dict():
        state[key] = full[key]
        if ".mlp.experts." in key or ".mlp.gate." in key:
            which = config.moe_blocks.index(int(key.split(".")[2]))
            local = [config.held[which].index(e) for e in slots[which]]
            state[key] = full[key][local] if ".experts." in key else full[key][:, local]
    smaller.load_state_dict(state)
    return smaller.eval()


def _name(name: str | None, out: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]", "-", out.name.removesuffix(".edgemtl")).lstrip("-_.") if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", name):
        raise CompileError(f"{name!r} cannot be a bundle's name; use up to 64 letters, digits, '_', '.' or '-'")
    return name


def _targets(names: Sequence[str]) -> list[Target | str]:
    """Resolved targets without repeats; "onnx" stays a word."""
    if not names:
        raise CompileError("no target was asked for; --target cpu builds for this machine")
    return list(dict.fromkeys(n if n == onnx_export.TARGET else targets.resolve(n) for n in names))


def _compile_kernels_meanwhile(wanted: Sequence[Target | str]) -> None:
    """Start the C++ compiler now: it takes seconds, and PyTorch's part comes first. Missing tools are found here."""
    real = [target for target in wanted if isinstance(target, Target)]
    if real:
        from edgemtl_compiler import tvm_adapter

        toolchain.find_compiler()
        for target in real:
            toolchain.start_kernels(target, tvm_adapter.include_paths())


def _tvm_program(
    model: MultiTaskViT, slices: Mapping[str, MultiTaskViT], target: Target, folder: Path, report: Report
) -> tuple[Program, dict[str, Path]]:
    from edgemtl_compiler import tvm_adapter

    functions, members, paths = {}, {}, {}
    for name in (PREFIX, *slices):
        report(f"building {target.name} {name}")
        exported = export.export_prefix(model) if name == PREFIX else export.export_task(slices[name])
        made = program.build_function(exported, model.config, target, folder / f"{target.name}-{name}.so")
        functions[name], members[name] = made.function, f"programs/{program.BACKEND}/{target.name}/{name}.so"
        paths[members[name]] = made.path
    described = Program(
        backend=program.BACKEND,
        target=target.name,
        machine=target.machine,
        needs=target.needs,
        functions=functions,
        members=members,
        built_with={**tvm_adapter.versions(), "torch": torch.__version__, "c++": toolchain.compiler_version()},
    )
    return described, paths


def _onnx_program(slices: Mapping[str, MultiTaskViT], folder: Path, report: Report) -> tuple[Program, dict[str, Path]]:
    functions, members, paths, target = {}, {}, {}, onnx_export.TARGET
    for name, piece in slices.items():
        report(f"exporting {target} {name}")
        made = onnx_export.export_onnx(piece, folder / f"{name}.onnx")
        functions[name], members[name] = made.function, f"programs/{onnx_export.BACKEND}/{target}/{name}.onnx"
        paths[members[name]] = made.path
    described = Program(
        backend=onnx_export.BACKEND,
        target=target,
        functions=functions,
        members=members,
        built_with={**onnx_export.versions(), "torch": torch.__version__},
    )
    return described, paths


def _verify(
    made: Program, members: dict[str, Path], parts: Parts, given: dict[str, Array], golden: goldens.Outputs
) -> dict[str, float]:
    """The largest relative error of each task. Raises CompileError when one is above the tolerance."""
    if made.target in targets.TARGETS and not targets.runs_here(targets.TARGETS[made.target]):
        return {}
    load = onnx_export.OnnxRunner if made.backend == onnx_export.BACKEND else program.load_function
    runners = {name: load(members[member]) for name, member in made.members.items()}

    def run(name: str, value: Array) -> Array:
        params = [parts[part][tensor] for part, _, tensor in (r.partition(":") for r in made.functions[name].params)]
        return runners[name]([value, *params])

    worst = dict.fromkeys(golden, 0.0)
    for number, image in given.items():
        shared = run(PREFIX, image) if PREFIX in runners else image
        for task, wanted in golden.items():
            what = f"the {made.target} program of {task!r}"
            worst[task] = max(worst[task], goldens.check(what, run(task, shared)[0], wanted[number], TOLERANCE))
    return worst
