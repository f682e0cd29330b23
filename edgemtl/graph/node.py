"""A node of the network, and the weight tensors that it refers to.

Shapes are those of one image, without a batch: tokens [N, C], maps channels last [H, W, C].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Array = NDArray[np.floating[Any]]
Attributes = Mapping[str, Any]  # of numbers, strings, and tuples of them
Sources = tuple[tuple[str, Shape], ...]
Kind = Literal["vector", "norm", "linear", "gate", "taps", "conv", "expert"]  # how a tensor is packed


@dataclass(frozen=True)
class Tensor:
    """A weight tensor as an op wants it: how it is packed, and the name and shape of each array that it is made of.

    `name` tells it from the node's other tensors; an only one has none.
    """

    kind: Kind
    sources: Sources
    name: str = ""


@dataclass(frozen=True)
class Weight:
    """A weight tensor of a model: where it lies in a bundle, and which tensors of the model's state make it.

    `sources` pairs each state key with the shape that its values have there. For an expert they are banks of `bank`
    experts, of which it is number `row`, and the shapes leave out the bank's axis.
    """

    part: str
    tensor: str
    kind: Kind
    sources: Sources
    row: int = 0
    bank: int = 0

    @property
    def ref(self) -> str:
        """Its name in a bundle."""
        return f"{self.part}:{self.tensor}"

    @property
    def values(self) -> int:
        """Numbers in it, before any packing."""
        return sum(prod(shape) for _, shape in self.sources)


@dataclass(frozen=True)
class Node:
    """One operation. `inputs` name nodes or inputs of the graph; `shape` is its output's.

    `op` names a file of edgemtl/graph/ops, which says what the attributes mean and which weights there are.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Attributes = field(default_factory=dict)
    weights: tuple[Weight, ...] = ()
    shape: Shape = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    def __str__(self) -> str:
        given = [*self.inputs, *(f"{key}={_brief(value)}" for key, value in self.attributes.items())]
        size = "x".join(map(str, self.shape))
        refs = [w.ref for w in self.weights]
        if len(refs) > 4:  # a bank of experts
            refs = [refs[0], "…", refs[-1]]
        return f"{self.name:24} {size:>12}  {self.op}({', '.join(given)})" + (f"  [{' '.join(refs)}]" if refs else "")


def _brief(value: Any) -> str:
    return str(value).replace(" ", "")
