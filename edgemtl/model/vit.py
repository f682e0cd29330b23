"""The multi-task vision transformer: shared trunk, per-task gates and heads, and its exact single-task slice.

M3ViT (Liang et al., NeurIPS 2022): patch embedding, class token, pre-norm blocks; even blocks have a dense MLP, odd
blocks a mixture of experts. The hybrid has a convolution stem instead of patches (edgemtl/model/stem.py), no class
token, and heads that also read the stem's finer features. What does not depend on the task (everything before the first
gate) runs once for all tasks asked for. Parameter names follow M3ViT's checkpoints, with `heads` for its `decoders`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.bundle.deployable import held
from edgemtl.config import ModelConfig
from edgemtl.errors import TaskError
from edgemtl.graph import lite0
from edgemtl.model.gates import DSelectGate, Gate, Routing, TaskVector, balance_loss
from edgemtl.model.head import make_head
from edgemtl.model.moe import AnyGate, MoE
from edgemtl.model.stem import Lite0Stem


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection, qkv [3C, C]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """fc1, exact GELU, fc2."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block; its feed-forward part is dense in even blocks and a mixture of experts in odd ones."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        dim, eps = config.dim, config.norm_eps
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, config.heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp: Mlp | MoE
        if index not in config.moe_blocks:
            self.mlp = Mlp(dim, config.mlp_hidden)
            return
        which = config.moe_blocks.index(index)
        held = config.held[which]
        paths = {t: tuple(held.index(e) for e in path[which]) for t, path in config.paths.items()}
        gates = config.task_names if config.gate == "multi" else ("shared",)
        hidden, k = config.expert_hidden, config.top_k
        make_gate = functools.partial(_make_gate, config, len(held))
        self.mlp = MoE(dim, hidden, len(held), k, gates, paths, renormalise=config.renormalise, make_gate=make_gate)

    def attend(self, x: Tensor) -> Tensor:
        return x + self.attn(self.norm1(x))


def _make_gate(config: ModelConfig, experts: int) -> AnyGate:
    if config.router == "dselect_k":
        return DSelectGate(config.dim, experts, config.top_k)
    inputs = config.dim + (config.condition_dim if config.gate == "conditioned" else 0)
    noisy = config.router == "noisy"
    return Gate(inputs, experts, learned_noise=noisy, noise_std=config.noise_std, bias=config.gate_bias)


class PatchEmbed(nn.Module):
    """A convolution whose kernel and stride are the patch."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch, config.patch)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class Backbone(nn.Module):
    """Parameters of the trunk; the way of a frame through them is `MultiTaskViT`'s."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.stem == "lite0":
            self.stem = Lite0Stem(norm=config.head_norm)
            if config.depth:
                self.embed = nn.Linear(lite0.PYRAMID[-1], config.dim)
        else:
            self.patch_embed = PatchEmbed(config)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
        if config.depth:
            self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.depth))
        if config.gate == "conditioned":
            self.gate_task_represent = TaskVector(len(config.tasks), config.condition_dim, config.norm_eps)


class Prefix(NamedTuple):
    """What no task changes: tokens [B, N, C], and of the hybrid its stem's features at 1/4, 1/8 and 1/16 of the image.

    `rays` [B, 2, H / 4, W / 4], where a head reads them: x and y of each pixel's ray at unit depth, x right, y up.
    """

    tokens: Tensor
    pyramid: tuple[Tensor, ...] = ()
    rays: Tensor | None = None


class Trace(NamedTuple):
    """What a forward pass noted: the balance loss, and each gate's routing per (task, MoE block)."""

    balance: Tensor
    routings: dict[tuple[str, int], Routing]


class MultiTaskViT(nn.Module):
    """`model(image)` returns {task: raw map [B, channels, H / head_stride, W / head_stride]}.

    image: float [B, 3, H, W], normalised with the configuration's `image_mean` and `image_std`. `fov` [B]: each image's
    horizontal field of view in degrees, for heads that read rays; the configuration's where it is NaN or not given.
    """

    STEM = "backbone.stem"  # where a stem's weights go

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.heads = nn.ModuleDict({t.name: make_head(config, t) for t in config.tasks})
        self.apply(_init_linear)

    def forward(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> dict[str, Tensor]:
        return self.trace(image, tasks, fov)[0]

    def trace(
        self, image: Tensor, tasks: Sequence[str] | None = None, fov: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Trace]:
        """Like a call, and also the balance loss and the routings. All tasks when `tasks` is None.

        The tasks' token streams are stacked along the batch, so that dense layers run once over all of them; with a
        single shared gate and no paths there is only one stream, and the heads alone differ.
        """
        tasks = self._known(self.config.task_names if tasks is None else tasks)
        batch, routings = len(image), {}
        streams: Sequence[str] = tasks if self._task_dependent(tasks) else tasks[:1]
        vectors = {task: self.vector(task) for task in tasks} if self.config.gate == "conditioned" else {}
        shared = self.prefix(image, fov)
        x = shared.tokens
        balance = x.new_zeros(())
        first = self._first_gate()
        for i in range(first, self.config.depth):
            block = self._block(i)
            if i > first:
                x = block.attend(x)
            if isinstance(block.mlp, Mlp):
                x = x + block.mlp(block.norm2(x))
                continue
            if i == first:
                x = x.repeat(len(streams), 1, 1)
            tokens = block.norm2(x).flatten(0, 1)
            rows = len(tokens) // len(streams)
            parts: list[Routing] = []
            for s, task in enumerate(streams):
                routing = block.mlp.route(tokens[s * rows : (s + 1) * rows], task, vectors.get(task))
                routings[task, i] = routing
                balance = balance + balance_loss(routing, block.mlp.path_mask(task))
                parts.append(routing)
            index = torch.cat([r.expert for r in parts])
            score = torch.cat([r.score for r in parts])
            x = x + block.mlp.apply_experts(tokens, index, score).view_as(x)
        out = {}
        for t, task in enumerate(tasks):
            s = t if len(streams) > 1 else 0
            out[task] = self._map(task, x[s * batch : (s + 1) * batch], shared)
        return out, Trace(balance, routings)

    def open_paths(self, width: int | None = None) -> None:
        """Let every task choose among the first `width` experts of its declared path alone; None: the whole path."""
        for i in self.config.moe_blocks:
            moe = self._block(i).mlp
            assert isinstance(moe, MoE)
            moe.open_paths(width)

    def vector(self, task: str) -> Tensor:
        """What the conditioned gates read of `task`: [condition_dim]."""
        represent: TaskVector = self.backbone.gate_task_represent
        out: Tensor = represent(self.config.task_names.index(task))
        return out

    def prefix(self, image: Tensor, fov: Tensor | None = None) -> Prefix:
        """Everything that no task changes: embedding or stem, and the blocks up to the first gate."""
        bb, first = self.backbone, self._first_gate()
        pyramid: tuple[Tensor, ...] = ()
        if self.config.stem == "patch":
            x = bb.patch_embed(image)
            x = torch.cat([bb.cls_token.expand(len(x), -1, -1), x], 1) + bb.pos_embed
        else:
            pyramid = bb.stem(image)
            x = pyramid[-1].flatten(2).transpose(1, 2)
            if self.config.depth:
                x = bb.embed(x) + bb.pos_embed
        for i in range(first):
            block = self._block(i)
            x = block.attend(x)
            assert isinstance(block.mlp, Mlp)
            x = x + block.mlp(block.norm2(x))
        x = self._block(first).attend(x) if first < self.config.depth else x
        return Prefix(x, pyramid, self._rays(image, fov) if self.config.rays else None)

    def suffix(self, shared: Prefix, task: str) -> Tensor:
        """Raw map of `task`, whose gates read nothing but tokens, from what `prefix` gave."""
        x, first = shared.tokens, self._first_gate()
        for i in range(first, self.config.depth):
            block = self._block(i)
            if i > first:
                x = block.attend(x)
            if isinstance(block.mlp, Mlp):
                x = x + block.mlp(block.norm2(x))
            else:
                tokens = block.norm2(x).flatten(0, 1)
                index, score = block.mlp.route(tokens, task)[:2]
                x = x + block.mlp.apply_experts(tokens, index, score).view_as(x)
        return self._map(task, x, shared)

    def _map(self, task: str, tokens: Tensor, shared: Prefix) -> Tensor:
        head = self.heads[task]
        out: Tensor = head(tokens, shared.pyramid, shared.rays) if shared.pyramid else head(tokens)
        return out

    def _first_gate(self) -> int:
        """The first block with experts, or how many blocks there are."""
        return self.config.moe_blocks[0] if self.config.moe_blocks else self.config.depth

    def _rays(self, image: Tensor, fov: Tensor | None) -> Tensor:
        """x and y at unit depth of the rays through the raw map's pixels: [B, 2, H / 4, W / 4]."""
        own, (rows, columns) = self.config.fov, self.config.map_size
        assert own is not None
        degrees = image.new_full((len(image),), own)
        if fov is not None:
            degrees = torch.where(fov.isnan(), degrees, fov.to(degrees))
        half = (degrees.deg2rad() / 2).tan().view(-1, 1, 1)
        x = (torch.arange(columns, device=image.device) * 2 + 1 - columns) / columns
        y = (rows - 1 - torch.arange(rows, device=image.device) * 2) / columns
        shape = (len(image), rows, columns)
        return torch.stack([(half * x).expand(shape), (half * y[:, None]).expand(shape)], 1)

    def slice(self, task: str) -> MultiTaskViT:
        """The model of `task` alone: trunk, this task's gates, the experts of its path, its head; same outputs."""
        (task,) = self._known([task])
        config = self.config
        if config.gate != "multi":
            raise TaskError("a model with one shared gate has no task paths to slice; convert it with to_multi_gate")
        if config.router == "dselect_k":
            raise TaskError("a model with router dselect_k cannot be sliced; train it with noisy_vmoe or noisy instead")
        kept = config.alone(task)
        reference = next(self.parameters())
        with torch.device("meta"):
            model = MultiTaskViT(kept)
        model = model.to_empty(device=reference.device).to(reference.dtype)
        full = self.state_dict()
        state = {key: held(config, kept.held, key, full[key]) for key in model.state_dict()}
        model.load_state_dict(state)
        return model.train(self.training)

    def _block(self, i: int) -> Block:
        block = self.backbone.blocks[i]
        assert isinstance(block, Block)
        return block

    def _task_dependent(self, tasks: Sequence[str]) -> bool:
        return (
            len(tasks) > 1
            and bool(self.config.moe_blocks)
            and (self.config.gate != "single" or bool(self.config.paths))
        )

    def _known(self, tasks: Sequence[str]) -> tuple[str, ...]:
        for task in tasks:
            if task not in self.config.task_names:
                raise TaskError(f"there is no task {task!r}; this model has {', '.join(self.config.task_names)}")
        if not tasks:
            raise TaskError(f"no task was asked for; this model has {', '.join(self.config.task_names)}")
        return tuple(tasks)


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
