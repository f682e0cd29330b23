"""The training recipe as data: a YAML file read into immutable pydantic classes.

The stages make sparse paths: `shared` trains with one gate for all tasks, as M3ViT (Liang et al., NeurIPS 2022)
pre-trains; `open` copies it to one gate per task; `paths` declares each task's experts by routed weight and
fine-tunes with the mask. Steps, not minutes, so that a run can be continued exactly.
"""

from __future__ import annotations

import difflib
import importlib.resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, ValidationError, model_validator

from edgemtl import tasks as kinds
from edgemtl.config import ModelConfig, Strict
from edgemtl.errors import ConfigError
from edgemtl.model.presets import PRESETS, preset

_Beta = Annotated[float, Field(ge=0, lt=1)]
StageName = Literal["shared", "open", "paths"]


class ScheduleConfig(Strict):
    """Learning rate over one stage: linear warm-up, then `cosine` down to `final` × lr, or `poly` (1 - t)^power."""

    kind: Literal["cosine", "poly"] = "cosine"
    warmup: int = Field(100, ge=0)  # steps
    final: float = Field(0.01, ge=0, le=1)
    power: float = Field(0.9, gt=0, le=4)


class OptimiserConfig(Strict):
    """AdamW, or the reference's SGD with momentum; weight decay leaves out biases, norms and embeddings."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(0.05, ge=0, le=1)
    betas: tuple[_Beta, _Beta] = (0.9, 0.98)
    momentum: float = Field(0.9, ge=0, lt=1)
    clip: float = Field(1.0, ge=0)  # greatest gradient norm; 0: no clipping


class StageConfig(Strict):
    """One stage; what is None is taken from the recipe. Give either `steps` or `epochs`."""

    name: StageName
    steps: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0, le=1e6)
    lr: float | None = Field(None, gt=0, le=10)
    batch: int | None = Field(None, ge=1, le=4096)
    schedule: ScheduleConfig | None = None
    tasks_per_step: int | None = Field(None, ge=1, le=64)  # None: all tasks in every step
    experts_per_path: int = Field(6, ge=1, le=4096)  # of `paths`
    rank_images: int = Field(512, ge=1)  # training images that rank the experts, in `paths`
    # Of `paths`: half of the steps open only the w most used experts of every path, w drawn from this list; true: from
    # 1 to experts_per_path - 1. The model then runs at each of these widths without new training.
    widths: tuple[int, ...] | StrictBool = False

    @model_validator(mode="after")
    def _length(self) -> StageConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"stage {self.name!r} needs either steps or epochs")
        if self.widths and self.name != "paths":
            raise ValueError(f"stage {self.name!r} has no declared paths: widths are for stage 'paths'")
        if any(not 1 <= w <= self.experts_per_path for w in self.trained_widths):
            raise ValueError(f"widths lie between 1 and experts_per_path {self.experts_per_path}, not {self.widths}")
        return self

    @property
    def trained_widths(self) -> tuple[int, ...]:
        """What `ModelConfig.widths` becomes: ascending, the whole path's last; none without the option."""
        if not self.widths:
            return ()
        whole = self.experts_per_path
        narrow = tuple(range(1, whole)) if isinstance(self.widths, bool) else self.widths
        return tuple(sorted({*narrow, whole}))


class LossConfig(Strict):
    """Weights by task or kind of task, M3ViT's by default; `stride` 2 takes every second label pixel each way.

    `gradient` weighs gradient matching within the depth loss, a sum over four scales; Depth Anything V2 takes 2. Scales
    count the pixels that `stride` leaves.
    """

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    balance: float = Field(0.01, ge=0)
    stride: Literal[1, 2, 4] = 1
    class_weights: Literal["none", "log"] = "none"  # log: 1 / ln(1.1 + share of the class's pixels), mean 1
    depth: Literal["l1", "log"] = "l1"  # the mean difference in metres, or of the logarithms; the map is metres in both
    gradient: float = Field(0.0, ge=0, le=100)


class BalancerConfig(Strict):
    """How the tasks' gradients become one; see `edgemtl.train.balancers`."""

    kind: Literal["fixed", "uncertainty", "gradnorm", "config", "pcgrad", "imtl-g", "aligned-mtl"] = "fixed"
    lr: float = Field(0.02, gt=0, le=1)  # of what uncertainty and gradnorm learn
    alpha: float = Field(1.5, ge=0, le=10)  # gradnorm: how strongly a slow task is favoured


class MixConfig(Strict):
    """A second set, mixed into the training images; the rankings of experts, and `val`, are the first's alone."""

    data: Path
    share: float = Field(0.25, gt=0, lt=1)  # of an epoch's images, as far as the second set has so many


class TrainConfig(Strict):
    """A whole run. Paths are relative to the working directory."""

    preset: str = "tiny"
    model: dict[str, Any] = Field(default_factory=dict)  # changes to the preset
    tasks: tuple[str, ...] | None = Field(None, min_length=1)  # of the preset's; None: all of them
    conditioned: bool = False  # stage open: one gate that reads its task's number, instead of a gate per task
    # The last two are comparators (edgemtl/train/comparators.py), of the preset's tasks and image size alone.
    network: Literal["vit", "bisenet", "bisenet-lite0"] = "vit"
    stem: str | None = (
        None  # a stem checkpoint of `edgemtl import-stem`, or "imagenet": the installed package's weights
    )
    data: Path = Path("data/rooms")
    mix: MixConfig | None = None  # None: `data` alone
    out: Path = Path("runs/rooms")
    holdout: bool = False  # train on train:fit and evaluate on train:hold, so that nothing is chosen on val
    photo: float = Field(0.0, ge=0, le=1)  # how often a camera's flaws are added (edgemtl/data/photo.py); 0: never
    preload: bool = True  # the whole training split into memory, in small types; else files are read as needed
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    batch: int = Field(32, ge=1, le=4096)
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    balancer: BalancerConfig = BalancerConfig()
    sharpness: float = Field(0.0, ge=0, le=10)  # radius of per-task sharpness-aware minimisation; 0: none
    accumulate: int = Field(1, ge=1, le=4096)  # parts that a process's share of a batch is computed in
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False  # torch.compile stem, attention and heads: pays on a GPU, after minutes of compiling
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights that are evaluated and exported; 0: none
    log_every: int = Field(20, ge=1)
    usage_every: int = Field(200, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    val_images: int = Field(200, ge=0)  # evaluated after each stage; 0: none
    tensorboard: bool = False  # write event files to OUT/tensorboard as well

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.preset not in PRESETS:
            raise ValueError(f"there is no preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
        order = [("shared", "open", "paths").index(s.name) for s in self.stages]
        if order != sorted(set(order)):
            raise ValueError("stages must come in the order shared, open, paths, each at most once")
        model, names = self.model_config_for("multi"), ", ".join(ModelConfig.model_fields)
        if self.stages[0].name == "shared":
            self.model_config_for("single")
        for stage in self.stages:
            if stage.name == "paths" and not model.moe_blocks:
                raise ValueError("stage paths declares experts, but no block of this model has any: leave it out")
            if stage.name == "paths" and not model.top_k <= stage.experts_per_path <= model.experts:
                raise ValueError(
                    f"experts_per_path {stage.experts_per_path} must lie between top_k {model.top_k} and the "
                    f"{model.experts} experts"
                )
            if stage.widths and model.router == "dselect_k":
                raise ValueError("router dselect_k chooses the same number of experts always: leave widths out")
            if stage.tasks_per_step is not None and stage.tasks_per_step > len(model.tasks):
                raise ValueError(f"tasks_per_step {stage.tasks_per_step} is more than the {len(model.tasks)} tasks")
        usable = {*model.task_names, *kinds.names()}
        for key in self.loss.weights:
            if key not in usable:
                raise ValueError(f"loss.weights: there is no task {key!r}; choose from {', '.join(sorted(usable))}")
        if self.network != "vit" and [s.name for s in self.stages] != ["shared"]:
            raise ValueError(f"network {self.network!r} has no gates; give it the one stage shared")
        if self.stem is not None and self.network == "bisenet":
            raise ValueError("network 'bisenet' is trained from scratch; leave out stem, or take bisenet-lite0")
        parts = {"bisenet": 32, "bisenet-lite0": 16}.get(self.network, 1)
        if any(side % parts for side in model.image_size):
            raise ValueError(f"network {self.network!r} needs sides of image_size that are multiples of {parts}")
        if self.stem is not None and self.network == "vit" and not model.head_norm:
            raise ValueError("a stem comes with its batch norms: leave out head_norm, or stem")
        if self.stem is not None and self.network == "vit" and model.stem == "patch":
            raise ValueError("stem: this model embeds patches; leave it out, or take preset hybrid")
        if self.conditioned and self.stages[0].name == "shared":
            raise ValueError("a conditioned gate is trained from the start: leave out stage shared")
        if {"gate", "paths", "slots", "widths"} & set(self.model):
            raise ValueError(f"gate, paths, slots and widths are set by the stages; model may change {names}")
        return self

    def model_config_for(self, gate: Literal["multi", "single"]) -> ModelConfig:
        """The model's configuration with this kind of gate, before any path is declared."""
        try:
            kind = "conditioned" if self.conditioned and gate == "multi" else gate
            config = preset(self.preset, **{**self.model, "gate": kind})
            if self.tasks is None:
                return config
            for name in self.tasks:
                if name not in config.task_names:
                    raise ValueError(f"tasks: there is no task {name!r}; choose from {', '.join(config.task_names)}")
            return ModelConfig(**{**dict(config), "tasks": tuple(config.task(name) for name in self.tasks)})
        except ValidationError as e:
            raise ValueError(first_error(e, "model")) from None


def first_error(error: ValidationError, what: str) -> str:
    """The first problem of a validation in one sentence, with the place and a guess at a misspelt key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), sorted(_known_keys()), 1)
        return f"{what}: unknown key {where!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{what}: {where}: {message}" if where else f"{what}: {message}"


def _known_keys() -> set[str]:
    classes = (
        TrainConfig,
        StageConfig,
        MixConfig,
        OptimiserConfig,
        ScheduleConfig,
        LossConfig,
        BalancerConfig,
        ModelConfig,
    )
    return {key for cls in classes for key in cls.model_fields}


def shipped(*, studies: bool = False) -> dict[str, Path]:
    """Recipes, or studies, that come with edgemtl: {name: file}."""
    folder = Path(str(importlib.resources.files("edgemtl.train") / "configs"))
    return {p.stem: p for p in sorted(folder.glob("*.yaml")) if p.stem.startswith("study_") == studies}


def load_train_config(path: str | Path) -> TrainConfig:
    """Read a YAML recipe, or a shipped one by its name.

    Raises ConfigError in one sentence for a missing file, bad YAML, an unknown key or a value that cannot work.
    """
    import yaml

    file = Path(path)
    if not file.is_file():
        known = shipped()
        if str(path) not in known:
            raise ConfigError(f"there is no recipe {str(path)!r}; give a YAML file or one of {', '.join(known)}")
        file = known[str(path)]
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(e).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold a mapping with at least `stages`; see {shipped()['rooms_tiny']}")
    try:
        return TrainConfig(**content)
    except ValidationError as e:
        raise ConfigError(first_error(e, str(file))) from None
    except TypeError as e:
        raise ConfigError(f"{file}: {e}") from None
