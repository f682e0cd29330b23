"""From a PyTorch model to exported graphs: the shared prefix, and per task what is left of its slice.

MoE layers are two opaque nodes in these graphs, `edgemtl::route` and `edgemtl::experts` (edgemtl/model/moe.py).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl.model.vit import MultiTaskViT, Prefix
from edgemtl_compiler.cpu.patterns import PREFIX
from edgemtl_compiler.toolchain import failing


class _Prefix(nn.Module):
    def __init__(self, model: MultiTaskViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.prefix(image).tokens


class _Suffix(nn.Module):
    def __init__(self, model: MultiTaskViT, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.suffix(Prefix(tokens), self.task)


@dataclass(frozen=True)
class Exported:
    """One function's graph. `keys` maps the graph's parameter names to keys of the model's state."""

    name: str
    program: ExportedProgram
    keys: dict[str, str]
    input: tuple[int, ...]
    output: tuple[int, ...]


def check_config(config: ModelConfig, *, kernels: bool = True) -> None:
    """Raises CompileError, naming the setting, for what no program can compute; with `kernels`, for what this project's
    kernels do not cover.
    """
    if config.gate != "multi":
        raise CompileError("a model with one shared gate has no task paths to compile; convert it with to_multi_gate")
    if config.router == "dselect_k":
        raise CompileError(
            "a gate of router dselect_k can be trained and evaluated but not compiled; train with router noisy_vmoe"
        )
    if config.stem != "patch":
        raise CompileError(
            f"a model with stem {config.stem} has no programs yet: compile it with --target torch, for backend torch"
        )
    if not kernels:
        return
    head = config.dim // config.heads
    for what, value in (("dim / heads", head), ("dim", config.dim), ("head_dim", config.head_dim)):
        if value % 16:
            raise CompileError(f"{what} is {value}; the kernels need a multiple of 16")


def export_prefix(model: MultiTaskViT, batch: int = 1) -> Exported:
    """Image to tokens: all that no task changes. `batch`: images at once."""
    config = model.config
    return _export(PREFIX, _Prefix(model), (batch, 3, *config.image_size), (batch, config.tokens, config.dim))


def export_task(piece: MultiTaskViT, batch: int = 1) -> Exported:
    """Tokens to the raw map, of a slice: a model that holds one task's gates, experts and head alone."""
    config = piece.config
    (task,) = config.tasks
    return _export(
        task.name,
        _Suffix(piece, task.name),
        (batch, config.tokens, config.dim),
        (batch, task.channels, *config.map_size),
    )


def _export(name: str, module: nn.Module, shape: tuple[int, ...], output: tuple[int, ...]) -> Exported:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's own deprecations; nothing a caller could act on
        with failing(f"PyTorch cannot export {name!r}"):
            program = torch.export.export(module.eval(), (torch.zeros(shape),))
    prefix = "model."
    keys = {arg: key.removeprefix(prefix) for arg, key in program.graph_signature.inputs_to_parameters.items()}
    return Exported(name, program, keys, shape, output)
