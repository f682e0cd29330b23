"""The gates: from tokens to chosen experts and their weights, and the loss that keeps experts in use.

M3ViT's two gates (Liang et al., NeurIPS 2022). `noisy_vmoe`: softmax over all experts, then top-k, not renormalised;
fixed noise while training. `noisy` (Shazeer et al., ICLR 2017): top-k, then softmax over the chosen; learned noise.
Balance loss of both: CV²(importance) + CV²(load). `dselect_k` (Hazimeh et al., NeurIPS 2021): k selectors, each an
expert's number in smooth bits. What is new: experts outside a task's declared path are masked before the softmax, so
that a model holding only the path is exact.

One routing rule everywhere: ties go to the lower expert index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE_FLOOR = 0.01  # least standard deviation of learned noise
_TINY = 1e-20  # of a probability, before its logarithm


class Routing(NamedTuple):
    """Which experts each token chose.

    expert: int64 [n, k], positions in the bank; score: [n, k], weight of each chosen expert; prob: [n, E] softmax.
    load: [E], tokens expected per expert under the noise, with a gradient; None where tokens are simply counted.
    penalty: the gate's own share of the balance loss, or None.
    """

    expert: Tensor
    score: Tensor
    prob: Tensor
    load: Tensor | None = None
    penalty: Tensor | None = None


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


def expected_load(clean: Tensor, noisy: Tensor, std: Tensor, top_k: int, mask: Tensor | None = None) -> Tensor:
    """[E]: per expert, the number of tokens that would choose it if its noise were drawn anew.

    clean, noisy: logits [n, E] without and with noise of standard deviation `std`, which broadcasts to them. An
    expert among the best k must then still beat the (k+1)-th of the others' logits, another one the k-th. M3ViT
    compares `noisy_vmoe`'s logits with softmaxed ones there; here both are logits.
    """
    open_ = torch.ones_like(clean[0], dtype=torch.bool) if mask is None else mask
    ranked = noisy.masked_fill(~open_, float("-inf")).sort(dim=-1, descending=True, stable=True)
    chosen = torch.zeros_like(open_).expand(clean.shape).scatter(1, ranked.indices[:, :top_k], value=True)
    if top_k >= int(open_.sum()):
        return chosen.sum(0).to(clean.dtype)
    bar = torch.where(chosen, ranked.values[:, top_k : top_k + 1], ranked.values[:, top_k - 1 : top_k])
    return (torch.special.ndtr((clean - bar) / std) * open_).sum(0)


def balance_loss(
    routing: Routing, mask: Tensor | None = None, total: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """CV²(importance) + CV²(load) over the experts of the path, and the gate's penalty; CV² = var / (mean² + 1e-10).

    `total` sums importance and load over the processes that share a batch.
    """
    importance = routing.prob.new_zeros(routing.prob.shape[-1]).index_add(
        0, routing.expert.flatten(), routing.score.flatten()
    )
    load = routing.load
    if load is None:
        load = torch.bincount(routing.expert.flatten(), minlength=routing.prob.shape[-1]).to(importance.dtype)
    if total is not None:
        importance, load = total(importance), total(load)
    if mask is not None:
        importance, load = importance[mask], load[mask]
    loss = _cv_squared(importance) + _cv_squared(load)
    return loss if routing.penalty is None else loss + routing.penalty


def _cv_squared(values: Tensor) -> Tensor:
    if values.numel() < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)


class Gate(nn.Module):
    """M3ViT's gate: `w_gate` [C, E], or [C + V, E] of which the last V rows read the task's vector.

    `w_noise`, like w_gate, is there with learned noise; `noise_std` is the fixed noise's. `bias` [E] is optional.
    """

    def __init__(
        self, inputs: int, experts: int, *, learned_noise: bool = False, noise_std: float = 0.0, bias: bool = False
    ) -> None:
        super().__init__()
        self.noise_std = noise_std
        self.w_gate = nn.Parameter(torch.empty(inputs, experts))
        nn.init.normal_(self.w_gate, std=0.02)
        self.w_noise = nn.Parameter(torch.zeros(inputs, experts)) if learned_noise else None
        self.bias = nn.Parameter(torch.zeros(experts)) if bias else None

    def forward(
        self, tokens: Tensor, top_k: int, mask: Tensor | None, renormalise: bool, vector: Tensor | None = None
    ) -> Routing:
        """Route tokens [n, C], with the task's vector [V] where the gate reads one."""
        clean = self._read(self.w_gate, tokens, vector)
        if self.bias is not None:
            clean = clean + self.bias
        std = self._noise(tokens, vector) if self.training else None
        if std is None:
            return route(clean, top_k, mask=mask, renormalise=renormalise)
        noisy = clean + torch.randn_like(clean) * std
        routing = route(noisy, top_k, mask=mask, renormalise=renormalise)
        return routing._replace(load=expected_load(clean, noisy, std, top_k, mask))

    def _read(self, weight: Tensor, tokens: Tensor, vector: Tensor | None) -> Tensor:
        width = tokens.shape[-1]
        assert vector is not None or len(weight) == width, "a conditioned gate needs its task's vector"
        out = gate_logits(tokens, weight[:width], exact=not self.training)
        return out if vector is None else out + vector @ weight[width:]

    def _noise(self, tokens: Tensor, vector: Tensor | None) -> Tensor | None:
        """Standard deviation of the logits' noise, [n, E] or one number; None without noise."""
        if self.w_noise is not None:
            return F.softplus(self._read(self.w_noise, tokens, vector)) + NOISE_FLOOR
        return tokens.new_tensor(self.noise_std / self.w_gate.shape[1]) if self.noise_std else None


def smooth_step(t: Tensor) -> Tensor:
    """0 up to -1/2, 1 from 1/2 on, and the cubic -2t³ + 3t/2 + 1/2 between."""
    t = t.clamp(-0.5, 0.5)
    return t * (1.5 - 2 * t * t) + 0.5


class DSelectGate(nn.Module):
    """DSelect-k: k selectors of log2(E) smooth bits, `w_bits` [C, k, log2 E], mixed by a softmax, `w_mix` [C, k].

    Each selector's bits give a distribution over the experts, which is one expert once the bits are 0 or 1; their
    entropy is the penalty that brings this about. The paper evaluates all experts with a weight while training; here
    the k heaviest alone, as at inference, so that a step costs what it costs with the other gates.
    """

    def __init__(self, inputs: int, experts: int, top_k: int) -> None:
        super().__init__()
        bits = experts.bit_length() - 1
        self.w_bits = nn.Parameter(torch.empty(inputs, top_k, bits))
        self.w_mix = nn.Parameter(torch.empty(inputs, top_k))
        for w in (self.w_bits, self.w_mix):
            nn.init.normal_(w, std=0.02)

    def weights(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Each token's weights of all experts [n, E], which sum to 1, and the selectors' mean entropy in nats."""
        bit = smooth_step(torch.einsum("nc,ckb->nkb", tokens, self.w_bits))
        position = torch.arange(bit.shape[-1], device=bit.device)
        code = (torch.arange(2 ** len(position), device=bit.device).unsqueeze(-1) >> position & 1).bool()  # [E, bits]
        selector = torch.where(code, bit.unsqueeze(2), 1 - bit.unsqueeze(2)).prod(-1)  # [n, k, E]
        mix = (tokens @ self.w_mix).softmax(-1)
        safe = torch.stack([bit, 1 - bit]).clamp(min=_TINY)
        entropy = -(safe * safe.log()).sum((0, 3)).mean()  # of independent bits: the sum of theirs
        return (mix.unsqueeze(-1) * selector).sum(1), entropy

    def forward(
        self, tokens: Tensor, top_k: int, mask: Tensor | None, renormalise: bool, vector: Tensor | None = None
    ) -> Routing:
        weight, entropy = self.weights(tokens)
        routing = route(weight.clamp(min=_TINY).log(), top_k, mask=mask, renormalise=renormalise)
        return routing._replace(penalty=entropy / math.log(weight.shape[-1]))


class TaskVector(nn.Module):
    """What a conditioned gate knows of its task: one-hot [T] to a vector [V], by fc1, GELU, fc2, LayerNorm.

    The paper has no LayerNorm and a ReLU; this is its released code.
    """

    def __init__(self, tasks: int, width: int, eps: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(tasks, width)
        self.fc2 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, task: int) -> Tensor:
        """Vector [V] of the task with this number."""
        first = self.fc1.weight[:, task] + self.fc1.bias  # fc1 of the one-hot vector
        out: Tensor = self.norm(self.fc2(F.gelu(first)))
        return out
