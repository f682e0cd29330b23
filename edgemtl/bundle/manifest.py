"""What a bundle says of itself: the schema of `manifest.json`, the first member of every bundle.

    NAME.edgemtl                          a zip of stored, page-aligned members
      manifest.json                       this schema
      weights/trunk.safetensors           what every task needs
      weights/task.TASK.safetensors       one task's gates and head
      weights/experts.BLOCK.safetensors   one page-aligned tensor ("slot") per expert, named by its global id
      programs/BACKEND/TARGET/*           code; for an FPGA board the model in INT8, with its integer goldens
      golden/*.safetensors                inputs, and the outputs that the graph's NumPy reference gives

`weight_layout` is the bundle's precision: see edgemtl/bundle/layout.py.

A weight tensor is named by a reference "PART:TENSOR", where PART is "trunk", "task.TASK" or "experts.BLOCK".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemtl.config import IMAGE_MEAN, IMAGE_STD, Mean, ModelConfig, Std, Strict, TaskName

SCHEMA_VERSION = 2
PAGE = 4096
PART_PATTERN = r"(?:trunk|task\.[a-z][a-z0-9_]{0,31}|experts\.\d{1,3})"

MemberName = Annotated[str, Field(pattern=r"^[a-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,4}$")]
WeightLayout = Literal["panel16-f32", "panel16-f16", "panel16-bf16", "panel16-i8"]
Precision = Literal["f32", "f16", "bf16", "int8"]
WeightRef = Annotated[str, Field(pattern=rf"^{PART_PATTERN}:[A-Za-z0-9_.]{{1,100}}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Member(Strict):
    """One stored file of the bundle; its bytes begin on a page boundary."""

    name: MemberName
    size: int = Field(ge=0, le=1 << 34)
    sha256: Sha256


class Preprocess(Strict):
    """How a frame becomes the network's input, and so how its map goes back to the frame's size.

    `resize` stretches the frame to the input size; `letterbox` keeps its shape and pads with `fill` (0..255).
    """

    mode: Literal["resize", "letterbox"] = "resize"
    fill: int = Field(114, ge=0, le=255)
    mean: tuple[Mean, Mean, Mean] = IMAGE_MEAN
    std: tuple[Std, Std, Std] = IMAGE_STD

    @classmethod
    def of(cls, model: ModelConfig, mode: Literal["resize", "letterbox"] = "resize") -> Preprocess:
        """What a model was trained with."""
        return cls(mode=mode, fill=model.image_border, mean=model.image_mean, std=model.image_std)


class Function(Strict):
    """One callable of a program: its tensor inputs, then `params` in order, give its tensor outputs (float32).

    `inputs` and `outputs` are their shapes; what the prefix gives, each task's function takes, in the same order.
    `fallback`: nodes of the graph that no kernel computes, or only in part, and the multiply-accumulates of the rest.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...] = Field(min_length=1)
    params: tuple[WeightRef, ...] = ()
    fallback: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,100}$")], Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict
    )


class AcceleratorTask(Strict):
    """One task on the accelerator: a raw map's value is its integer times `unit`; `golden` holds the integers."""

    name: TaskName
    unit: float = Field(gt=0, lt=1e6)
    bytes: int = Field(ge=0, le=1 << 30)  # gates and head in the weight image
    golden: MemberName


class Accelerator(Strict):
    """What a program for the accelerator (hls/) has besides: its one member is the descriptor program.

    `image`: four banks of `quads` 128-bit words, one after the other; `registers`: the kernel's control registers as
    JSON; `golden_frames`: uint8 [count, H, W, 3], and each task's `golden` int16 [count, h, w, channels], equal on
    every exact device. `calibration` says on what the integers rest.
    """

    format_version: int = Field(ge=1, le=1 << 16)
    register_version: int = Field(ge=1, le=1 << 16)
    image: MemberName
    quads: int = Field(ge=1, le=1 << 24)
    registers: MemberName
    golden_frames: MemberName
    golden_count: int = Field(ge=1, le=64)
    tasks: tuple[AcceleratorTask, ...] = Field(min_length=1)
    calibration: dict[str, str | int | float] = Field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        return self.image, self.registers, self.golden_frames, *(t.golden for t in self.tasks)


class Program(Strict):
    """Code for one backend and target.

    `functions` maps "prefix" (image to tokens and features, shared by all tasks) and each task's name (those to the raw
    map) to its interface; `members` maps the same names to the files that hold them. A backend whose programs cannot
    share a prefix leaves it out, and then a task's function takes the image. `needs` lists CPU features (as the kernel
    names them in /proc/cpuinfo) without which the program must not be started. `tolerance`: of its results, where it is
    wider than that of the goldens.
    """

    backend: str = Field(pattern=r"^[a-z][a-z0-9\-]{0,31}$")
    target: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-.]{0,63}$")
    machine: str = ""  # as platform.machine() gives it; empty: any
    needs: tuple[str, ...] = ()
    functions: dict[str, Function]
    members: dict[str, MemberName]
    built_with: dict[str, str] = Field(default_factory=dict)
    tolerance: float = Field(0, ge=0, lt=1)
    accelerator: Accelerator | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every member that the program names."""
        return *self.members.values(), *(self.accelerator.files if self.accelerator else ())

    @model_validator(mode="after")
    def _consistent(self) -> Program:
        if set(self.functions) != set(self.members):
            raise ValueError("functions and members of a program must have the same names")
        return self


class Golden(Strict):
    """Inputs and expected outputs. `inputs` holds "0", "1", … [1, 3, H, W]; `outputs[task]` the same names
    [channels, h, w]; a backend is right when max |got - want| / max |want| is at most `tolerance`.
    """

    inputs: MemberName
    outputs: dict[TaskName, MemberName]
    count: int = Field(ge=1, le=64)
    tolerance: float = Field(gt=0, lt=1)


class TaskAccuracy(Strict):
    """What quantisation costs one task: a metric of the float model and of the INT8 one over the same images.

    `loss` is relative, positive where INT8 is worse. Without labels the metric is "agreement" with the float model's
    maps, which is 1 for float by definition.
    """

    metric: str
    images: int = Field(ge=1)
    float32: float
    int8: float
    loss: float
    origin: str  # what ran the INT8 model: the program of a target, or the INT8 reference in NumPy


class FloatLayer(Strict):
    """Weights that stayed float32 in an INT8 bundle, and why."""

    weights: tuple[WeightRef, ...]
    reason: str


class Quantisation(Strict):
    """How an INT8 bundle was made and what it costs."""

    images: int = Field(ge=1)  # that calibrated the activations
    calibrated_on: str
    accuracy: dict[TaskName, TaskAccuracy] = Field(default_factory=dict)
    float_layers: tuple[FloatLayer, ...] = ()


class Manifest(Strict):
    """The whole of `manifest.json`."""

    format: Literal["edgemtl-bundle"] = "edgemtl-bundle"
    schema_version: Literal[2] = 2
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")
    created_by: str  # "edgemtl 0.1.0"
    origin: str = ""  # what the weights were trained on, in words, e.g. "synthetic rooms, seed 1"
    model: ModelConfig
    preprocess: Preprocess = Field(default_factory=Preprocess)
    weight_layout: WeightLayout = "panel16-f32"
    quantisation: Quantisation | None = None  # of the layout "panel16-i8"
    weights: dict[str, MemberName]  # part -> member
    programs: tuple[Program, ...] = ()
    golden: Golden | None = None
    members: tuple[Member, ...]

    @property
    def precision(self) -> Precision:
        """Of the weights, as `edgemtl compile --precision` names it."""
        words: dict[WeightLayout, Precision] = {
            "panel16-f32": "f32",
            "panel16-f16": "f16",
            "panel16-bf16": "bf16",
            "panel16-i8": "int8",
        }
        return words[self.weight_layout]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [m.name for m in self.members]
        if len(set(names)) != len(names):
            raise ValueError("a member is listed twice")
        used = [*self.weights.values(), *(n for p in self.programs for n in p.files)]
        used += [self.golden.inputs, *self.golden.outputs.values()] if self.golden else []
        for name in used:
            if name not in names:
                raise ValueError(f"{name!r} is used but is not in the list of members")
        parts = {"trunk", *(f"task.{t}" for t in self.model.task_names)}
        parts |= {f"experts.{b}" for b in self.model.moe_blocks}
        if set(self.weights) != parts:
            raise ValueError(f"weight parts are {sorted(self.weights)}, the model needs {sorted(parts)}")
        sizes = {m.name: m.size for m in self.members}
        if len({(p.backend, p.target) for p in self.programs}) != len(self.programs):
            raise ValueError("two programs are for the same backend and target")
        for program in self.programs:
            if program.accelerator is not None:
                _check_accelerator(program, program.accelerator, self.model, sizes)
            for name, function in program.functions.items():
                if name != "prefix" and name not in self.model.task_names:
                    raise ValueError(f"a program has a function {name!r}, which is no task of the model")
                if any(ref.split(":")[0] not in parts for ref in function.params):
                    raise ValueError(f"function {name!r} uses a weight of no known part")
        return self


def _check_accelerator(program: Program, part: Accelerator, model: ModelConfig, sizes: dict[str, int]) -> None:
    """Tasks and every member's size must be those of the model; raises ValueError."""
    if tuple(t.name for t in part.tasks) != model.task_names or set(program.members) != set(model.task_names):
        raise ValueError(f"the tasks for {program.target} are not the model's")
    frames, pixels = part.golden_count, model.map_size[0] * model.map_size[1]
    wanted = {part.image: 64 * part.quads, part.golden_frames: frames * 3 * model.image_size[0] * model.image_size[1]}
    wanted |= {t.golden: frames * pixels * 2 * model.task(t.name).channels for t in part.tasks}
    for name, size in wanted.items():
        if sizes[name] != size:
            raise ValueError(f"{name!r} has {sizes[name]} bytes, the model on {program.target} needs {size}")
    if len(set(program.members.values())) > 1:
        raise ValueError(f"the tasks for {program.target} have more than one descriptor program")
    size = sizes[next(iter(program.members.values()))]
    if size % 64 or not 192 <= size <= 1 << 16 or sizes[part.registers] > 1 << 16:
        raise ValueError(f"the descriptor program or register map for {program.target} has an impossible size")
