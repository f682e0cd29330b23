"""The launches of each op: one file each, found by its name. A file has `lower(to, node)`, which adds a node's launches
to a lowering (edgemtl_compiler/cuda/lower.py) and returns its value; it raises ValueError, in words, for a node that
the kernels do not cover. There is no list to add it to.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from edgemtl.errors import CompileError
from edgemtl.graph import Node

Lower = Callable[[Any, Node], Any]  # of a Lowering, whose module imports this one


def find(node: Node) -> Lower:
    """What lowers nodes of its op. Raises CompileError."""
    if (lower := _find(node.op)) is None:
        raise CompileError(
            f"target cuda has no kernel for the op {node.op}, which {node.name} is: compile the model with --target"
            " cpu, onnx or torch"
        )
    return lower


@functools.cache
def _find(op: str) -> Lower | None:
    if op not in {m.name for m in pkgutil.iter_modules(__path__)}:
        return None
    lower: Lower = importlib.import_module(f"{__name__}.{op}").lower
    return lower
