"""The training loop: stages, steps, checkpoints, exact continuation.

Everything random is a pure function of the seed and the step, so a run that is stopped and resumed gives the same
losses as one that is not (to the bit on one thread). The sequence of stages is M3ViT's pre-training with one gate
(Liang et al., NeurIPS 2022), then gates per task, then declared paths.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import edgemtl
from edgemtl import tasks as kinds
from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.model.checkpoint import load_checkpoint, to_multi_gate, write_atomic
from edgemtl.model.stem_files import load_stem
from edgemtl.model.vit import MultiTaskViT
from edgemtl.train.balancers import Balancer, make_balancer
from edgemtl.train.comparators import Network, load_network, make_network, save_network
from edgemtl.train.config import StageConfig, TrainConfig
from edgemtl.train.data import Samples, batches, chunks, spread
from edgemtl.train.evaluate import evaluate, summary, torch_predictor
from edgemtl.train.losses import class_weights
from edgemtl.train.optim import Average, build_optimiser, lr_factor, optimiser_tensors, restore_optimiser
from edgemtl.train.parallel import Group
from edgemtl.train.path_report import PathReport, report_on
from edgemtl.train.path_report import summary as path_summary
from edgemtl.train.paths import draw_width
from edgemtl.train.report import Log, Reporter, collapsed, expert_usage
from edgemtl.train.start import choose_device, initial, restored, static_parts
from edgemtl.train.state import FILE, Position, RunState, load_state, save_state
from edgemtl.train.step import Stepper
from edgemtl.train.stopping import stop_on_signal
from edgemtl.train.tasks import find
from edgemtl.train.tensorboard import Board

REPORT_IMAGES = 128  # that the report on fine-tuned paths is measured on


class Stopped(Exception):  # noqa: N818
    """The run was asked to stop; its state is saved. The text says how to go on."""


@dataclass
class Sets:
    """`train` may augment; `plain` is the training split without, for rankings; `val` is evaluated after stages."""

    train: Samples
    plain: Samples
    val: Samples | None = None


class Trainer:
    """One run in folder `out`: state.safetensors, log.jsonl, STAGE.safetensors per stage, and model.safetensors.

    Declared paths are reported in paths-declared.json, by the open gates, and in paths.json, after fine-tuning.
    """

    def __init__(
        self, recipe: TrainConfig, out: Path, sets: Sets, reporter: Reporter, group: Group | None = None
    ) -> None:
        self.recipe, self.out, self.sets, self.reporter = recipe, out, sets, reporter
        self.group = group or Group()
        self.device = choose_device(recipe.device)
        self.at = Position()
        self.class_weight: dict[str, Tensor] = {}
        self._stop = threading.Event()
        self._stop_at: int | None = None
        self.log: Log
        self.model: Network
        self.optimiser: torch.optim.Optimizer
        self.average: Average | None = None
        self.balancer: Balancer
        self.stepper: Stepper

    def run(self, *, resume: bool = False, init: Path | None = None, stop_after: int | None = None) -> Path:
        """Train to the end and return the path of model.safetensors; `stop_after` steps, stop as if interrupted.

        Raises Stopped after SIGINT or SIGTERM, when the state is saved.
        """
        state: dict[str, Tensor] | None = None
        config = self.recipe.model_config_for("single" if self.recipe.stages[0].name == "shared" else "multi")
        stored = None
        if resume:
            if init is not None:
                raise ConfigError("--resume continues with the run's own weights; leave out --init")
            stored = load_state(self.out, self.recipe)
            self.at, config = stored.position, restored(stored, self.recipe)
        elif (self.out / FILE).exists():
            raise ConfigError(f"{self.out} already holds a run; add --resume to go on, or give another --out")
        elif init is not None and self.recipe.network != "vit":
            raise ConfigError(f"network {self.recipe.network} is trained from scratch; leave out --init")
        elif init is not None:
            config, state, fresh = initial(init, config, self.recipe.seed)
            if fresh:
                self.reporter.line(f"{init} has no {', '.join(fresh)} of this shape: they start anew")
        self._stop_at = None if stop_after is None else self.at.total + stop_after
        self.log = self._open_log()
        try:
            with self.reporter, stop_on_signal(self._stop):
                if stored is not None:
                    self.class_weight = {k: v.to(self.device) for k, v in stored.part("class_weight").items()}
                    self._build(config, self._stage, stored.part("model"))
                    restore_optimiser(self.model, self.optimiser, stored.part("optimiser"))
                    if self.average:
                        self.average.load(stored.part("average"), self.at.averaged)
                    if stored.part("balancer"):
                        self.balancer.load(stored.part("balancer"))
                else:
                    self.log.write("run", edgemtl=edgemtl.__version__, recipe=self.recipe.model_dump(mode="json"))
                    self._weigh_classes(config)
                    self._enter(config, state)
                return self._stages()
        finally:
            self.log.close()

    def _open_log(self) -> Log:
        """In the first process; the others write nothing."""
        if not self.group.first:
            return Log(None)
        board = Board(self.out / "tensorboard", self.at.total) if self.recipe.tensorboard else None
        return Log(self.out / "log.jsonl", self.at.log_bytes, board)

    @property
    def _stage(self) -> StageConfig:
        return self.recipe.stages[self.at.stage]

    def _steps(self, stage: StageConfig) -> int:
        if stage.steps is not None:
            return stage.steps
        images = len(self.sets.train)
        batch = min(stage.batch or self.recipe.batch, images)
        return max(1, round((stage.epochs or 0) * (images // batch)))

    def _stages(self) -> Path:
        while True:
            self._train_stage()
            self._finish_stage()
            if self.at.stage + 1 == len(self.recipe.stages):
                path = self.out / "model.safetensors"
                if self.group.first:
                    self._export(path)
                self.group.wait()
                return path
            config, state = self.model.config, {k: v.clone() for k, v in self._result().items()}
            self.at = Position(self.at.stage + 1, 0, self.at.total, self.at.seen)
            self._enter(config, state)

    def _enter(self, config: ModelConfig, state: dict[str, Tensor] | None) -> None:
        """Rebuild the model for the current stage and carry the weights over."""
        stage = self._stage
        if stage.name != "shared" and state is not None:
            config, state = to_multi_gate(config, state)
        if stage.name == "paths":
            self._build(config.model_copy(update={"paths": {}}), stage, state)
            assert isinstance(self.model, MultiTaskViT)  # the recipe allows stages with gates for no other
            self.reporter.line(f"ranking experts over {min(stage.rank_images, len(self.sets.plain))} images")
            images, experts = stage.rank_images, stage.experts_per_path
            with self._quick():
                report = report_on(self.model, self.sets.plain, images=images, experts_per_path=experts)
            changes = {"paths": report.paths, "widths": stage.trained_widths}
            config = ModelConfig(**{**dict(self.model.config), **changes})
            # ranked alike everywhere, but for rounding on another machine
            config = ModelConfig.model_validate_json(self.group.from_first(config.model_dump_json()))
            self._tell_paths(report, "paths-declared.json")
            state = {k: v.clone() for k, v in self.model.state_dict().items()}
            self.log.write("paths", step=self.at.total, paths={k: list(v) for k, v in config.paths.items()})
        self._build(config, stage, state)

    def _build(self, config: ModelConfig, stage: StageConfig, state: Mapping[str, Tensor] | None) -> None:
        torch.manual_seed(self.recipe.seed)
        model = make_network(self.recipe.network, config)
        if state is not None:
            model.load_state_dict(state)
        elif self.recipe.stem is not None:
            model.get_submodule(str(model.STEM)).load_state_dict(load_stem(self.recipe.stem))
        # the heads' convolutions are several times faster with channels last
        self.model = model.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.group.copy_from_first(self.model)
        if self.recipe.compile:
            for part in static_parts(self.model):
                part.compile()
        self.optimiser = build_optimiser(self.model, self.recipe.optimiser)
        given = self.recipe.loss.weights
        weights = {t.name: given.get(t.name, given.get(t.kind, find(t.kind).weight)) for t in config.tasks}
        self.balancer = make_balancer(self.recipe.balancer, config.task_names, weights)
        self.stepper = Stepper(self.model, self.recipe, self.group, self.balancer, self._quick)
        self.average = Average(self.model, self.recipe.ema) if self.recipe.ema else None

    def _weigh_classes(self, config: ModelConfig) -> None:
        semantic = [t for t in config.tasks if kinds.find(t.kind).classes]
        if self.recipe.loss.class_weights == "none" or not semantic:
            return
        self.reporter.line("counting the classes' pixels")
        labels: dict[str, list[Tensor]] = {t.name: [] for t in semantic}
        for indices in chunks(spread(self.sets.plain, 512), 16):
            batch = self.sets.plain.batch(indices)
            for name, found in labels.items():
                found.append(batch[name].flatten())
        for task in semantic:
            weight = class_weights(torch.cat(labels[task.name]), task.channels)
            self.class_weight[task.name] = weight.to(self.device)
            self.log.write("class_weights", task=task.name, weights=weight.tolist())

    def _train_stage(self) -> None:
        stage, steps = self._stage, self._steps(self._stage)
        batch = min(stage.batch or self.recipe.batch, len(self.sets.train))
        self.group.check_batch(batch, self.recipe.accumulate)
        self.reporter.stage(stage.name, self.at.step, steps)
        if self.at.step == 0:
            self.log.write("stage", name=stage.name, step=self.at.total, steps=steps)
        left, seed = steps - self.at.step, self.recipe.seed
        source = batches(self.sets.train, self.at.seen, batch, left, seed, self.group.share)
        with contextlib.closing(source):
            for seen, samples in source:
                self._step(stage, steps, {k: v.to(self.device) for k, v in samples.items() if _is_tensor(v)})
                self.at.seen = seen
                self.reporter.step(batch)
                if self.at.total % self.recipe.log_every == 0 or self.at.step == steps:
                    self._write_losses()
                stop = self.group.any(self._stop.is_set() or self.at.total == self._stop_at)
                if stop or self.at.step == steps or self.at.total % self.recipe.checkpoint_every == 0:
                    self.save()
                if stop:
                    raise Stopped(f"stopped in stage {stage.name} after {self.at.step} of {steps} steps")

    def _step(self, stage: StageConfig, steps: int, batch: dict[str, Tensor]) -> None:
        recipe, config = self.recipe, self.model.config
        torch.manual_seed(recipe.seed + self.at.total + 1_000_003 * self.group.rank)  # each process its own noise
        lr = (stage.lr or recipe.optimiser.lr) * lr_factor(stage.schedule or recipe.schedule, self.at.step, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        weights = self.balancer.weights()
        if config.widths:
            assert isinstance(self.model, MultiTaskViT)
            width = draw_width(config.widths, recipe.seed, self.at.total)
            self.model.open_paths(width)
            config = config.at_width(width)
        done = self.stepper(batch, self._tasks(stage, config), self.at.total, self.class_weight)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optimiser.clip or math.inf)
        values = {**done.losses, "balance": done.balance, "norm": norm}
        numbers = dict(zip(values, torch.stack([v.detach().float() for v in values.values()]).tolist(), strict=True))
        losses = {task: numbers[task] for task in done.losses}
        numbers["loss"] = recipe.loss.balance * numbers["balance"] + sum(weights[t] * n for t, n in losses.items())
        if not all(map(math.isfinite, numbers.values())):
            raise ConfigError(
                f"the loss is no longer finite in step {self.at.total} ({numbers}); lower optimiser.lr and start again"
            )
        self.balancer.update(losses)
        self.optimiser.step()
        if self.average:
            self.average.update()
            self.at.averaged += 1
        for name, number in numbers.items():
            if name in losses and not number:
                continue  # no image of the batch has this task's label
            entry = self.at.window.setdefault(name, [0.0, 0])
            entry[0], entry[1] = entry[0] + number, entry[1] + 1
        self.at.step, self.at.total = self.at.step + 1, self.at.total + 1
        if self.at.total % recipe.usage_every == 0:
            usage = expert_usage(done.routings, config)
            warnings = collapsed(usage, config)
            opened: dict[str, Any] = {"width": config.widths[-1]} if config.widths else {}
            self.log.write("usage", step=self.at.total, stage=stage.name, **opened, share=usage, warnings=warnings)
            for warning in warnings:
                self.reporter.line(f"warning: {warning}")

    def _tasks(self, stage: StageConfig, config: ModelConfig) -> tuple[str, ...]:
        """All tasks, or a random `tasks_per_step` of them: a pure function of seed and step."""
        names = config.task_names
        if stage.tasks_per_step is None:
            return names
        rng = np.random.Generator(np.random.PCG64([self.recipe.seed, 1, self.at.total]))
        chosen = set(rng.choice(len(names), stage.tasks_per_step, replace=False).tolist())
        return tuple(name for i, name in enumerate(names) if i in chosen)

    @contextlib.contextmanager
    def _quick(self) -> Iterator[None]:
        """Autocast as the recipe says; on a CPU also attention as plain products, 4 times the fused kernel's speed."""
        with contextlib.ExitStack() as stack:
            if self.recipe.precision == "bf16":
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            if self.device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            yield

    def _write_losses(self) -> None:
        order = [k for k in ("loss", *self.model.config.task_names, "balance", "norm") if k in self.at.window]
        means = {k: self.at.window[k][0] / self.at.window[k][1] for k in order}
        self.at.window = {}
        lr = self.optimiser.param_groups[0]["lr"]
        rate = round(self.reporter.rate, 2)
        stage = self._stage.name
        self.log.write("step", step=self.at.total, stage=stage, lr=lr, losses=means, images_per_second=rate)
        self.reporter.losses(self.at.step, means)

    def _result(self) -> dict[str, Tensor]:
        """What the stage made: the weights, averaged ones where there are; buffers are never averaged."""
        return {**self.model.state_dict(), **(self.average.state() if self.average else {})}

    def _tell_paths(self, report: PathReport, file: str) -> None:
        if not self.group.first:
            return
        write_atomic(self.out / file, report.model_dump_json(indent=1).encode() + b"\n")
        for line in path_summary(report):
            self.reporter.line(line)

    def _finish_stage(self) -> None:
        """Write and evaluate what the stage made, in the first process; the others wait at their next message."""
        if not self.group.first:
            return
        self._export(self.out / f"{self._stage.name}.safetensors")
        if self._stage.name == "paths":
            masked, _ = load_checkpoint(self.out / "paths.safetensors")
            images = min(self._stage.rank_images, REPORT_IMAGES)
            self._tell_paths(report_on(masked.to(self.device), self.sets.plain, images=images), "paths.json")
        if self.sets.val is None or not self.recipe.val_images:
            return
        model = load_network(self.out / f"{self._stage.name}.safetensors")
        results = evaluate(
            torch_predictor(model.to(self.device)), self.sets.val, model.config, limit=self.recipe.val_images, batch=8
        )
        self.log.write("eval", step=self.at.total, stage=self._stage.name, metrics=results)
        self.reporter.line(f"after {self._stage.name}: {summary(results)}")

    def _export(self, path: Path) -> None:
        stage = self._stage.name
        origin = f"edgemtl {edgemtl.__version__} train, stage {stage}, {self.at.total} steps, seed {self.recipe.seed}"
        save_network(self.recipe.network, path, self._result(), self.model.config, origin)

    def save(self) -> None:
        """Write the run's state, in the first process."""
        if not self.group.first:
            return
        self.at.log_bytes = self.log.size
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"optimiser/{k}": v for k, v in optimiser_tensors(self.model, self.optimiser).items()}
        tensors |= {f"average/{k}": v for k, v in (self.average.state() if self.average else {}).items()}
        tensors |= {f"balancer/{k}": v for k, v in self.balancer.state().items()}
        tensors |= {f"class_weight/{k}": v for k, v in self.class_weight.items()}
        config = self.model.config.model_dump(mode="json")
        save_state(self.out, RunState(self.at, config, tensors), self.recipe)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)
