"""From a model to a bundle: programs for every target, packed weights, goldens, and a check of all.

float32 needs no torch: the checkpoint is read in NumPy, programs are emitted from the graph, and the graph's NumPy
reference says what they must give.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.checkpoint import State, read_checkpoint
from edgemtl.bundle.deployable import deployable
from edgemtl.bundle.manifest import Manifest, Preprocess, Quantisation
from edgemtl.bundle.writer import write_bundle
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler import family, goldens, programs
from edgemtl_compiler import precision as precisions
from edgemtl_compiler.family import Job, Made, Report, Wanted
from edgemtl_compiler.precision import Weights
from edgemtl_compiler.quantise import job as int8_job
from edgemtl_compiler.quantise import ranges
from edgemtl_compiler.quantise.job import Finished

if TYPE_CHECKING:
    from edgemtl.model.vit import MultiTaskViT

CALIBRATION_IMAGES = 64
EVALUATED_IMAGES = 200
TOLERANCE = 1e-4  # of a program against PyTorch, relative to the largest value of the map


@dataclass
class Built:
    """What `compile_bundle` made. errors: target -> task -> relative error; a target that cannot run here has none."""

    path: Path
    size: int
    targets: tuple[str, ...]
    seconds: float = 0
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    boards: dict[str, int] = field(default_factory=dict)  # FPGA board -> bytes of its part
    precision: str = "f32"
    rounding: dict[str, float] = field(default_factory=dict)  # f16, bf16: task -> relative error of the rounded weights
    quantisation: Quantisation | None = None  # int8: what it costs
    ranges: str = ""  # of INT8: over what they were measured
    emulated: tuple[str, ...] = ()  # GPU targets that were checked in an emulation on the CPU
    manifest: Manifest | None = None  # of the bundle, once it is written


def compile_bundle(
    model: MultiTaskViT | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    targets: Sequence[str] = ("cpu",),
    arches: Sequence[str] = (),
    name: str | None = None,
    tasks: Sequence[str] | None = None,
    letterbox: bool = False,
    preprocess: Preprocess | None = None,
    golden_images: Sequence[NDArray[np.uint8]] | None = None,
    origin: str | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    images: int = CALIBRATION_IMAGES,
    precision: str = "f32",
    evaluate: int = EVALUATED_IMAGES,
    report: Report = lambda _: None,
) -> Built:
    """Compile a model, or a checkpoint file, into the bundle `out`.

    targets: "cpu" (the best for this machine), a machine ("x86_64", "aarch64": all its targets), names of
    `targets.TARGETS`, "onnx", "cuda" (for the GPUs `arches`, by default this machine's), "fpga" or a board's name (the
    accelerator, in INT8), "torch" (no program: backend torch rebuilds the model from the weights).
    precision: "f32", "f16" (weights stored in half precision), "bf16" (as bfloat16; no CPU target has it), "int8". INT8
    takes the ranges stored beside the checkpoint (`edgemtl calibrate`); or they are measured on up to `images` pictures
    of the folder `calibrate`, a data set or any folder of images, and with precision "int8" what it costs on up to
    `evaluate` of them. tasks: those to keep (default all); experts
    that none of them may choose are left out. letterbox: a frame keeps its shape and gets a border. preprocess: instead
    of the model's own. golden_images: RGB frames to check with, now and on the device.
    Raises CompileError, or CheckpointError, ConfigError, TaskError, BundleError; then no file is left behind.
    """
    start = time.perf_counter()
    out = Path(out)
    name = _name(name, out)
    if not targets:
        raise CompileError("no target was asked for; --target cpu builds for this machine")
    wanted = family.resolve(targets, precision, arches)
    integers = [w for w in wanted if w.family.integers]
    whose = "--precision int8" if precision == "int8" else integers[0].target.name if integers else ""
    seen = None if calibrate is None else Path(calibrate)
    if precision == "int8" and seen is not None:
        family.need("torch")  # what INT8 costs is measured beside PyTorch
    stored = _stored(whose, model, seen, images)
    if not out.parent.is_dir():
        raise CompileError(f"cannot write {out}: there is no folder {out.parent}")
    report("reading the model")
    config, state, found = _read(model)
    origin = found if origin is None else origin
    calibration = None if stored is None else ranges.read(stored, config, state)
    config, state = deployable(config, state, tasks)
    together = {one: [w.target for w in wanted if w.family is one] for one in dict.fromkeys(w.family for w in wanted)}
    for one, its in together.items():
        one.refuse(config, its, precision)
    for one, its in together.items():
        one.start(its)
    settings = preprocess or Preprocess.of(config, "letterbox" if letterbox else "resize")
    if seen is not None:
        report("calibrating")
        calibration = ranges.measure(config, state, seen, images, exactly=precision == "int8")
    prepared = None
    if precision == "int8" and calibration is not None:
        prepared = int8_job.prepare(config, state, calibration, seen, evaluate, report)
    report("computing the expected outputs")
    halves = precision in precisions.HALVES
    weights = precisions.half(config, state, precision) if halves else precisions.single(config, state)
    given = goldens.inputs(config, settings, golden_images)
    golden = goldens.outputs(config, weights.state, given)
    built = Built(out, 0, tuple(w.target.name for w in wanted), precision=precision)
    if calibration is not None:
        built.ranges = f"{calibration.images} images of {calibration.about}"
    if halves:
        built.rounding = _rounding(config, state, given, golden)
    with tempfile.TemporaryDirectory(prefix="edgemtl-compile-") as folder:

        def build(weights: Weights, which: Sequence[Wanted]) -> list[Made]:
            """In a folder of its own each time: a library that is loaded must not be written over."""
            job = Job(config, state, weights, Path(tempfile.mkdtemp(dir=folder)), report, calibration)
            return [one.build(job, target) for one, target in which]

        own = build(weights, integers)
        checked = [w for w in wanted if not w.family.integers]
        if prepared is not None:
            done = int8_job.run(prepared, lambda weights: build(weights, checked), given, golden, report)
        else:
            made = build(weights, checked)
            emulate = programs.worth_emulating(config)
            errors = programs.check_all(made, weights.parts, given, golden, TOLERANCE, report, emulate)
            done = Finished(weights, made, errors, TOLERANCE)
        made = [*done.made, *own]
        held = {name: f for one in made for name, f in one.files.items()}
        files = {name: f if isinstance(f, bytes) else f.read_bytes() for name, f in held.items()}
    built.errors, built.quantisation = done.errors, done.report
    built.boards = {one.program.target: one.size for one in own}
    built.emulated = tuple(one.program.target for one in done.made if one.emulated and built.errors[one.program.target])
    report("writing the bundle")
    fields: dict[str, Any] = {"name": name, "model": config, "preprocess": settings}
    fields |= {"programs": [one.program for one in made], "origin": origin or ""}
    fields |= {"weight_layout": done.weights.layout, "quantisation": done.report, "golden_tolerance": done.tolerance}
    built.manifest = write_bundle(
        out, manifest_fields=fields, weights=done.weights.parts, files=files, golden=(given, golden)
    )
    built.size, built.seconds = out.stat().st_size, time.perf_counter() - start
    return built


def _read(model: MultiTaskViT | str | os.PathLike[str]) -> tuple[ModelConfig, State, str]:
    """The configuration and state of a model or checkpoint, and the latter's origin."""
    if isinstance(model, str | os.PathLike):
        info, state = read_checkpoint(Path(model))
        return info.config, state, info.origin
    from edgemtl.model.checkpoint import arrays, unwrapped

    model = unwrapped(model)
    return model.config, arrays(model.state_dict()), ""


def _rounding(config: ModelConfig, state: State, given: goldens.Inputs, golden: goldens.Outputs) -> dict[str, float]:
    """How far rounding the weights has moved each task's maps, relative to the largest value."""
    exact = goldens.outputs(config, state, given)
    return {task: max(goldens.error(maps[n], exact[task][n]) for n in maps) for task, maps in golden.items()}


def _name(name: str | None, out: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9_.\-]", "-", out.name.removesuffix(".edgemtl")).lstrip("-_.") if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", name):
        raise CompileError(f"{name!r} cannot be a bundle's name; use up to 64 letters, digits, '_', '.' or '-'")
    return name


def _stored(whose: str, model: MultiTaskViT | str | os.PathLike[str], seen: Path | None, images: int) -> Path | None:
    """The file of ranges for INT8, if it is `whose` word; none where they are to be measured on pictures.

    Raises CompileError where there is neither, where pictures are not needed, or asked for in no number.
    """
    if not whose and seen is not None:
        raise CompileError(
            "no target asked for needs calibration: leave out --calibrate, or add --precision int8 or --target fpga"
        )
    if images < 1:
        raise CompileError(f"calibration needs pictures; given --images {images}")
    if not whose or seen is not None:
        return None
    path = ranges.beside(Path(model)) if isinstance(model, str | os.PathLike) else None
    if path is None or not path.is_file():
        raise CompileError(
            f"{whose} needs the model's ranges: store them once with `edgemtl calibrate CHECKPOINT PICTURES`,"
            " or add --calibrate PICTURES"
        )
    return path
