"""The descriptor program and weight image of an integer network: all that the accelerator needs besides pixels.

Trunk and experts come once; a task's gates and head lie together, and the program names them by their distance from
the task's base. A task switch is an index into the table of bases. A network without heads writes the trunk's tokens
as a raw map of one line, D channels wide. Layout: `edgemtl.fpga.contract`; what both sides of
a bundle need is `edgemtl.fpga.program`.
"""

from __future__ import annotations

import numpy as np

from edgemtl.errors import CompileError
from edgemtl.fpga.contract import FIELDS, LANES, MAX_OPS, PROGRAM_MAGIC, PROGRAM_VERSION, Header, OpCode
from edgemtl.fpga.program import Program, checksum
from edgemtl_compiler.fpga import image, limits
from edgemtl_compiler.fpga.image import ImageBuilder
from edgemtl_compiler.fpga.network import Network

__all__ = ["Program", "build", "checksum"]

HEAD = (OpCode.HEAD_NORM, OpCode.HEAD_PROJECT, OpCode.STEP, OpCode.STEP, OpCode.OUTPUT)


def build(network: Network) -> Program:
    """Pack `network`. Raises CompileError for dimensions outside the accelerator's maxima."""
    config, on_host = network.config, not network.heads
    limits.check(config, host_heads=on_host)
    builder, ops = ImageBuilder(), []
    gates = {i: at for at, i in enumerate(config.moe_blocks)}
    gate_quads = 7 + config.dim // 2

    def op(code: OpCode, at: int, *, second: int = 0, relative: bool = False, hidden: int = 0, stride: int = 0) -> None:
        ops.append([code, int(relative), at, second, hidden, stride] + [0] * (FIELDS - 6))

    position = builder.add(image.quads(network.position))
    op(OpCode.EMBED, position, second=builder.add(image.linear(network.embed)))
    for i, block in enumerate(network.blocks):
        op(OpCode.NORM, builder.add(image.norm(block.norm1)))
        op(OpCode.QKV, builder.add(image.linear(block.qkv)))
        op(OpCode.ATTEND, builder.add(image.attention(block.attention)))
        op(OpCode.PROJECT, builder.add(image.linear(block.proj)))
        op(OpCode.NORM, builder.add(image.norm(block.norm2)))
        if block.mlp is not None:
            op(OpCode.MLP, builder.add(image.mlp(block.mlp)), hidden=len(block.mlp.fc1.bias))
            continue
        op(OpCode.GATE, gates[i] * gate_quads, relative=True)
        addresses = [builder.add(image.mlp(e)) for e in block.experts]
        stride = addresses[1] - addresses[0] if len(addresses) > 1 else builder.quads - addresses[0]
        op(OpCode.EXPERTS, addresses[0], hidden=len(block.experts[0].fc1.bias), stride=stride)

    table: list[list[int]] = []
    for task in config.task_names:
        base = builder.quads
        for i in config.moe_blocks:
            builder.add(image.gate(network.gates[task, i]))
        if on_host:
            table.append([base, builder.quads - base, config.dim] + [0] * (FIELDS - 3))
            continue
        head = network.heads[task]
        places = [
            builder.add(image.norm(head.norm)),
            builder.add(image.gelu(head.gelu) + image.linear(head.proj)),
            *(
                builder.add(image.gelu(s.gelu) + image.depthwise(s.depthwise) + image.linear(s.pointwise))
                for s in head.steps
            ),
            builder.add(image.narrow(head.narrow) + image.linear(head.out)),
        ]
        if not table:
            for code, at in zip(HEAD, places, strict=True):
                op(code, at - base, relative=True)
        table.append([base, builder.quads - base, len(head.out.bias)] + [0] * (FIELDS - 3))
    if on_host:
        op(OpCode.TOKENS, 0)
    if len(ops) > MAX_OPS:
        raise CompileError(f"the accelerator runs {MAX_OPS} descriptors at most; this model has {len(ops)}")
    experts = max((len(b.experts) for b in network.blocks), default=0)
    if any(len(b.experts) not in (0, experts) for b in network.blocks):
        raise CompileError("the accelerator needs as many experts in every block that has some")
    tile, width = (1, LANES) if on_host else (config.patch // config.head_stride, config.head_dim)
    header = [
        PROGRAM_MAGIC,
        PROGRAM_VERSION,
        len(ops),
        len(table),
        0,
        *config.image_size,
        config.dim,
        config.heads,
        experts,
    ]
    header += [config.top_k, int(config.renormalise), tile, width, builder.quads, int(on_host)]
    words = np.array([header, *table, *ops], np.uint32)
    words[0, Header.CHECKSUM] = checksum(words)
    return Program(
        words=words,
        banks=builder.banks(),
        tasks=config.task_names,
        image_size=config.image_size,
        map_size=(1, config.tokens) if on_host else config.map_size,
        channels=(config.dim,) * len(table) if on_host else tuple(t.channels for t in config.tasks),
        units=tuple(network.unit(t) for t in config.task_names),
        task_bytes=tuple(row[1] * image.QUAD for row in table),
    )
