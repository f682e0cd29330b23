"""Several processes, one training: `torchrun --nproc-per-node N -m edgemtl train RECIPE`, on one machine or more.

Every process takes its share of each batch and divides its losses by the counts of the whole batch, so the sum of the
processes' gradients is the gradient of one process with the joint batch. The sum is taken once per step, after the
backward passes, and not in DistributedDataParallel's hooks: these would see every task's backward pass of a
conflict-free method, and wait for experts that no token chose.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from edgemtl.errors import ConfigError


class Group:
    """The processes of a run; alone, every method does nothing and costs nothing."""

    def __init__(self, rank: int = 0, world: int = 1) -> None:
        self.rank, self.world = rank, world
        self._joined = False

    @classmethod
    def from_environment(cls, device: str = "cpu") -> Group:
        """Join the processes that torchrun started, by nccl on "cuda" and by gloo else; alone without torchrun.

        Raises ConfigError for an environment that is only half set, or a process without a device of its own.
        """
        found = {k: os.environ.get(k) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
        if found["WORLD_SIZE"] is None:
            return cls()
        missing = [k for k, v in found.items() if v is None]
        if missing:
            raise ConfigError(f"WORLD_SIZE is set, but {', '.join(missing)} is not; start the processes with torchrun")
        if device == "cuda":
            local = int(found["LOCAL_RANK"] or 0)
            if local >= torch.cuda.device_count():
                raise ConfigError(
                    f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
                    "give torchrun --nproc-per-node no more than that"
                )
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        group = cls(dist.get_rank(), dist.get_world_size())
        group._joined = True
        return group

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def check_batch(self, batch: int, parts: int) -> None:
        """Raises ConfigError unless a batch divides into `parts` of every process."""
        if batch % (self.world * parts):
            raise ConfigError(
                f"a batch of {batch} does not divide into {self.world} process(es) x {parts} part(s); "
                f"give a multiple of {self.world * parts}"
            )

    def share(self, indices: list[int]) -> list[int]:
        """This process's part of a batch's indices."""
        size = len(indices) // self.world
        return indices[self.rank * size : (self.rank + 1) * size] if self.world > 1 else indices

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype by their sums over the processes; in one message."""
        if self.world > 1 and tensors:
            flat = torch.cat([t.flatten() for t in tensors])
            dist.all_reduce(flat)
            for t, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                t.copy_(part.view_as(t))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum every parameter's gradient; one that no process has stays None."""
        if self.world == 1:
            return
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.sum([used])
        self.sum([p.grad for p in parameters if p.grad is not None])
        for p, count in zip(parameters, used.tolist(), strict=True):
            if not count:
                p.grad = None

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        if self.world == 1:
            return flag
        value = torch.tensor([float(flag)], device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(value)
        return bool(value.item())

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over the processes, with the gradient of this process's own part."""
        if self.world == 1:
            return value
        whole = value.detach().clone()
        dist.all_reduce(whole)
        return value + (whole - value.detach())

    def from_first(self, text: str) -> str:
        """The first process's text, in every process."""
        if self.world == 1:
            return text
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        raw = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
        length = torch.tensor([len(raw)], device=device)
        dist.broadcast(length, 0)
        raw = raw if self.first else torch.empty(int(length), dtype=torch.uint8, device=device)
        dist.broadcast(raw, 0)
        return bytes(raw.tolist()).decode()

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        for t in [*module.parameters(), *module.buffers()] if self.world > 1 else ():
            dist.broadcast(t.data, 0)

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()

    def close(self) -> None:
        if self._joined:
            dist.destroy_process_group()
            self._joined = False
