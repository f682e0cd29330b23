"""The descriptor program and weight image of an integer network: all that the accelerator needs besides pixels.

Trunk and experts come once; a task's gates and head lie together, and the program names them by their distance from
the task's base. A task switch is an index into the table of bases. A network without heads writes the trunk's tokens
as a raw map of one line, D channels wide. Layout: `edgemtl.fpga.contract`; what both sides of a bundle need is
`edgemtl.fpga.program`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import CompileError
from edgemtl.fpga.contract import FIELDS, LANES, MAX_OPS, PROGRAM_MAGIC, PROGRAM_VERSION, Header, OpCode, OpField
from edgemtl.fpga.program import Program, checksum
from edgemtl.graph import Graph
from edgemtl_compiler.fpga import image, ops
from edgemtl_compiler.fpga.descriptor import Record
from edgemtl_compiler.fpga.image import ImageBuilder
from edgemtl_compiler.fpga.network import IntegerNetwork, is_tasks

__all__ = ["Program", "build", "checksum"]


def build(network: IntegerNetwork) -> Program:
    """Pack `network`. Raises CompileError for dimensions outside the accelerator's maxima."""
    config, on_host, builder = network.config, network.host_heads, ImageBuilder()
    graphs = [network.graph(task) for task in config.task_names]
    records = _emit(network, graphs[0], builder, of_task=False)
    tasks = []
    for graph in graphs:
        base = builder.quads
        own = _emit(network, graph, builder, of_task=True)
        records = {**own, **records}  # a task's descriptors are those of the first: only the table differs
        tasks.append((base, builder.quads - base, graph.shape(graph.outputs[0])[-1]))
    listed = [(records[n.name], is_tasks(n)) for n in graphs[0].nodes if n.name in records]
    if on_host:
        listed.append((Record(OpCode.TOKENS, 0), False))
    if len(listed) > MAX_OPS:
        raise CompileError(f"the accelerator runs {MAX_OPS} descriptors at most; this model has {len(listed)}")
    words = _words(network, graphs[0], tasks, listed, builder.quads)
    shape = graphs[0].shape(graphs[0].outputs[0])
    return Program(
        words=words,
        banks=builder.banks(),
        tasks=config.task_names,
        image_size=config.image_size,
        map_size=(1, shape[0]) if on_host else (shape[0], shape[1]),
        channels=tuple(channels for *_, channels in tasks),
        units=tuple(network.unit(task) for task in config.task_names),
        task_bytes=tuple(quads * image.QUAD for _, quads, _ in tasks),
    )


def _emit(network: IntegerNetwork, graph: Graph, builder: ImageBuilder, *, of_task: bool) -> dict[str, Record]:
    """Adds the tables of the task's nodes, or of all others, to the image; their descriptors, addresses from here on
    for a task's.
    """
    base, found = builder.quads if of_task else 0, {}
    for node in graph.nodes:
        if is_tasks(node) == of_task:
            params = network.of(node, graph.name)
            record = ops.find(node).emit(node, graph, params, lambda data: builder.add(data) - base)
            if record is not None:
                found[node.name] = record
    return found


def _words(
    network: IntegerNetwork,
    graph: Graph,
    tasks: Sequence[tuple[int, int, int]],
    listed: Sequence[tuple[Record, bool]],
    quads: int,
) -> NDArray[np.uint32]:
    """Header, table of tasks and descriptors [records, FIELDS]."""
    config, on_host = network.config, network.host_heads
    banks = {n.weights[0].bank for n in graph.nodes if n.op == "experts"}
    if len(banks) > 1:
        raise CompileError("the accelerator needs as many experts in every block that has some")
    header: Mapping[Header, int] = {
        Header.MAGIC: PROGRAM_MAGIC,
        Header.VERSION: PROGRAM_VERSION,
        Header.OPS: len(listed),
        Header.TASKS: len(tasks),
        Header.HEIGHT: config.image_size[0],
        Header.WIDTH: config.image_size[1],
        Header.DIM: config.dim,
        Header.HEADS: config.heads,
        Header.EXPERTS: max(banks, default=0),
        Header.TOP_K: config.top_k,
        Header.RENORMALISE: int(config.renormalise),
        Header.TILE: 1 if on_host else config.patch // config.head_stride,
        Header.HEAD_DIM: LANES if on_host else config.head_dim,
        Header.QUADS: quads,
        Header.TOKENS: int(on_host),
    }
    words = np.zeros((1 + len(tasks) + len(listed), FIELDS), np.uint32)
    words[0, list(header)] = list(header.values())
    words[1 : 1 + len(tasks), :3] = tasks
    for row, (record, relative) in zip(words[1 + len(tasks) :], listed, strict=True):
        row[[OpField.CODE, OpField.AT, OpField.SECOND, OpField.HIDDEN, OpField.STRIDE]] = record
        row[OpField.RELATIVE] = relative
    words[0, Header.CHECKSUM] = checksum(words)
    return words
