"""What one frame costs: multiply-accumulates, and bytes of weights that must be read.

Summed over the graph's nodes, attention's two products (queries by keys, weights by values) included; a LayerNorm, a
softmax or a GELU counts as nothing. M3ViT's paper counts the same way and calls it FLOPs. Checked in the tests against
the published figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from edgemtl.config import ModelConfig
from edgemtl.graph import Node, network
from edgemtl.graph.ops import find

FLOAT = 4  # bytes


class Work(NamedTuple):
    """Multiply-accumulates of one frame and one task, by part."""

    embedding: int  # or the stem
    projections: int  # qkv and output of attention
    attention: int  # queries by keys, weights by values
    dense: int  # dense MLPs
    gates: int
    experts: int
    head: int

    @property
    def backbone(self) -> int:
        return self.total - self.head

    @property
    def total(self) -> int:
        return sum(self)


def count(config: ModelConfig, task: str, *, every_expert: bool = False) -> Work:
    """The work of `task`; with `every_expert`, of an export that runs all experts of the path on all tokens."""
    graph = network(_deployed(config), task).whole
    work = dict.fromkeys(Work._fields, 0)
    for node in graph.nodes:
        macs = graph.macs(node)
        if every_expert and node.op == "experts":
            macs = macs // config.top_k * len(node.weights)
        work[_part(node)] += macs
    return Work(**work)


def prefix(config: ModelConfig) -> int:
    """The work that all tasks share and a frame does once: embedding, and the blocks up to the first gate."""
    graph = network(_deployed(config), config.task_names[0]).prefix
    return sum(map(graph.macs, graph.nodes))


def weight_bytes(config: ModelConfig, task: str, touched: Sequence[int] | None = None, width: int = FLOAT) -> int:
    """Bytes of weights that one frame of `task` must read at least once.

    touched: experts that got a token, per MoE block; None: every expert of the path did. width: bytes per weight. The
    batch norms of a conv head that still has them are weights too.
    """
    nodes = network(_deployed(config), task).nodes
    banks = [n for n in nodes if n.op == "experts"]
    values = sum(find(n.op).values(n) for n in nodes if n.op != "experts")
    used = [len(n.weights) for n in banks] if touched is None else touched
    values += sum(n.weights[0].values * count for n, count in zip(banks, used, strict=True))
    if config.head == "conv" and config.head_norm:
        values += 4 * 4 * config.head_dim
    return width * values


def _deployed(config: ModelConfig) -> ModelConfig:
    """The configuration without what serves training alone, which costs a frame nothing."""
    changes: dict[str, Any] = {"head_norm": False}
    if config.gate == "conditioned" or config.router == "dselect_k":
        changes |= {"gate": "multi", "router": "noisy_vmoe"}
    return ModelConfig(**{**dict(config), **changes})


def _part(node: Node) -> str:
    """The field of `Work` that a node's work belongs to."""
    if (part := {"route": "gates", "experts": "experts", "attention": "attention"}.get(node.op)) is not None:
        return part
    if node.name.startswith("head."):
        return "head"
    return "projections" if ".attn." in node.name else "dense" if ".mlp." in node.name else "embedding"
