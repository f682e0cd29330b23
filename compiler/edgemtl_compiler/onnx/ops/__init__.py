"""How ONNX says an op of the graph: one file each, found by the op's name. A file has `emit`; there is no list.

`emit(w, node, *inputs)` writes the node with the calls of `edgemtl_compiler.onnx.writer.Writer` and gives the name of
its value, or of its values where it has several, as a `route` does. Maps have channels first here, [1, C, H, W], as
ONNX's convolutions do; tokens are [N, C]. Files that begin with an underscore are no ops.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from edgemtl.errors import CompileError

Emit = Callable[..., Any]  # (writer, node, *inputs: names) -> a name or a tuple of names


def find(op: str) -> Emit:
    """The emitter of an op. Raises CompileError, naming op and target."""
    if importlib.util.find_spec(name := f"{__name__}.{op}") is None:
        raise CompileError(
            f"target onnx cannot say the op {op!r}: there is no compiler/edgemtl_compiler/onnx/ops/{op}.py"
        )
    emit: Emit = importlib.import_module(name).emit
    return emit
