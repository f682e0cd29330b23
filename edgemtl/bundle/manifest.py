"""What a bundle says of itself: the schema of `manifest.json`, the first member of every bundle.

    NAME.edgemtl                          a zip of stored, page-aligned members
      manifest.json                       this schema
      weights/trunk.safetensors           what every task needs
      weights/task.TASK.safetensors       one task's gates and head
      weights/experts.BLOCK.safetensors   one page-aligned tensor ("slot") per expert, named by its global id
      programs/BACKEND/TARGET/*           code
      golden/*.safetensors                inputs, and the outputs PyTorch's full model gives for them

A weight tensor is named by a reference "PART:TENSOR", where PART is "trunk", "task.TASK" or "experts.BLOCK".
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgemtl.config import IMAGE_MEAN, IMAGE_STD, ModelConfig, Strict, TaskName

SCHEMA_VERSION = 1
PAGE = 4096
PART_PATTERN = r"(?:trunk|task\.[a-z][a-z0-9_]{0,31}|experts\.\d{1,3})"

MemberName = Annotated[str, Field(pattern=r"^[a-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,4}$")]
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
    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = IMAGE_STD


class Function(Strict):
    """One callable of a program: its tensor input, then `params` in order, gives its tensor output (float32)."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    params: tuple[WeightRef, ...] = ()


class Program(Strict):
    """Code for one backend and target.

    `functions` maps "prefix" (image to tokens, shared by all tasks) and each task's name (tokens to raw map) to its
    interface; `members` maps the same names to the files that hold them. A backend whose programs cannot share a
    prefix leaves it out, and then a task's function takes the image. `needs` lists CPU features (as the kernel names
    them in /proc/cpuinfo) without which the program must not be started. `layout` names the weights' layout.
    """

    backend: str = Field(pattern=r"^[a-z][a-z0-9\-]{0,31}$")
    target: str = Field(pattern=r"^[a-z0-9][a-z0-9_\-.]{0,63}$")
    machine: str = ""  # as platform.machine() gives it; empty: any
    needs: tuple[str, ...] = ()
    functions: dict[str, Function]
    members: dict[str, MemberName]
    built_with: dict[str, str] = Field(default_factory=dict)

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


class Manifest(Strict):
    """The whole of `manifest.json`."""

    format: Literal["edgemtl-bundle"] = "edgemtl-bundle"
    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")
    created_by: str  # "edgemtl 0.1.0"
    origin: str = ""  # what the weights were trained on, in words, e.g. "synthetic rooms, seed 1"
    model: ModelConfig
    preprocess: Preprocess = Field(default_factory=Preprocess)
    weight_layout: Literal["panel16-f32"] = "panel16-f32"
    weights: dict[str, MemberName]  # part -> member
    programs: tuple[Program, ...] = ()
    golden: Golden | None = None
    members: tuple[Member, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        names = [m.name for m in self.members]
        if len(set(names)) != len(names):
            raise ValueError("a member is listed twice")
        used = [*self.weights.values(), *(n for p in self.programs for n in p.members.values())]
        used += [self.golden.inputs, *self.golden.outputs.values()] if self.golden else []
        for name in used:
            if name not in names:
                raise ValueError(f"{name!r} is used but is not in the list of members")
        parts = {"trunk", *(f"task.{t}" for t in self.model.task_names)}
        parts |= {f"experts.{b}" for b in self.model.moe_blocks}
        if set(self.weights) != parts:
            raise ValueError(f"weight parts are {sorted(self.weights)}, the model needs {sorted(parts)}")
        for program in self.programs:
            for name, function in program.functions.items():
                if name != "prefix" and name not in self.model.task_names:
                    raise ValueError(f"a program has a function {name!r}, which is no task of the model")
                if any(ref.split(":")[0] not in parts for ref in function.params):
                    raise ValueError(f"function {name!r} uses a weight of no known part")
        return self
