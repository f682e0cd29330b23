"""Task-gated sparse experts: declared paths and expert-by-expert evaluation.

Implements the MoE layer of M3ViT (Liang et al., NeurIPS 2022): gates (edgemtl/model/gates.py) over a shared bank of
two-layer experts. Parameter names and shapes follow M3ViT's checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.config import ExpertIds
from edgemtl.model.gates import DSelectGate, Gate, Routing

AnyGate = Gate | DSelectGate


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


class MoE(nn.Module):
    """A block's expert bank and its gates, one per task (or a single one called "shared").

    `paths` gives, per task with a declared path, positions *in this bank*, most used first; `make_gate` makes one gate,
    a plain one of `noisy_vmoe` by default.
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
        make_gate: Callable[[], AnyGate] | None = None,
    ) -> None:
        super().__init__()
        self.paths, self.top_k, self.most, self.renormalise = paths, top_k, top_k, renormalise
        self.experts = Experts(experts, dim, hidden)
        self.gate = nn.ModuleDict({name: make_gate() if make_gate else Gate(dim, experts) for name in gates})
        for task in paths:
            self.register_buffer(f"path_{task}", torch.empty(experts, dtype=torch.bool), persistent=False)
        self.open_paths()

    def open_paths(self, width: int | None = None) -> None:
        """Open the first `width` experts of each declared path; a token then chooses no more than these."""
        self.top_k = self.most if width is None else min(self.most, width)
        for task, path in self.paths.items():
            mask = torch.zeros_like(self.get_buffer(f"path_{task}"))  # a new one: a graph may still hold the old
            mask[list(path[:width])] = True
            setattr(self, f"path_{task}", mask)

    def path_mask(self, task: str) -> Tensor | None:
        """Bool [E], True on the task's declared path; None when every expert is open to it."""
        return getattr(self, f"path_{task}", None)

    def gate_of(self, task: str) -> AnyGate:
        gate = self.gate[task if task in self.gate else "shared"]
        assert isinstance(gate, Gate | DSelectGate)
        return gate

    def w_gate(self, task: str) -> Tensor:
        """[C, E], of a gate that is this matrix and at most a bias."""
        gate = self.gate_of(task)
        assert isinstance(gate, Gate)
        return gate.w_gate

    def route(self, tokens: Tensor, task: str, vector: Tensor | None = None) -> Routing:
        """Route tokens [n, C] for `task`; `vector` [V] is the task's, for a conditioned gate."""
        with torch.autocast(tokens.device.type, enabled=False):  # bfloat16 logits tie, and balance sums saturate
            routing: Routing = self.gate_of(task)(tokens, self.top_k, self.path_mask(task), self.renormalise, vector)
        return routing

    def apply_experts(self, tokens: Tensor, index: Tensor, score: Tensor) -> Tensor:
        """Σ_k score · expert(tokens) for tokens [n, C]."""
        bank = self.experts
        return sparse_experts(
            tokens, index, score, bank.htoh4.weight, bank.htoh4.bias, bank.h4toh.weight, bank.h4toh.bias
        )
