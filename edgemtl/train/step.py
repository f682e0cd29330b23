"""The gradients of one step: parts of a batch, processes, tasks balanced or made sharpness-aware.

Whatever is cut - the batch into parts that fit memory, the parts among processes - the losses are those of the whole
batch, because every part is divided by the whole's counts. The balance loss of the gates is not a mean over pixels:
it is taken per part, over all processes.

Per-task sharpness-aware minimisation (Phan et al., "Improving Multi-task Learning via Seeking Task-based Flat
Regions", 2022, after Foret et al., ICLR 2021): each task's gradient is taken where the weights have moved `radius`
along that task's own gradient; the balancer combines these. Two passes per task instead of one for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from edgemtl.config import TaskConfig
from edgemtl.model.gates import Routing, balance_loss
from edgemtl.model.moe import MoE
from edgemtl.model.vit import MultiTaskViT, Trace
from edgemtl.train.balancers import Balancer
from edgemtl.train.comparators import Network
from edgemtl.train.config import TrainConfig
from edgemtl.train.losses import count_labels, task_losses
from edgemtl.train.parallel import Group

Quick = Callable[[], contextlib.AbstractContextManager[None]]
Batch = Mapping[str, Tensor]


@dataclass
class Outcome:
    """A step's unweighted losses over the joint batch, the gates' balance loss, and the last part's routings."""

    losses: dict[str, Tensor] = field(default_factory=dict)
    balance: Tensor = field(default_factory=lambda: torch.zeros(()))
    routings: dict[tuple[str, int], Routing] = field(default_factory=dict)

    def add(self, losses: Mapping[str, Tensor], balance: Tensor, trace: Trace) -> None:
        for task, loss in losses.items():
            self.losses[task] = self.losses.get(task, 0) + loss.detach()
        self.balance = self.balance.to(balance.device) + balance.detach()
        self.routings |= trace.routings


class Stepper:
    """Fills the gradients of `model` for one batch."""

    def __init__(self, model: Network, recipe: TrainConfig, group: Group, balancer: Balancer, quick: Quick) -> None:
        self.model, self.recipe, self.group, self.balancer, self.quick = model, recipe, group, balancer, quick
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.kinds: dict[str, TaskConfig] = {t.name: t for t in model.config.tasks}

    def __call__(self, batch: Batch, tasks: tuple[str, ...], step: int, class_weight: Batch) -> Outcome:
        """Gradients of this process's share `batch`, summed over the processes; step: the run's, for the losses."""
        parts = self._parts(batch)
        counted = self._count(parts, tasks, step, class_weight)
        for p in self.parameters:
            p.grad = None

        def forward(part: Batch, names: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor, Trace]:
            with self.quick():
                seen = {"fov": part["fov"]} if self.model.config.rays and "fov" in part else {}
                maps, trace = self.model.trace(part["image"].contiguous(), names, **seen)
            options = self.recipe.loss
            losses = task_losses(maps, part, self.kinds, options, step=step, class_weight=class_weight, counted=counted)
            return losses, self._balance(trace) / len(parts), trace

        outcome = Outcome()
        if self.recipe.sharpness:
            self._sharpness_aware(parts, tasks, forward, outcome)
        elif self.balancer.per_task:
            self._per_task(parts, tasks, forward, outcome)
        else:
            self._joint(parts, tasks, forward, outcome)
        return outcome

    def _joint(self, parts: list[Batch], tasks: tuple[str, ...], forward: Forward, outcome: Outcome) -> None:
        weights = self.balancer.weights()
        for part in parts:
            losses, balance, trace = forward(part, tasks)
            total = self.recipe.loss.balance * balance
            for task, loss in losses.items():
                total = total + weights[task] * loss
            total.backward()
            outcome.add(losses, balance, trace)
        self.group.sum_gradients(self.parameters)
        self.group.sum(list(outcome.losses.values()))

    def _per_task(self, parts: list[Batch], tasks: tuple[str, ...], forward: Forward, outcome: Outcome) -> None:
        weights, total = self.balancer.weights(), Gathered(self.parameters, (*tasks, ""))
        for part in parts:
            losses, balance, trace = forward(part, tasks)
            for task, loss in losses.items():
                total.add(task, weights[task] * loss)
            total.add("", self.recipe.loss.balance * balance)
            outcome.add(losses, balance, trace)
        self.group.sum(list(outcome.losses.values()))
        self._combine(total, tasks, outcome)

    def _sharpness_aware(self, parts: list[Batch], tasks: tuple[str, ...], forward: Forward, outcome: Outcome) -> None:
        weights, total = self.balancer.weights(), Gathered(self.parameters, (*tasks, ""))
        # with one gate for all, every task's pass notes the same balance loss
        share = 1 / len(tasks) if self.model.config.gate == "single" else 1.0
        for task in tasks:
            ascent = Gathered(self.parameters, (task,))
            for part in parts:
                losses, balance, trace = forward(part, (task,))
                ascent.add(task, weights[task] * losses[task])
                outcome.add(losses, share * balance, trace)
            self.group.sum([ascent.rows[task]])
            with self._moved(ascent.rows[task]):
                for part in parts:
                    losses, balance, _ = forward(part, (task,))
                    total.add(task, weights[task] * losses[task])
                    total.add("", share * self.recipe.loss.balance * balance)
        self.group.sum(list(outcome.losses.values()))
        self._combine(total, tasks, outcome)

    @contextlib.contextmanager
    def _moved(self, direction: Tensor) -> Iterator[None]:
        """The weights `sharpness` further along `direction` [n]; then as they were, to the bit."""
        before = [p.detach().clone() for p in self.parameters]
        length = float(direction.norm())
        try:
            with torch.no_grad():
                for p, part in zip(self.parameters, _split(direction, self.parameters), strict=True):
                    p.add_(part, alpha=self.recipe.sharpness / max(length, 1e-12))
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, before, strict=True):
                    p.copy_(value)

    def _combine(self, total: Gathered, tasks: tuple[str, ...], outcome: Outcome) -> None:
        """Let the balancer make one gradient of the tasks'; those without labels in this batch have no say."""
        self.group.sum([*total.rows.values(), total.used])
        losses = {t: float(loss) for t, loss in outcome.losses.items()}
        names = tuple(t for t in tasks if total.rows[t].any())
        whole = total.rows[""]
        if names:
            whole = whole + self.balancer.combine(names, torch.stack([total.rows[t] for t in names]), losses)
        for p, part, used in zip(self.parameters, _split(whole, self.parameters), total.used.tolist(), strict=True):
            p.grad = part.clone(memory_format=torch.preserve_format) if used else None

    def _parts(self, batch: Batch) -> list[Batch]:
        size = -(-len(batch["image"]) // self.recipe.accumulate)
        return [{k: v[i : i + size] for k, v in batch.items()} for i in range(0, len(batch["image"]), size)]

    def _count(
        self, parts: list[Batch], tasks: tuple[str, ...], step: int, class_weight: Batch
    ) -> dict[str, Tensor] | None:
        """What the whole batch's labels count; None where this batch is the whole, which then counts itself."""
        if len(parts) == 1 and self.group.world == 1:
            return None
        kinds, options = [self.kinds[t] for t in tasks], self.recipe.loss
        counts = [count_labels(p, kinds, options, step=step, class_weight=class_weight) for p in parts]
        whole = {t: torch.stack([c[t] for c in counts]).sum(0) for t in tasks}
        self.group.sum(list(whole.values()))
        return whole

    def _balance(self, trace: Trace) -> Tensor:
        if self.group.world == 1:
            return trace.balance.float()
        total = torch.zeros((), device=trace.balance.device)
        for (task, block), routing in trace.routings.items():
            assert isinstance(self.model, MultiTaskViT)
            moe = self.model.backbone.blocks[block].mlp
            assert isinstance(moe, MoE)
            mask = moe.path_mask(task)
            total = total + balance_loss(routing._replace(penalty=None), mask, self.group.total)
            if routing.penalty is not None:
                total = total + self.group.total(routing.penalty) / self.group.world
        return total


Forward = Callable[[Batch, tuple[str, ...]], tuple[dict[str, Tensor], Tensor, Trace]]


class Gathered:
    """One flat gradient [n] per name, and which parameters had any."""

    def __init__(self, parameters: list[nn.Parameter], names: tuple[str, ...]) -> None:
        self.parameters = parameters
        first, size = parameters[0], sum(p.numel() for p in parameters)
        self.rows = {name: torch.zeros(size, device=first.device) for name in names}
        self.used = torch.zeros(len(parameters), device=first.device)

    def add(self, name: str, loss: Tensor) -> None:
        """Add the gradient of `loss` to the row of `name`; a loss of nothing adds nothing."""
        if not loss.requires_grad:
            return
        found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        for i, (gradient, row) in enumerate(zip(found, _split(self.rows[name], self.parameters), strict=True)):
            if gradient is not None:
                row.add_(gradient)
                self.used[i] = 1


def _split(flat: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Views of a flat vector, in the parameters' shapes."""
    parts = flat.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
