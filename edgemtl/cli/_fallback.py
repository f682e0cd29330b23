"""What of a frame no kernel computes: the nodes that the compiler's own code does, and their share of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemtl.bundle.manifest import Program
    from edgemtl.config import ModelConfig


def describe(program: Program, config: ModelConfig) -> dict[str, dict[str, Any]]:
    """task -> its "nodes" without a kernel, and their "share" of a frame's multiply-accumulates; none of some tasks."""
    from edgemtl.graph.count import count

    out = {}
    for name in config.task_names:
        functions = [program.functions[f] for f in ("prefix", name) if f in program.functions]
        nodes = {node: macs for function in functions for node, macs in function.fallback.items()}
        if nodes:
            out[name] = {"nodes": list(nodes), "share": sum(nodes.values()) / count(config, name).total}
    return out


def line(target: str, found: dict[str, dict[str, Any]]) -> str:
    """The same in a sentence."""
    nodes = list(dict.fromkeys(node for task in found.values() for node in task["nodes"]))
    shares = ", ".join(f"{name} {task['share']:.1%}" for name, task in found.items())
    return (
        f"{target}: {len(nodes)} nodes have no kernel, or only for a part, and run on TVM's own code; their share of a"
        f" frame's multiply-accumulates, counted: {shares}; the nodes: {', '.join(nodes)}"
    )
