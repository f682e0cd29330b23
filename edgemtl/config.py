"""The model's shape as data: pydantic classes that PyTorch, the compiler, the bundle and the runtime all read.

No torch here: a device reads the same configuration from a bundle's manifest. The architecture is M3ViT's
(Liang et al., NeurIPS 2022): a pre-norm ViT whose odd blocks hold a mixture of experts with one gate per task.
Declared task paths are edgemtl's own: per task and MoE block the experts that its gate may choose.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgemtl import tasks
from edgemtl.errors import ConfigError

IMAGE_MEAN = (0.485, 0.456, 0.406)  # ImageNet statistics, RGB, for pixels scaled to 0..1
IMAGE_STD = (0.229, 0.224, 0.225)

RESERVED = ("experts", "file", "prefix", "shared", "trunk")  # names of parts, functions and gates beside the tasks
TaskName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
# One gate per task; one for all (pre-training); one for all that also reads a vector made of the task's number.
GateKind = Literal["multi", "single", "conditioned"]
# M3ViT's two gates, which differ in training noise and scores, and DSelect-k (Hazimeh et al., NeurIPS 2021).
Router = Literal["noisy_vmoe", "noisy", "dselect_k"]
ExpertIds = tuple[Annotated[int, Field(ge=0, lt=4096)], ...]
_Blocks = Annotated[tuple[Annotated[int, Field(ge=0, lt=64)], ...], Field(max_length=64)]
_Side = Annotated[int, Field(ge=1, le=32768)]
Mean = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(ge=0.01, le=10)]


class Strict(BaseModel):
    """Base of all configuration classes: immutable; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskConfig(Strict):
    """One task: its kind, a file of `edgemtl/tasks`, says what the raw map means and how many channels it has.

    `channels` is the number of values per pixel of the raw map: for a kind with classes, one for each.
    """

    name: TaskName
    kind: str
    channels: int = Field(ge=1, le=256)
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> TaskConfig:
        if self.name in RESERVED:
            raise ValueError(f"a task cannot be called {self.name!r}: that name has another meaning in a bundle")
        try:
            want = tasks.find(self.kind).channels
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if want is not None and self.channels != want:
            raise ValueError(f"task {self.name!r} of kind {self.kind!r} has {want} channel(s), not {self.channels}")
        for what in (self.classes, self.palette):
            if what and len(what) != self.channels:
                raise ValueError(
                    f"task {self.name!r} names {len(what)} classes or colours for {self.channels} channels"
                )
        return self


class ModelConfig(Strict):
    """Shape of one model.

    `paths[task][m]` lists the experts that `task` may use in the m-th MoE block, most used first (ascending in older
    files); a task without an entry may use all. `widths` are the sizes that the paths were trained at, ascending up to
    whole ones: at width w only the first w experts of a path are open. `slots[m]` lists the global ids of the experts
    that this model *holds* in MoE block m: None means all of them; `model.slice(task)` sets it, and then the m-th bank
    has len(slots[m]) experts in that order.
    """

    name: str = "custom"
    image_size: tuple[_Side, _Side] = (128, 256)  # height, width in pixels
    image_mean: tuple[Mean, Mean, Mean] = IMAGE_MEAN  # of RGB in 0..1: the network's input is (pixel - mean) / std
    image_std: tuple[Std, Std, Std] = IMAGE_STD
    image_border: int = Field(114, ge=0, le=255)  # what a letterboxed frame is surrounded with
    fov: float | None = Field(None, gt=1, lt=179)  # horizontal degrees of the camera that depth is learnt for
    stem: Literal["patch", "lite0"] = "patch"  # lite0: EfficientNet-Lite0's first eleven blocks, without a class token
    patch: int = Field(16, ge=1, le=64)  # pixels across a token, whatever makes it
    dim: int = Field(192, ge=8, le=4096)
    depth: int = Field(12, ge=0, le=64)  # blocks; none at all only with stem lite0
    moe: _Blocks | None = None  # blocks that hold experts; None: the odd ones
    heads: int = Field(3, ge=1, le=64)
    mlp_ratio: float = Field(4.0, gt=0, le=16)
    experts: int = Field(16, ge=1, le=4096)
    top_k: int = Field(4, ge=1, le=64)
    expert_ratio: float = Field(1.0, gt=0, le=16)
    renormalise: bool = False  # M3ViT: scores are the softmax over all experts, not renormalised over the chosen
    gate: GateKind = "multi"
    gate_bias: bool = False  # a bias per expert and task: what a conditioned gate becomes when it is split by task
    condition_dim: int = Field(64, ge=1, le=4096)  # width of a conditioned gate's task vector
    router: Router = "noisy_vmoe"
    noise_std: float = Field(0.0, ge=0, le=100)  # of `noisy_vmoe` while training: noise_std / experts per logit
    norm_eps: float = Field(1e-6, gt=0, le=1)
    # conv: M3ViT's decoder, with a raw map at half the image's size; pyramid: adds the stem's 1/8 and 1/4 features
    head: Literal["light", "conv", "pyramid"] = "light"
    head_norm: bool = True  # batch norms of stem and conv head; False: part of their convolutions, as in programs
    rays: bool = False  # pyramid heads of kinds that gain from it also read the direction of each pixel's ray
    head_dim: int = Field(32, ge=1, le=1024)  # channels within a head
    head_stride: int = Field(4, ge=1, le=64)  # the raw map has image_size / head_stride pixels
    tasks: tuple[TaskConfig, ...] = Field(min_length=1, max_length=64)
    paths: dict[str, tuple[ExpertIds, ...]] = Field(default_factory=dict)
    slots: tuple[ExpertIds, ...] | None = None
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = ()

    @property
    def moe_blocks(self) -> tuple[int, ...]:
        """Indices of the blocks that hold experts: `moe`, or the odd ones."""
        return tuple(range(1, self.depth, 2)) if self.moe is None else self.moe

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def tokens(self) -> int:
        """Patches, and the class token where there is one."""
        return self.grid[0] * self.grid[1] + self.class_tokens

    @property
    def class_tokens(self) -> int:
        """1 with a patch embedding, 0 with a convolution stem."""
        return int(self.stem == "patch")

    @property
    def has_norms(self) -> bool:
        """Whether it holds batch norms, which programs have as part of their convolutions."""
        return self.head_norm and (self.head == "conv" or self.stem == "lite0")

    @property
    def image_fill(self) -> tuple[int, int, int]:
        """What a border outside a picture holds, as RGB bytes: the value that the network sees as 0."""
        r, g, b = (round(255 * m) for m in self.image_mean)
        return r, g, b

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width of a task's raw map."""
        return self.image_size[0] // self.head_stride, self.image_size[1] // self.head_stride

    @property
    def mlp_hidden(self) -> int:
        return round(self.dim * self.mlp_ratio)

    @property
    def expert_hidden(self) -> int:
        return round(self.dim * self.expert_ratio)

    @property
    def task_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.tasks)

    @property
    def held(self) -> tuple[ExpertIds, ...]:
        """Global ids of the experts held, per MoE block."""
        return self.slots if self.slots is not None else (tuple(range(self.experts)),) * len(self.moe_blocks)

    def path(self, task: str) -> tuple[ExpertIds, ...]:
        """Global ids of the experts that `task` may use, per MoE block; ascending."""
        return tuple(tuple(sorted(ids)) for ids in self.paths.get(task, self.held))

    def alone(self, task: str) -> ModelConfig:
        """Of `task`'s slice: this task, and the experts of its path."""
        changes = {"tasks": (self.task(task),), "slots": self.path(task), "paths": {}, "widths": ()}
        return ModelConfig(**{**dict(self), **changes})

    def at_width(self, width: int) -> ModelConfig:
        """With the first `width` experts of every path alone, and no more of them per token.

        Raises ConfigError for a width that the model was not trained at.
        """
        if width not in self.widths:
            trained = f"at {', '.join(map(str, self.widths))}" if self.widths else "with whole paths alone"
            raise ConfigError(f"this model has no paths of width {width}: it was trained {trained}")
        paths = {task: tuple(ids[:width] for ids in path) for task, path in self.paths.items()}
        changes = {
            "paths": paths,
            "top_k": min(self.top_k, width),
            "widths": tuple(w for w in self.widths if w <= width),
        }
        return ModelConfig(**{**dict(self), **changes})

    def task(self, name: str) -> TaskConfig:
        return next(t for t in self.tasks if t.name == name)

    def _check_gates(self) -> None:
        if self.router == "noisy" and not self.renormalise:
            raise ValueError("router noisy takes the softmax over the chosen experts alone: give renormalise: true")
        if self.router != "noisy_vmoe" and self.noise_std:
            raise ValueError(f"noise_std is router noisy_vmoe's; leave it out with router {self.router}")
        if self.router == "dselect_k":
            if self.experts & (self.experts - 1):
                raise ValueError(f"router dselect_k numbers experts in bits: {self.experts} is no power of two")
            if self.gate == "conditioned" or self.gate_bias or self.slots is not None:
                raise ValueError("router dselect_k has no conditioned gates, no gate_bias and no slots")
            if self.widths:
                raise ValueError("router dselect_k chooses the same number of experts always: leave widths out")
        if self.gate_bias and self.gate != "multi":
            raise ValueError(f"gate_bias is for gates of one task each; this gate is {self.gate}")

    def _check_stem(self) -> None:
        if (self.stem == "lite0") != (self.head == "pyramid"):
            raise ValueError(f"stem lite0 and head pyramid come together, not {self.stem} with {self.head}")
        if self.stem == "lite0" and (self.patch, self.head_stride) != (16, 4):
            raise ValueError("stem lite0 makes tokens of 16 pixels and maps at a quarter: give patch 16, head_stride 4")
        if self.stem == "patch" and not self.depth:
            raise ValueError("a model without blocks needs stem lite0; give a depth of 1 or more")
        if self.rays and self.head != "pyramid":
            raise ValueError(f"rays are read by head pyramid alone, not by {self.head}: leave them out")
        if self.rays and self.fov is None:
            raise ValueError("rays need the camera's field of view: give fov, in degrees")
        if self.moe is not None and (
            list(self.moe) != sorted(set(self.moe)) or (self.moe and self.moe[-1] >= self.depth)
        ):
            raise ValueError(f"moe names blocks, ascending and below depth {self.depth}: not {self.moe}")
        if self.moe and self.stem == "patch" and self.moe != tuple(range(1, self.depth, 2)):
            raise ValueError("moe chooses blocks of the hybrid; with patches the odd blocks hold experts, or none")

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        (height, width), blocks = self.image_size, len(self.moe_blocks)
        if min(height, width) < self.patch or height % self.patch or width % self.patch:
            raise ValueError(f"image {height}x{width} is not a whole number of {self.patch}-pixel patches")
        for ratio, width in (("mlp_ratio", self.mlp_hidden), ("expert_ratio", self.expert_hidden)):
            if not width:
                raise ValueError(f"{ratio} {getattr(self, ratio)} of dim {self.dim} rounds to a width of 0: give more")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} does not divide into {self.heads} heads")
        if self.patch % self.head_stride:
            raise ValueError(f"head_stride {self.head_stride} does not divide the patch size {self.patch}")
        if self.head == "conv" and self.head_stride * 8 != self.patch:
            raise ValueError(f"the conv head doubles the patches' grid 3 times: give head_stride {self.patch // 8}")
        self._check_gates()
        self._check_stem()
        if len(set(self.task_names)) != len(self.tasks):
            raise ValueError(f"task names repeat: {', '.join(self.task_names)}")
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than the {self.experts} experts")
        if self.slots is not None and len(self.slots) != blocks:
            raise ValueError(f"slots name {len(self.slots)} MoE blocks, the model has {blocks}")
        for task, path in self.paths.items():
            if task not in self.task_names:
                raise ValueError(f"a path is declared for {task!r}, which is no task of this model")
            if len(path) != blocks:
                raise ValueError(f"the path of {task!r} names {len(path)} MoE blocks, the model has {blocks}")
        if any(list(ids) != sorted(ids) for ids in self.slots or ()):
            raise ValueError(f"slots: experts must ascend: {self.slots}")
        for what, banks in [("slots", self.slots or ()), *self.paths.items()]:
            for ids in banks:
                if len(ids) != len(set(ids)) or max(ids, default=0) >= self.experts:
                    raise ValueError(f"{what}: experts must not repeat and be below {self.experts}: {ids}")
                if len(ids) < self.top_k:
                    raise ValueError(f"{what}: {len(ids)} experts are fewer than top_k {self.top_k}")
        for path in self.paths.values():
            if any(not set(ids) <= set(bank) for ids, bank in zip(path, self.held, strict=True)):
                raise ValueError("a declared path uses an expert that this model does not hold")
        if self.widths:
            sizes = {len(ids) for path in self.paths.values() for ids in path}
            if list(self.widths) != sorted(set(self.widths)) or sizes != {self.widths[-1]}:
                raise ValueError(f"widths must ascend, up to the size of all paths ({sizes or 'none'}): {self.widths}")
            if len(self.paths) < len(self.tasks):
                raise ValueError("widths need a declared path for every task")
        return self
