"""A graph: nodes in an order in which they can run, checked against each op's shape rule when it is made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from edgemtl.errors import CompileError
from edgemtl.graph import ops
from edgemtl.graph.node import Node, Shape, Weight


@dataclass(frozen=True)
class Graph:
    """Nodes from `inputs` (name -> shape) to `outputs` (names of nodes or inputs).

    Nodes may be given in any order; `nodes` has them in one that can run, which is the given one if that can. Raises
    CompileError, naming the node, for a name that repeats, an input that is not there, a circle, and for a shape,
    attributes or weights that are not what the op says.
    """

    name: str
    inputs: Mapping[str, Shape]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    _by_name: Mapping[str, Node] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {n.name: n for n in self.nodes}
        names = [*self.inputs, *(n.name for n in self.nodes)]
        if repeated := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else None:
            raise CompileError(f"graph {self.name}: more than one value is called {', '.join(sorted(repeated))}")
        object.__setattr__(self, "inputs", MappingProxyType(dict(self.inputs)))
        object.__setattr__(self, "_by_name", by_name)
        object.__setattr__(self, "nodes", _ordered(self.name, self.inputs, self.nodes))
        for name in self.outputs:
            if name not in by_name and name not in self.inputs:
                raise CompileError(f"graph {self.name}: its output {name} is no value of it")
        for node in self.nodes:
            self._check(node)

    def _check(self, node: Node) -> None:
        op, shapes = ops.find(node.op), self.shapes(node)
        where = f"graph {self.name}, {node.name} ({node.op})"
        try:
            shape, tensors = op.shape(shapes, node.attributes), op.tensors(shapes, node.attributes)
        except KeyError as error:
            raise CompileError(f"{where}: there is no attribute {error.args[0]}") from None
        except ValueError as error:
            raise CompileError(f"{where}: {error}") from None
        if shape != node.shape:
            raise CompileError(f"{where}: its shape is {shape}, not {node.shape}")
        wanted = [(t.kind, [s for _, s in t.sources]) for t in tensors]
        given = [(w.kind, [s for _, s in w.sources]) for w in node.weights]
        if wanted != given:
            raise CompileError(f"{where}: its weights are {wanted}, not {given}")

    def __getitem__(self, name: str) -> Node:
        """The node called `name`. Raises KeyError."""
        return self._by_name[name]

    def shape(self, name: str) -> Shape:
        """The shape of a node's output or of an input of the graph."""
        return self.inputs[name] if name in self.inputs else self._by_name[name].shape

    def shapes(self, node: Node) -> tuple[Shape, ...]:
        """The shapes of a node's inputs."""
        return tuple(map(self.shape, node.inputs))

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return tuple(n for n in self.nodes if name in n.inputs)

    def macs(self, node: Node) -> int:
        """Multiply-accumulates of one node and one image."""
        return ops.find(node.op).macs(node, self.shapes(node))

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight tensor, once, in the order in which a frame meets them."""
        return tuple({w.ref: w for n in self.nodes for w in n.weights}.values())

    def replace(self, names: Collection[str], *nodes: Node) -> Graph:
        """The graph with `nodes` in the place of those called `names`, which must exist.

        One of the new nodes takes the name of an old one that others read. Raises CompileError as making a graph does.
        """
        if unknown := sorted(set(names) - self._by_name.keys()):
            raise CompileError(f"graph {self.name}: there is no node {', '.join(unknown)} to replace")
        first = min((i for i, n in enumerate(self.nodes) if n.name in names), default=len(self.nodes))
        kept = [n for n in self.nodes[first:] if n.name not in names]
        return Graph(self.name, self.inputs, (*self.nodes[:first], *nodes, *kept), self.outputs)

    def __str__(self) -> str:
        head = [f"{name:24} {'x'.join(map(str, shape)):>12}  input" for name, shape in self.inputs.items()]
        return "\n".join([f"{self.name}:", *head, *map(str, self.nodes), f"-> {', '.join(self.outputs)}"])


def _ordered(graph: str, inputs: Collection[str], nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The nodes, each after those that it reads; otherwise as given."""
    known, out, waiting = set(inputs), [], list(nodes)
    while waiting:
        late = []
        for node in waiting:
            if known.issuperset(node.inputs):
                out.append(node)
                known.add(node.name)
            else:
                late.append(node)
        if len(late) == len(waiting):
            names = [n.name for n in late]
            missing = sorted({i for n in late for i in n.inputs} - known - set(names))
            fault = f"there is no value {', '.join(missing)}" if missing else f"a circle through {', '.join(names)}"
            raise CompileError(f"graph {graph}: {fault}")
        waiting = late
    return tuple(out)
