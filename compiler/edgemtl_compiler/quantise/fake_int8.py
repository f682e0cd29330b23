"""The INT8 model in PyTorch: float arithmetic on values rounded as the kernels round them ("fake quantisation").

It says what INT8 costs before anything is compiled, one unit at a time if asked, and a test holds the compiled program
to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.bundle.layout import AllCodes, Codes, Packed, entries, unpack_state
from edgemtl.config import ModelConfig
from edgemtl.model.moe import MoE
from edgemtl.model.vit import Attention, Mlp, MultiTaskViT

# Phi(x) - 1/2 = x * (a polynomial in x^2) on -4..4, |error of GELU| < 2e-4: gelu_coarse of kernels/gemm_i8.h.
PHI = (
    2.258763842633016e-08,
    -1.5887952713455888e-06,
    4.7763191105332226e-05,
    -0.000812180049251765,
    0.008763650432229042,
    -0.06455431133508682,
    0.39787018299102783,
)


def rounded(x: Tensor, codes: Codes) -> Tensor:
    """x as INT8 codes hold it."""
    code = torch.round(x * (1 / codes.step) - codes.centre / codes.step).clamp(-127, 127)
    return code * codes.step + codes.centre


def gelu_coarse(x: Tensor) -> Tensor:
    """GELU as the kernels compute it where INT8 follows."""
    z = x.clamp(-4, 4)
    p = torch.full_like(z, PHI[0])
    for c in PHI[1:]:
        p = p * (z * z) + c
    return x * (z * p + 0.5)


def fake_model(config: ModelConfig, parts: Mapping[str, Mapping[str, Packed]], codes: AllCodes) -> MultiTaskViT:
    """The model that `parts`, packed with `codes`, holds, with its activations rounded where `codes` says."""
    state = unpack_state(config, lambda part, tensor: parts[part][tensor])
    model = MultiTaskViT(config)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    banks: dict[str, dict[int, Codes]] = {}
    for entry in entries(config):
        if entry.ref not in codes:
            continue
        module = entry.sources[0][0].rsplit(".", 1)[0]
        if entry.kind == "expert":
            banks.setdefault(module.rsplit(".", 2)[0], {})[entry.row] = codes[entry.ref][1]
        else:
            model.get_submodule(module).register_forward_pre_hook(partial(_round_input, codes[entry.ref][0]))
        if module.endswith(".qkv"):
            attention = model.get_submodule(module.rsplit(".", 1)[0])
            assert isinstance(attention, Attention)
            setattr(attention, "forward", partial(_attention, attention))  # noqa: B010
        if module.endswith(".fc2"):
            mlp = model.get_submodule(module.rsplit(".", 1)[0])
            assert isinstance(mlp, Mlp)
            setattr(mlp, "forward", partial(_mlp, mlp))  # noqa: B010
    for name, hidden in banks.items():
        moe = model.get_submodule(name)
        assert isinstance(moe, MoE)
        setattr(moe, "apply_experts", partial(_experts, moe, hidden))  # noqa: B010
    return model.eval()


def _round_input(codes: Codes, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (rounded(args[0], codes),)


def own_codes(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Codes of x by its own largest magnitudes along `axis`, and what one of them is worth."""
    reach = x.abs().amax(axis, keepdim=True)
    inverse = torch.where(reach > 0, 127 / reach, 0)
    return torch.round(x * inverse).clamp(-127, 127), reach / 127


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention [.., tokens, size] as kernels/attention_i8.h computes it; sums of codes are whole, so exact."""
    (queries, per_query), (keys, per_key), (values, per_value) = own_codes(q, -1), own_codes(k, -1), own_codes(v, -2)
    scores = queries @ keys.transpose(-1, -2) * per_key.transpose(-1, -2)
    scores = (scores - scores.amax(-1, keepdim=True)) * (per_query / math.sqrt(q.shape[-1]))
    levels = torch.round(254 * scores.exp())
    return levels @ values * per_value / levels.sum(-1, keepdim=True)


def _attention(attention: Attention, x: Tensor) -> Tensor:
    batch, tokens, dim = x.shape
    qkv = attention.qkv(x).reshape(batch, tokens, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    return attention.proj(products(*qkv.unbind(0)).transpose(1, 2).reshape(batch, tokens, dim))


def _mlp(mlp: Mlp, x: Tensor) -> Tensor:
    return mlp.fc2(gelu_coarse(mlp.fc1(x)))


def _experts(moe: MoE, hidden: Mapping[int, Codes], tokens: Tensor, index: Tensor, score: Tensor) -> Tensor:
    """MoE.apply_experts with the tokens, scaled by the norm before, and the hidden values rounded."""
    bank: Any = moe.experts
    x, out = rounded(tokens, Codes(1.0)), torch.zeros_like(tokens)
    for e, codes in sorted(hidden.items()):
        row, which = (index == e).nonzero(as_tuple=True)
        if not len(row):
            continue
        inner = gelu_coarse(F.linear(x[row], bank.htoh4.weight[e], bank.htoh4.bias[e]))
        part = F.linear(rounded(inner, codes), bank.h4toh.weight[e], bank.h4toh.bias[e])
        out.index_add_(0, row, part * score[row, which].unsqueeze(-1))
    return out
