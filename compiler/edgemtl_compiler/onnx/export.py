"""One ONNX file per task, image to raw map, with the experts kept sparse: for ONNX Runtime and other readers.

Every expert of the task's path is a NonZero → Gather → two products → ScatterND branch over exactly the tokens that
chose it, so the file computes what the model computes and no more; nothing is masked densely, no capacity drops tokens.
Each file holds its own trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Function
from edgemtl.errors import CompileError
from edgemtl.graph import Graph
from edgemtl.graph.run import Values
from edgemtl_compiler.cpu.program import Built
from edgemtl_compiler.onnx.ops import Emit
from edgemtl_compiler.toolchain import failing

BACKEND = "onnxruntime"
TARGET = "onnx"
OPSET = 20  # the first with Gelu


def versions() -> dict[str, str]:
    """What files are made with."""
    return {"onnx": version("onnx")}


def export(
    graph: Graph, values: Values, out: Path, *, opset: int = OPSET, instead: Mapping[str, Emit] | None = None
) -> Built:
    """Write a whole network, from the image [1, 3, H, W] to the raw map [1, channels, h, w], both float32.

    instead: emitters to use in the place of those of edgemtl_compiler/onnx/ops, by op. Raises CompileError for an op
    that ONNX has no emitter for, and unless the file holds every weight of the graph.
    """
    import onnx

    from edgemtl_compiler.onnx.writer import Writer

    writer = Writer(graph, values, opset, instead or {})
    proto = writer.model()
    if not instead:
        check(proto, graph, values)
    with failing(f"the ONNX file of {graph.name!r} is not valid"):
        onnx.checker.check_model(proto, full_check=True)
    out.write_bytes(proto.SerializeToString())
    (image,), (task_map,) = graph.inputs, graph.outputs
    return Built(out, Function(inputs=(writer.shape(image),), outputs=(writer.shape(task_map),)))


def check(proto: Any, graph: Graph, values: Values) -> None:
    """Raises CompileError unless every weight of the graph is in the file, and every expert finds its own tokens."""
    from onnx.numpy_helper import to_array

    from edgemtl_compiler.onnx.writer import initialisers

    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    read = {name for node in proto.graph.node for name in node.input}
    for node in graph.nodes:
        path = list(node.attributes["columns"]) if node.op == "route" else None
        for weight in node.weights:
            for name, array in zip(initialisers(weight), values(weight), strict=True):
                wanted = array if path is None else array[..., path]
                same = name in held and np.array_equal(np.sort(to_array(held[name]), None), np.sort(wanted, None))
                if not same or name not in read:
                    raise CompileError(f"the ONNX file of {graph.name!r} lacks {name}")
    experts = sum(len(node.weights) for node in graph.nodes if node.op == "experts")
    found = sum(node.op_type == "NonZero" for node in proto.graph.node)
    if found != experts:
        raise CompileError(f"the ONNX file of {graph.name!r} has {found} x NonZero, one for each of {experts} experts")


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
        (out,) = self._session.run(None, {"image": arrays[0]})
        return [np.asarray(out, np.float32)]
