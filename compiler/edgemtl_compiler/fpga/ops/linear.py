"""A linear layer by what it is for: query, key and value; a projection added to the stream; an MLP; a head's first.

The two layers of an MLP are one descriptor, the first one's, and lie side by side in the weight image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemtl.fpga.contract import OpCode
from edgemtl.graph import Graph, Node
from edgemtl.graph.integer import gelu_table
from edgemtl.graph.integer.params import Layer
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.descriptor import Product, Record, Step, place
from edgemtl_compiler.fpga.ops import Add, FpgaOp, Quantiser, refusal
from edgemtl_compiler.fpga.ops.attention import input_units
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Float
from edgemtl_compiler.quantise.factors import Codes

SECOND = OpCode.END  # of an MLP: no descriptor of its own
NAMES = {OpCode.QKV: "qkv", OpCode.PROJECT: "project", OpCode.MLP: "mlp", OpCode.HEAD_PROJECT: "project"}


def role(node: Node, graph: Graph) -> OpCode:
    """The code of the descriptor that runs the layer. Raises CompileError for a layer that none does."""
    before = {n.op for n in graph.nodes if n.name == node.inputs[0]}
    after = {u.op for u in graph.users(node.name)}
    match (node.attributes["activation"], len(node.inputs), *sorted(before), *sorted(after)):
        case ("none", 1, "layernorm", "attention"):
            return OpCode.QKV
        case ("none", 2, "attention", *_):
            return OpCode.PROJECT
        case ("gelu", 1, "layernorm", "linear"):
            return OpCode.MLP
        case ("none", 2, "linear", *_):
            return SECOND
        case ("gelu", 1, "layernorm", "tiles"):
            return OpCode.HEAD_PROJECT
    raise refusal(node, "which is no part of attention, of an MLP or of a light head")


class Linear(FpgaOp):
    def check(self, node: Node, graph: Graph) -> None:
        role(node, graph)

    def on_stream(self, node: Node) -> bool:
        return len(node.inputs) > 1 or node.name.startswith("head.")

    def reads(self, node: Node, q: Quantiser) -> Float:
        return q.weights(node)[0]

    def quantise(self, node: Node, q: Quantiser) -> tuple[Layer, Codes | None]:
        (weight, bias), codes, code = q.weights(node), q.codes[node.inputs[0]], role(node, q.graph)
        if code == OpCode.QKV:
            (attention,) = q.graph.users(node.name)
            return Layer(factors.linear(weight, bias, codes, input_units(attention, q)), 8), None
        if code == OpCode.MLP:
            inner = q.range(f"{node.name}.inner")
            table, hidden, unit = factors.gelu_int8(inner, q.reader(node), q.max_saturation)
            return Layer(factors.linear(weight, bias, codes, unit), 8, table), hidden
        unit = q.unit(node)
        wide = gelu_table(unit) if code == OpCode.HEAD_PROJECT else None
        return Layer(factors.linear(weight, bias, codes, unit), 16, wide), None

    def emit(self, node: Node, graph: Graph, params: Any, add: Add) -> Record | None:
        code = role(node, graph)
        at = add((image.gelu(params.gelu) if params.gelu else b"") + image.linear(params.linear))
        if code == SECOND:
            return None
        return Record(code, at, hidden=node.shape[1] if code == OpCode.MLP else 0)

    def step(self, node: Node, graph: Graph, queues: Mapping[str, tuple[int, ...]]) -> Step | None:
        code, (rows, inputs) = role(node, graph), graph.shape(node.inputs[0])
        if code == SECOND:
            return None
        products = [Product(rows, inputs, node.shape[1], gelu=code in (OpCode.MLP, OpCode.HEAD_PROJECT))]
        macs = graph.macs(node)
        if code == OpCode.MLP:
            (second,) = graph.users(node.name)
            products.append(Product(rows, node.shape[1], second.shape[1]))
            macs += graph.macs(second)
        return Step(f"{place(node)}.{NAMES[code]}", "linear", tuple(products), macs=macs)


OP = Linear()
