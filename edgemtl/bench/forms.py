"""One task's network in the forms that peers run: the product's own graph and model, their experts said otherwise.

"sparse": every expert over exactly the tokens that chose it. "dense": all experts over all tokens as two large
products, weighted by scores that are zero where a token did not choose. "plain": a model without experts, as it is. In
ONNX and in the dense form the gate is one matrix product, the fastest for every peer; edgemtl's own exact gate would
cost them time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.graph import Node, from_state, network
from edgemtl.model.gates import Gate
from edgemtl.model.moe import MoE
from edgemtl.model.vit import MultiTaskViT

if TYPE_CHECKING:
    from edgemtl_compiler.onnx.ops import Emit
    from edgemtl_compiler.onnx.writer import Writer

Form = Literal["sparse", "dense", "plain"]


def export(model: MultiTaskViT, task: str, form: Form, out: Path, opset: int) -> Path:
    """The ONNX file of one task, [1, 3, H, W] to its raw map. Opset 18 has neither Gelu nor Attention; 23 has both."""
    from edgemtl_compiler.onnx import export as onnx

    graph = network(model.config, task).whole
    instead: dict[str, Emit] = {"route": _route}
    if form == "plain" and model.config.moe_blocks:
        raise ValueError("a model with experts has no plain form")
    if form == "dense":
        instead["experts"] = _dense
    values = from_state({key: value.detach().numpy() for key, value in model.state_dict().items()})
    return onnx.export(graph, values, out, opset=opset, instead=instead).path


def _route(w: Writer, node: Node, x: str) -> tuple[str, str]:
    columns = list(node.attributes["columns"])
    gate, *bias = w.weight(node.weights[0], lambda a: a[..., columns])
    logits = w("MatMul", x, gate)
    logits = w("Add", logits, *bias) if bias else logits
    score, index = w("TopK", w("Softmax", logits, axis=-1), w.integers(node.attributes["top_k"]), outputs=2, axis=-1)
    if node.attributes["renormalise"]:
        score = w("Div", score, w("ReduceSum", score, w.integers(1), keepdims=1))
    return index, score


def _dense(w: Writer, node: Node, x: str, index: str, score: str, residual: str) -> str:
    from edgemtl_compiler.onnx.writer import gelu

    rows, experts, hidden = node.shape[0], len(node.weights), node.attributes["hidden"]
    up, up_bias, down, down_bias = zip(*map(w.values, node.weights), strict=True)
    weight = w("ScatterElements", w.constant(np.zeros((rows, experts), np.float32)), index, score, axis=1)
    wide = gelu(w, w("Gemm", x, w.constant(np.concatenate(up)), w.constant(np.concatenate(up_bias)), transB=1))
    each = w("Mul", w("Reshape", wide, w.integers(rows, experts, hidden)), w("Unsqueeze", weight, w.integers(2)))
    flat = w("Reshape", each, w.integers(rows, experts * hidden))
    y = w(
        "Gemm",
        flat,
        w.constant(np.concatenate(down, 1)),
        w("MatMul", weight, w.constant(np.stack(down_bias))),
        transB=1,
    )
    out: str = w("Add", y, residual)
    return out


class Dense(nn.Module):
    """The product's own slice of one task in PyTorch, its experts dense: image [B, 3, H, W] to raw map."""

    def __init__(self, model: MultiTaskViT, task: str) -> None:
        super().__init__()
        self.model, self.task = model.slice(task).eval(), task
        for block in self.model.backbone.blocks:
            if isinstance(block.mlp, MoE):
                block.mlp = _Dense(block.mlp, task)

    def forward(self, image: Tensor) -> Tensor:
        return self.model.suffix(self.model.prefix(image), self.task)


class _Dense(nn.Module):
    """All experts of a slice over all tokens: one product into E·H, scores applied there, one product back."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__()
        up, down = moe.experts.htoh4, moe.experts.h4toh
        self.top_k, self.renormalise = moe.top_k, moe.renormalise
        gate = moe.gate_of(task)
        assert isinstance(gate, Gate)
        self.gate, self.bias = gate.w_gate, gate.bias
        self.w1 = nn.Parameter(up.weight.detach().flatten(0, 1).t().contiguous())
        self.w2 = nn.Parameter(down.weight.detach().transpose(1, 2).flatten(0, 1).contiguous())
        self.b1, self.b2 = up.bias, down.bias  # [E, H] and [E, C]

    def route(self, tokens: Tensor, task: str) -> tuple[Tensor, Tensor]:
        logits = tokens @ self.gate if self.bias is None else torch.addmm(self.bias, tokens, self.gate)
        score, index = logits.softmax(-1).topk(self.top_k, dim=-1)
        return index, score / score.sum(-1, keepdim=True) if self.renormalise else score

    def apply_experts(self, tokens: Tensor, index: Tensor, score: Tensor) -> Tensor:
        weight = score.new_zeros(len(tokens), len(self.b1)).scatter(1, index, score)
        wide = F.gelu(torch.addmm(self.b1.flatten(), tokens, self.w1)).view(-1, *self.b1.shape)
        out: Tensor = (wide * weight.unsqueeze(-1)).flatten(1) @ self.w2 + weight @ self.b2
        return out
