"""One task's network in the forms that peers run: plain PyTorch, experts sparse or dense, from the model's own classes.

"sparse": every expert over exactly the tokens that chose it. "dense": all experts over all tokens as two large
products, weighted by scores that are zero where a token did not choose. "plain": a model without experts, whose
single-expert banks become MLPs. All three compute the same map. The gate is one matrix product here, the fastest form
for every peer; edgemtl's own exact gate would cost them time.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.model.moe import MoE
from edgemtl.model.vit import Block, Mlp, MultiTaskViT

Form = Literal["sparse", "dense", "plain"]


class _Routed(nn.Module):
    """The gate: scores [n, k] and positions [n, k] of the chosen experts."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__()
        self.top_k, self.renormalise = moe.top_k, moe.renormalise
        self.gate = nn.Parameter(moe.w_gate(task).detach().clone())

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        score, index = (tokens @ self.gate).softmax(-1).topk(self.top_k, dim=-1)
        return (score / score.sum(-1, keepdim=True) if self.renormalise else score), index


class SparseExperts(_Routed):
    """The bank as one custom op, which torch.compile does not look into."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__(moe, task)
        self.bank = moe.experts

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        score, index = self.route(tokens)
        up, down = self.bank.htoh4, self.bank.h4toh
        out: Tensor = torch.ops.edgemtl.experts(
            tokens, index, score, residual, up.weight, up.bias, down.weight, down.bias
        )
        return out


class ListedExperts(_Routed):
    """The same for ONNX: a tensor per expert, so that each becomes an initialiser of its own."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__(moe, task)
        importlib.import_module("edgemtl_compiler.onnx.export")  # registers edgemtl::expert_list
        up, down = moe.experts.htoh4, moe.experts.h4toh
        rows = zip(up.weight, up.bias, down.weight, down.bias, strict=True)
        self.weights = nn.ParameterList(nn.Parameter(w.detach().clone()) for row in rows for w in row)

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        score, index = self.route(tokens)
        out: Tensor = torch.ops.edgemtl.expert_list(tokens, index, score, residual, list(self.weights))
        return out


class DenseExperts(_Routed):
    """All experts over all tokens: one product into E·H, scores applied there, one product back."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__(moe, task)
        up, down = moe.experts.htoh4, moe.experts.h4toh
        experts, hidden, dim = up.weight.shape
        self.experts, self.hidden = experts, hidden
        self.w1 = nn.Parameter(up.weight.detach().reshape(experts * hidden, dim).t().contiguous())
        self.b1 = nn.Parameter(up.bias.detach().reshape(-1).clone())
        self.w2 = nn.Parameter(down.weight.detach().transpose(1, 2).reshape(experts * hidden, dim).contiguous())
        self.b2 = nn.Parameter(down.bias.detach().clone())

    def forward(self, tokens: Tensor, residual: Tensor) -> Tensor:
        score, index = self.route(tokens)
        empty = torch.zeros(tokens.shape[0], self.experts, dtype=score.dtype, device=score.device)
        weight = empty.scatter(1, index, score)
        hidden = F.gelu(tokens @ self.w1 + self.b1).reshape(-1, self.experts, self.hidden)
        hidden = (hidden * weight.unsqueeze(-1)).reshape(-1, self.experts * self.hidden)
        return residual + hidden @ self.w2 + weight @ self.b2


def _as_mlp(moe: MoE) -> Mlp:
    """A bank of one expert, whose score is always 1, as the MLP that it is."""
    up, down = moe.experts.htoh4, moe.experts.h4toh
    (hidden, dim) = up.weight.shape[1:]
    mlp = Mlp(dim, hidden)
    pairs = ((mlp.fc1, up), (mlp.fc2, down))
    for linear, expert in pairs:
        linear.weight = nn.Parameter(expert.weight[0].detach().clone())
        linear.bias = nn.Parameter(expert.bias[0].detach().clone())
    return mlp


class _Layer(nn.Module):
    def __init__(self, block: Block, task: str, form: Form, *, listed: bool) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = block.norm1, block.attn, block.norm2
        self.feed: nn.Module = block.mlp
        if isinstance(block.mlp, MoE):
            if form == "plain":
                self.feed = _as_mlp(block.mlp)
            elif form == "dense":
                self.feed = DenseExperts(block.mlp, task)
            else:
                self.feed = (ListedExperts if listed else SparseExperts)(block.mlp, task)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        if isinstance(self.feed, Mlp):
            x = x + self.feed(self.norm2(x))
            return x
        shape = x.shape
        flat = x.reshape(-1, shape[-1])
        out: Tensor = self.feed(self.norm2(flat), flat)
        return out.reshape(shape)


class Network(nn.Module):
    """Image [1, 3, H, W] to the raw map of one task, in one form. `listed`: for ONNX."""

    def __init__(self, model: MultiTaskViT, task: str, form: Form, *, listed: bool = False) -> None:
        super().__init__()
        part = model.slice(task)
        bb = part.backbone
        self.patch_embed, self.cls_token, self.pos_embed = bb.patch_embed, bb.cls_token, bb.pos_embed
        self.layers = nn.ModuleList(_Layer(b, task, form, listed=listed) for b in bb.blocks if isinstance(b, Block))
        self.head = part.heads[task]

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.head(x)
        return out


class Alone(nn.Module):
    """One head of a network that gives {task: map}, such as BiSeNet's kind."""

    def __init__(self, model: nn.Module, task: str) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image, [self.task])[self.task]
        return out


def onnx_proto(network: Network | Alone, size: tuple[int, int], opset: int) -> Any:
    """The network (made with `listed`) as an ONNX model of exactly `opset`.

    Opset 18 has neither Gelu nor Attention and gets them as smaller ops; 23 has both.
    """
    import onnx_ir  # noqa: F401  the exporter's own; imported first so that its absence is one clear error
    import onnxscript

    op: Any = getattr(onnxscript, f"opset{opset}")

    def gelu(x: Any) -> Any:
        return op.Gelu(x) if opset >= 20 else op.Mul(op.Mul(x, 0.5), op.Add(op.Erf(op.Mul(x, 0.5**0.5)), 1.0))

    def experts(tokens: Any, index: Any, score: Any, residual: Any, weights: Any) -> Any:
        out = residual
        for e in range(len(weights) // 4):
            w1, b1, w2, b2 = weights[4 * e : 4 * e + 4]
            pairs = op.Transpose(op.NonZero(op.Equal(index, e)), perm=[1, 0])  # [m, 2]: row, choice
            rows = op.Gather(pairs, [0], axis=1)
            hidden = gelu(op.Gemm(op.GatherND(tokens, rows), w1, b1, transB=1))
            weight = op.Unsqueeze(op.GatherND(score, pairs), [1])
            out = op.ScatterND(out, rows, op.Mul(op.Gemm(hidden, w2, b2, transB=1), weight), reduction="add")
        return out

    table: dict[Any, Any] = {}
    if isinstance(network, Network) and any(isinstance(layer.feed, ListedExperts) for layer in network.layers):
        table[torch.ops.edgemtl.expert_list.default] = experts
    with torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, *size),),
            dynamo=True,
            opset_version=opset,
            input_names=["image"],
            output_names=["map"],
            verbose=False,
            custom_translation_table=table,
        )
    assert program is not None
    proto = program.model_proto
    found = [o.version for o in proto.opset_import if o.domain == ""]
    if found != [opset]:
        raise RuntimeError(f"the exporter gave opset {found} instead of {opset}")
    return proto
