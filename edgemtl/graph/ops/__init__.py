"""The ops: one file each, found by its name. A file ends with `OP = TheOp()`; there is no list to add it to.

An op says what is known of it whatever the target: its shape rule, its weight tensors and how they are packed, its
multiply-accumulates, and what it computes, in NumPy. Attributes are all given; there are no defaults to repeat
elsewhere. Files that begin with an underscore are no ops.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgemtl.errors import CompileError
from edgemtl.graph.node import Array, Attributes, Node, Shape, Tensor

if TYPE_CHECKING:
    from edgemtl.graph.integer import Units

Within = Callable[[str, Any], None]  # shows a value that lies within the op


class Op(ABC):
    """One operation. `shape` and `tensors` raise ValueError, in words, for inputs that it cannot take."""

    @abstractmethod
    def shape(self, inputs: Sequence[Shape], attributes: Attributes) -> Shape:
        """The output's shape from those of the inputs."""

    def tensors(self, inputs: Sequence[Shape], attributes: Attributes) -> tuple[Tensor, ...]:
        """The weight tensors, in the order of `Node.weights`; sources are named as in the state, below a common key."""
        return ()

    def macs(self, node: Node, inputs: Sequence[Shape]) -> int:
        """Multiply-accumulates of one image. Norms, activations and bilinear weights count as nothing."""
        return 0

    def values(self, node: Node) -> int:
        """How many numbers of its weights an image must read, at the most."""
        return sum(w.values for w in node.weights)

    def parts(self, node: Node) -> Mapping[str, int]:
        """The values within it that `run` shows, and the channels of each."""
        return {}

    @abstractmethod
    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Sequence[Array]], see: Within) -> Any:
        """The output. weights: per weight tensor the arrays of its sources."""

    def integer(self, node: Node, inputs: Sequence[Any], params: Any, units: Units) -> Any:
        """The output on the accelerator's integers: INT8 rows, or an INT16 stream. params: edgemtl/graph/integer's.

        Raises CompileError for an op that it does not have.
        """
        raise CompileError(f"{node.name}: the accelerator has no op {node.op}")


@functools.cache
def names() -> tuple[str, ...]:
    """Every op there is."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


@functools.cache
def find(name: str) -> Op:
    """The op called `name`. Raises CompileError."""
    if name not in names():
        raise CompileError(f"there is no op {name!r}; edgemtl/graph/ops has {', '.join(names())}")
    op = importlib.import_module(f"{__name__}.{name}").OP
    assert isinstance(op, Op)
    return op


def want(fits: bool, text: str) -> None:
    """Raise ValueError with the text unless it fits."""
    if not fits:
        raise ValueError(text)
