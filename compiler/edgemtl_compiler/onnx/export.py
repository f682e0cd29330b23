"""One ONNX file per task, image to raw map, with the experts kept sparse: for ONNX Runtime and other readers.

Every expert of the task's path is a NonZero → Gather → two products → ScatterND branch over exactly the tokens that
chose it, so the file computes what the model computes and no more; nothing is masked densely, no capacity drops tokens.
ONNX's TopK gives ties to the lower index, which is this project's rule. Each file holds its own trunk.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxscript import opset20 as op
from torch import Tensor, nn

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Function
from edgemtl.errors import CompileError
from edgemtl.model.moe import MoE, routed
from edgemtl.model.vit import MultiTaskViT
from edgemtl_compiler.cpu.program import Built
from edgemtl_compiler.toolchain import failing

BACKEND = "onnxruntime"
TARGET = "onnx"
OPSET = 20  # the first with Gelu


@torch.library.custom_op("edgemtl::expert_list", mutates_args=())
def _expert_list(tokens: Tensor, index: Tensor, score: Tensor, residual: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """`edgemtl::experts` with a tensor per expert, four each: one opaque node until it becomes ONNX."""
    banks = (torch.stack(list(weights[i::4])) for i in range(4))
    out: Tensor = torch.ops.edgemtl.experts(tokens, index, score, residual, *banks)
    return out


@_expert_list.register_fake
def _(tokens: Tensor, index: Tensor, score: Tensor, residual: Tensor, weights: Sequence[Tensor]) -> Tensor:
    return torch.empty_like(residual)


class _ExpertList(nn.Module):
    """A slice's MoE layer, each expert's weights tensors of their own, so that each becomes an initialiser."""

    def __init__(self, moe: MoE, task: str) -> None:
        super().__init__()
        self.top_k, self.renormalise, self.gate = moe.top_k, moe.renormalise, moe.gate_of(task)
        bank = moe.experts
        rows = zip(bank.htoh4.weight, bank.htoh4.bias, bank.h4toh.weight, bank.h4toh.bias, strict=True)
        self.weights = nn.ParameterList(nn.Parameter(w.detach().clone()) for row in rows for w in row)

    def export_forward(self, tokens: Tensor, residual: Tensor, task: str) -> Tensor:
        index, score = routed(self.gate, tokens, self.top_k, self.renormalise)
        out: Tensor = torch.ops.edgemtl.expert_list(tokens, index, score, residual, list(self.weights))
        return out


def _logits(tokens: Any, gate: Any) -> Any:
    """A sum per expert, not a product of matrices, so that equal columns give equal bits, a tie."""
    product = op.Mul(op.Unsqueeze(tokens, [1]), op.Unsqueeze(op.Transpose(gate, perm=[1, 0]), [0]))
    return op.ReduceSum(product, [2], keepdims=0)


def _route(tokens: Any, gate: Any, top_k: int, renormalise: bool) -> Any:
    """The gate in ONNX."""
    return _chosen(_logits(tokens, gate), top_k, renormalise)


def _route_biased(tokens: Any, gate: Any, bias: Any, top_k: int, renormalise: bool) -> Any:
    return _chosen(op.Add(_logits(tokens, gate), bias), top_k, renormalise)


def _chosen(logits: Any, top_k: int, renormalise: bool) -> Any:
    _, index = op.TopK(logits, [top_k], axis=-1)
    score = op.GatherElements(op.Softmax(logits, axis=-1), index, axis=-1)
    if renormalise:
        score = op.Div(score, op.ReduceSum(score, [1], keepdims=1))
    return index, score


def _experts(tokens: Any, index: Any, score: Any, residual: Any, weights: Sequence[Any]) -> Any:
    """The experts in ONNX, one after the other, each over the rows that NonZero finds for it."""
    out = residual
    for e in range(len(weights) // 4):
        w1, b1, w2, b2 = weights[4 * e : 4 * e + 4]
        places = op.NonZero(op.Equal(index, e))  # [2, m]: rows, and which of the row's choices
        pairs = op.Transpose(places, perm=[1, 0])
        rows = op.Gather(pairs, [0], axis=1)  # [m, 1]
        hidden = op.Gelu(op.Gemm(op.GatherND(tokens, rows), w1, b1, transB=1))
        weight = op.Unsqueeze(op.GatherND(score, pairs), [1])
        out = op.ScatterND(out, rows, op.Mul(op.Gemm(hidden, w2, b2, transB=1), weight), reduction="add")
    return out


class _Whole(nn.Module):
    """A slice from image to map, with MoE layers that ONNX can express; it shares the slice's weights."""

    def __init__(self, piece: MultiTaskViT, task: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(piece, {id(p): p for p in piece.parameters()})
        self.task = task
        for block in self.model.backbone.blocks:
            if isinstance(block.mlp, MoE):
                block.mlp = _ExpertList(block.mlp, task)

    def forward(self, image: Tensor) -> Tensor:
        return self.model.suffix(self.model.prefix(image), self.task)


def versions() -> dict[str, str]:
    """What files are made with."""
    return {name: version(name) for name in ("onnx", "onnxscript")}


def export_onnx(piece: MultiTaskViT, out: Path) -> Built:
    """Write the ONNX file of a slice. Raises CompileError unless it holds every weight of the slice."""
    import onnx

    config = piece.config
    (task,) = config.tasks
    shape, what = (1, 3, *config.image_size), f"PyTorch cannot export {task.name!r} to ONNX"
    with torch.no_grad(), warnings.catch_warnings(), _quiet(), failing(what):
        warnings.simplefilter("ignore")  # the exporter's own deprecations; nothing a caller could act on
        program = torch.onnx.export(
            _Whole(piece, task.name).eval(),
            (torch.zeros(shape),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=["map"],
            verbose=False,
            custom_translation_table={
                torch.ops.edgemtl.route.default: _route,
                torch.ops.edgemtl.route_biased.default: _route_biased,
                torch.ops.edgemtl.expert_list.default: _experts,
            },
        )
    assert program is not None
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # stack traces: file names of this machine
    check(proto, piece)
    with failing(f"the ONNX export of {task.name!r} is not valid"):
        onnx.checker.check_model(proto, full_check=True)
    out.write_bytes(proto.SerializeToString())
    return Built(out, Function(inputs=(shape,), outputs=((1, task.channels, *config.map_size),)))


def check(proto: Any, piece: MultiTaskViT) -> None:
    """Raises CompileError unless the graph multiplies by every weight of the slice, each expert of the path included.

    The exporter may transpose a weight, share equal ones, and leave out a bias of zeros.
    """
    from onnx.numpy_helper import to_array

    config = piece.config
    (task,) = config.task_names
    experts, sparse = sum(map(len, config.held)), len(config.moe_blocks)
    light = config.head == "light"  # whose projection is a product; a conv head has as many convolutions
    wanted = {"MatMul": 4 * config.depth + 2 * (config.depth - sparse) + light, "Gemm": 2 * experts, "Conv": 6}
    wanted |= {"TopK": sparse, "NonZero": experts}
    found = Counter(node.op_type for node in proto.graph.node)
    wrong = [f"{found[name]} x {name} instead of {n}" for name, n in wanted.items() if found[name] != n]
    if wrong:
        raise CompileError(f"the ONNX export of {task!r} is not the model that was given: it has {', '.join(wrong)}")
    held = {_digest(form) for tensor in proto.graph.initializer for form in _forms(to_array(tensor))}
    for key, value in piece.state_dict().items():
        rows = value if ".experts." in key else [value]
        for e, row in enumerate(rows):
            if row.any() and _digest(row.numpy()) not in held:
                raise CompileError(f"the ONNX export of {task!r} lacks {key}{f'[{e}]' if len(rows) > 1 else ''}")


def _forms(array: NDArray[Any]) -> list[NDArray[Any]]:
    squeezed = array.squeeze()
    return [array, squeezed.T] if squeezed.ndim == 2 else [array]


def _digest(array: NDArray[Any]) -> bytes:
    return hashlib.sha256(array.tobytes()).digest()


class OnnxRunner:
    """A file opened by ONNX Runtime: call it with [image]."""

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as e:
            raise CompileError("onnxruntime is needed to check an ONNX program: pip install 'edgemtl[onnx]'") from e
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        return [np.asarray(out, np.float32) for out in self._session.run(None, {"image": arrays[0]})]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and logs warnings about optional packages."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
