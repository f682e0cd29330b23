"""How a program for a CPU computes each op: a file each, found by the op's name as in edgemtl/graph/ops.

A file ends with `OP = TheOp()`. An op has a kernel of this project's (kernels/exports.cc), or is written in Relax's
operators, which TVM compiles; or both, the second for what the kernel does not cover. Experts and gates are kernels or
an error.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from edgemtl.errors import CompileError
from edgemtl.graph import Node

Value = Any  # an emitter's, whose module imports this one


class Op:
    """One operation. `kernel` gives the node's value, or None where there is no kernel for it; then `plain` does."""

    def takes(self, to: Any, node: Node) -> tuple[Node, ...]:
        """The nodes before it that its kernel computes as well; they are left out."""
        return ()

    def kernel(self, to: Any, node: Node) -> Value | None:
        return None

    def plain(self, to: Any, node: Node) -> Value:
        raise CompileError(f"{node.name} ({node.op}) has no kernel for a CPU in this form: {node}")


@functools.cache
def find(name: str) -> Op:
    """How the op called `name` is computed. Raises CompileError."""
    try:
        op = importlib.import_module(f"{__name__}.{name}").OP
    except ModuleNotFoundError:
        raise CompileError(f"op {name!r} has no code for CPUs: write {__name__}.{name}") from None
    assert isinstance(op, Op)
    return op
