"""A linear layer. Between two INT8 kernels lie codes, so an INT8 layer takes the one before it where it can: the norm
of the queries, the attention, or an MLP's first half.
"""

from __future__ import annotations

from edgemtl.graph import Node
from edgemtl_compiler.cpu.emitter import Emitter, Value
from edgemtl_compiler.cpu.ops import Op, attention
from edgemtl_compiler.cpu.plain import activate
from edgemtl_compiler.cpu.tvm_adapter import relax


def _before(to: Emitter, node: Node) -> Node | None:
    """The node that its kernel computes as well."""
    if not to.int8(node.weights[0]) or node.attributes["activation"] != "none":
        return None
    if len(node.inputs) == 1:
        norm = to.before(node, "layernorm")
        return norm if norm and not norm.attributes["skip"] and norm.shape[1] % 16 == 0 else None
    found = to.before(node, "linear", "attention")
    if found and found.op == "attention":
        return found if attention.int8(to, found) else None
    gelu = found and found.attributes["activation"] == "gelu" and len(found.inputs) == 1
    return found if found and gelu and to.int8(found.weights[0]) else None


class Linear(Op):
    def takes(self, to: Emitter, node: Node) -> tuple[Node, ...]:
        found = _before(to, node)
        return (found,) if found else ()

    def kernel(self, to: Emitter, node: Node) -> Value | None:
        added, before = [to.value(name) for name in node.inputs[1:]], _before(to, node)
        if before is None:
            name = {("none", 0): "linear", ("gelu", 0): "linear_gelu", ("none", 1): "linear_residual"}.get(
                (node.attributes["activation"], len(added))
            )
            if name is None:
                return None
            args = (to.value(node.inputs[0]), to.weight(node.weights[0]), *added)
            return Value(to.call(to.kernel_for(name, node.weights[0]), args, node.shape))
        x = to.value(before.inputs[0])
        inner = [to.weight(w) for w in before.weights]
        weight = to.weight(node.weights[0])
        if before.op == "layernorm":
            return Value(to.call("norm_linear_i8", (x, *inner, before.attributes["eps"], weight), node.shape))
        if before.op == "attention":
            heads = before.attributes["heads"]
            return Value(to.call("attention_linear_i8", (x, heads, weight, *added), node.shape))
        return Value(to.call("mlp_i8", (x, *inner, weight, *added, before.shape[1]), node.shape))

    def plain(self, to: Emitter, node: Node) -> Value:
        """The product is the kernel's; what it has no form for is TVM's."""
        to.plain(node, 0)
        args = (to.value(node.inputs[0]), to.weight(node.weights[0]))
        out = to.call(to.kernel_for("linear", node.weights[0]), args, node.shape)
        out = activate(to, out, node.attributes["activation"])
        for name in node.inputs[1:]:
            out = to.builder.emit(relax.op.add(out, to.value(name)))
        return Value(out)


OP = Linear()
