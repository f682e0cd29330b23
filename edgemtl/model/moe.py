"""Task-gated sparse experts: gate, declared path, top-k, and expert-by-expert evaluation.

Implements the MoE layer of M3ViT (Liang et al., NeurIPS 2022): one gate per task over a shared bank of two-layer
experts, softmax over the experts, top-k without renormalisation, and the balance loss CV²(importance) + CV²(load)
of Shazeer et al. (ICLR 2017). Parameter names and shapes follow M3ViT's checkpoints. What is new: the experts
outside a task's declared path are masked before the softmax, so that a model holding only the path is exact.

One routing rule everywhere: ties go to the lower expert index.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.config import ExpertIds


class Routing(NamedTuple):
    """Which experts each token chose.

    expert: int64 [n, k], positions in the bank; score: [n, k], weight of each chosen expert; prob: [n, E] softmax.
    """

    expert: Tensor
    score: Tensor
    prob: Tensor


def gate_logits(tokens: Tensor, w_gate: Tensor, *, exact: bool) -> Tensor:
    """Logits [n, E] of tokens [n, C] under w_gate [C, E].

    `exact` sums each expert's column on its own: then a logit does not depend on which other experts the matrix
    holds, and equal columns give equal bits. A matrix product promises neither, because its blocking depends on E.
    """
    if exact:
        return (tokens.unsqueeze(-2) * w_gate.t().contiguous()).sum(-1)
    return tokens @ w_gate


def route(logits: Tensor, top_k: int, *, mask: Tensor | None = None, renormalise: bool = False) -> Routing:
    """Choose `top_k` experts per token from logits [n, E]; `mask` [E] is True where the task's path has the expert.

    Experts are ranked by logit (equal logits: the lower index first), and weighted by the softmax over the path.
    """
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    prob = logits.softmax(-1)
    index = logits.sort(dim=-1, descending=True, stable=True).indices[:, :top_k]
    score = prob.gather(-1, index)
    if renormalise:
        score = score / score.sum(-1, keepdim=True)
    return Routing(index, score, prob)


def balance_loss(routing: Routing, mask: Tensor | None = None) -> Tensor:
    """CV²(importance) + CV²(load) over the experts of the path; CV² = var / (mean² + 1e-10)."""
    importance = routing.prob.new_zeros(routing.prob.shape[-1]).index_add(
        0, routing.expert.flatten(), routing.score.flatten()
    )
    load = torch.bincount(routing.expert.flatten(), minlength=routing.prob.shape[-1]).to(importance.dtype)
    if mask is not None:
        importance, load = importance[mask], load[mask]
    return _cv_squared(importance) + _cv_squared(load)


def _cv_squared(values: Tensor) -> Tensor:
    if values.numel() < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)


class Expert(nn.Module):
    """A stack of linear layers, one per expert: weight [E, out, in], bias [E, out]."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(experts, outputs))
        for w in self.weight:
            nn.init.trunc_normal_(w, std=0.02)


class Experts(nn.Module):
    """The bank: `htoh4` [E, hidden, C] then GELU then `h4toh` [E, C, hidden], as M3ViT names them."""

    def __init__(self, experts: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.htoh4 = Expert(experts, dim, hidden)
        self.h4toh = Expert(experts, hidden, dim)


@torch.library.custom_op("edgemtl::experts", mutates_args=())
def experts_op(
    tokens: Tensor,
    index: Tensor,
    score: Tensor,
    residual: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
) -> Tensor:
    """residual + Σ_k score · expert_index(tokens); one opaque node in an exported graph.

    tokens, residual [n, C]; index int64 [n, k]; score [n, k]; w1 [E, H, C], b1 [E, H], w2 [E, C, H], b2 [E, C].
    """
    return residual + sparse_experts(tokens, index, score, w1, b1, w2, b2)


@experts_op.register_fake
def _experts_fake(
    tokens: Tensor,
    index: Tensor,
    score: Tensor,
    residual: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
) -> Tensor:
    return torch.empty_like(residual)


@torch.library.custom_op("edgemtl::route", mutates_args=())
def route_op(tokens: Tensor, w_gate: Tensor, top_k: int, renormalise: bool) -> tuple[Tensor, Tensor]:
    """Index int64 [n, k] and score [n, k] of tokens [n, C] under w_gate [C, E]; one node in an exported graph."""
    routing = route(gate_logits(tokens, w_gate, exact=True), top_k, renormalise=renormalise)
    return routing.expert.contiguous(), routing.score.contiguous()


@route_op.register_fake
def _route_fake(tokens: Tensor, w_gate: Tensor, top_k: int, renormalise: bool) -> tuple[Tensor, Tensor]:
    shape = (tokens.shape[0], top_k)
    return tokens.new_empty(shape, dtype=torch.int64), tokens.new_empty(shape)


def sparse_experts(
    tokens: Tensor, index: Tensor, score: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor
) -> Tensor:
    """Σ_k score · expert(tokens) for [n, C]: each expert once, over exactly the tokens that chose it.

    The choices are sorted by expert (stable, so in token order) and every expert's rows form one product. Sums into
    a token run in ascending expert order, whatever other experts the bank holds.
    """
    k = index.shape[1]
    flat = index.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=w1.shape[0]).tolist()
    rows = order // k
    weight = score.flatten()[order].unsqueeze(-1)
    # Unbound once: indexing w1[e] in the loop would give each expert a gradient the size of the whole bank.
    banks = zip(tokens[rows].split(counts), weight.split(counts), *(w.unbind(0) for w in (w1, b1, w2, b2)), strict=True)
    parts = [F.linear(F.gelu(F.linear(x, u1, c1)), u2, c2) * s for x, s, u1, c1, u2, c2 in banks if len(x)]
    total = torch.zeros_like(tokens)
    return total.index_add(0, rows, torch.cat(parts).to(total.dtype)) if parts else total


class Gate(nn.Module):
    """One task's gate: `w_gate` [C, E], no bias."""

    def __init__(self, dim: int, experts: int) -> None:
        super().__init__()
        self.w_gate = nn.Parameter(torch.zeros(dim, experts))
        nn.init.normal_(self.w_gate, std=0.02)


class MoE(nn.Module):
    """A block's expert bank and its gates, one per task (or a single one called "shared").

    `paths` gives, per task with a declared path, positions *in this bank*.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        experts: int,
        top_k: int,
        gates: tuple[str, ...],
        paths: dict[str, ExpertIds],
        *,
        renormalise: bool = False,
    ) -> None:
        super().__init__()
        self.top_k, self.renormalise = top_k, renormalise
        self.experts = Experts(experts, dim, hidden)
        self.gate = nn.ModuleDict({name: Gate(dim, experts) for name in gates})
        for task, path in paths.items():
            mask = torch.zeros(experts, dtype=torch.bool)
            mask[list(path)] = True
            self.register_buffer(f"path_{task}", mask, persistent=False)

    def path_mask(self, task: str) -> Tensor | None:
        """Bool [E], True on the task's declared path; None when every expert is open to it."""
        return getattr(self, f"path_{task}", None)

    def w_gate(self, task: str) -> Tensor:
        gate = self.gate[task if task in self.gate else "shared"]
        assert isinstance(gate, Gate)
        return gate.w_gate

    def route(self, tokens: Tensor, task: str) -> Routing:
        """Route tokens [n, C] for `task`."""
        with torch.autocast(tokens.device.type, enabled=False):  # bfloat16 logits tie, and balance sums saturate
            logits = gate_logits(tokens, self.w_gate(task), exact=not self.training)
        return route(logits, self.top_k, mask=self.path_mask(task), renormalise=self.renormalise)

    def apply_experts(self, tokens: Tensor, index: Tensor, score: Tensor) -> Tensor:
        """Σ_k score · expert(tokens) for tokens [n, C]."""
        bank = self.experts
        return sparse_experts(
            tokens, index, score, bank.htoh4.weight, bank.htoh4.bias, bank.h4toh.weight, bank.h4toh.bias
        )

    def export_forward(self, tokens: Tensor, residual: Tensor, task: str) -> Tensor:
        """residual + experts(tokens) as two custom ops; only for a bank whose experts are all open to `task`."""
        bank = self.experts
        index, score = torch.ops.edgemtl.route(tokens, self.w_gate(task), self.top_k, self.renormalise)
        out: Tensor = torch.ops.edgemtl.experts(
            tokens,
            index,
            score,
            residual,
            bank.htoh4.weight,
            bank.htoh4.bias,
            bank.h4toh.weight,
            bank.h4toh.bias,
        )
        return out
