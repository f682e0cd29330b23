"""An integer network: per node of the graph what the accelerator reads, and a frame in integers.

`quantise` makes it from float weights, `program` packs it for the device. `run` is the specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.config import ModelConfig
from edgemtl.graph import Graph, Node, network
from edgemtl.graph.integer import NUMPY, Units
from edgemtl.graph.run import See, run_integers
from edgemtl_compiler.fpga import limits, ops


def graph_of(config: ModelConfig, task: str, host_heads: bool = False) -> Graph:
    """A task's graph; with `host_heads` it ends with the trunk's tokens.

    Raises CompileError where the accelerator lacks an op or is too small, TaskError for another model's task, and
    ConfigError for a model that serves training alone.
    """
    graph = network(config.model_copy(update={"head_norm": False}), task).whole  # a head's norms change no shape
    if host_heads:
        nodes = tuple(n for n in graph.nodes if not n.name.startswith("head."))
        graph = Graph(task, graph.inputs, nodes, (nodes[-1].name,))
    for node in graph.nodes:
        ops.find(node).check(node, graph)
    limits.check(config, host_heads=host_heads)
    return graph


def is_tasks(node: Node) -> bool:
    """Whether a node is its task's own: a gate or a part of the head. All else has the same integers for every task."""
    return node.op == "route" or node.name.startswith("head.")


def key(node: Node, task: str) -> str:
    """The name of a node's integers."""
    return f"{task}:{node.name}" if is_tasks(node) else node.name


@dataclass(frozen=True)
class IntegerNetwork:
    """All tasks of a model: `params` by NODE, or TASK:NODE for a gate or a head.

    Streams are INT16: the trunk's with `stream_bits` fraction bits, a head's with `head_bits[task]`. Without any head
    the network ends with the trunk: its output is the residual stream, and heads run on the host.
    """

    config: ModelConfig
    stream_bits: int
    head_bits: Mapping[str, int]
    params: Mapping[str, Any]

    @property
    def host_heads(self) -> bool:
        """Whether heads run on the host."""
        return not self.head_bits

    def graph(self, task: str) -> Graph:
        """The part of a task's graph that is computed here."""
        return graph_of(self.config, task, self.host_heads)

    def of(self, node: Node, task: str) -> Any:
        """A node's integers, or None where it needs none."""
        return self.params.get(key(node, task))

    def unit(self, task: str) -> float:
        """What one step of the output of `task` stands for."""
        if self.host_heads:
            return float(2.0**-self.stream_bits)
        (output,) = self.graph(task).outputs
        return float(self.params[f"{task}:{output}"].unit)

    def run(
        self, pixels: NDArray[np.uint8], task: str, see: See | None = None, units: Units = NUMPY
    ) -> NDArray[np.int16]:
        """Raw map [h, w, channels] of `task` for pixels [H, W, 3], in units of `unit(task)`; without heads the
        residual stream [tokens, D], class token first. `see` gets every value by its node.
        """
        out: NDArray[np.int16] = run_integers(self.graph(task), pixels, lambda n: self.of(n, task), see, units)
        return out
