"""The descriptor program and weight image of an integer network: all that the accelerator needs besides pixels.

Trunk and experts come once; a task's gates and head lie together, and the program names them by their distance from
the task's base. A task switch is an index into the table of bases. Layout: hls/include/program.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import CompileError, TaskError
from edgemtl_compiler.hls import image, limits
from edgemtl_compiler.hls.image import ImageBuilder
from edgemtl_compiler.hls.network import Network

MAGIC, VERSION, FIELDS = 0x4C544D45, 1, 16
CHECKSUM = 4  # its place in the header
EMBED, NORM, QKV, ATTEND, PROJECT, MLP, GATE, EXPERTS, HEAD_NORM, HEAD_PROJECT, STEP, OUTPUT = range(1, 13)


@dataclass(frozen=True)
class Program:
    """What the host writes to DDR: `words` uint32 [records, 16] and `banks` uint8 [4, quads, 16]."""

    words: NDArray[np.uint32]
    banks: NDArray[np.uint8]
    tasks: tuple[str, ...]
    image_size: tuple[int, int]
    map_size: tuple[int, int]
    channels: tuple[int, ...]
    units: tuple[float, ...]
    task_bytes: tuple[int, ...]

    def task(self, name: str) -> int:
        """The task's index; raises TaskError for a name the program does not hold."""
        if name not in self.tasks:
            raise TaskError(f"there is no task {name!r}; this program has {', '.join(self.tasks)}")
        return self.tasks.index(name)

    def output_words(self, task: int) -> int:
        """128-bit words of the raw map."""
        pixels, channels = self.map_size[0] * self.map_size[1], self.channels[task]
        return channels // 16 * pixels * 2 + -(-(channels % 16) * pixels // 8)

    def raw_map(self, words: NDArray[Any], task: int) -> NDArray[np.int16]:
        """The output's words as [height, width, channels] INT16, in units of `units[task]`."""
        values, channels = words.view("<i2").reshape(-1), self.channels[task]
        pixels = self.map_size[0] * self.map_size[1]
        parts, at = [], 0
        for first in range(0, channels, 16):
            here = min(16, channels - first)
            parts.append(values[at : at + pixels * here].reshape(*self.map_size, here))
            at += -(-pixels * here // 8) * 8
        return np.concatenate(parts, -1)


def checksum(words: NDArray[np.uint32]) -> int:
    """Sum of all fields but itself, each step after a rotation to the left by one."""
    total = 0
    for i, value in enumerate(words.reshape(-1).tolist()):
        total = ((total << 1 | total >> 31) + (0 if i == CHECKSUM else value)) & 0xFFFFFFFF
    return total


def build(network: Network) -> Program:
    """Pack `network`. Raises CompileError for dimensions outside the accelerator's maxima."""
    config = network.config
    limits.check(config)
    builder, ops = ImageBuilder(), []
    gates = {i: at for at, i in enumerate(config.moe_blocks)}
    gate_quads = 3 + config.dim // 2

    def op(code: int, at: int, *, second: int = 0, relative: bool = False, hidden: int = 0, stride: int = 0) -> None:
        ops.append([code, int(relative), at, second, hidden, stride] + [0] * (FIELDS - 6))

    position = builder.add(image.quads(network.position))
    op(EMBED, position, second=builder.add(image.linear(network.embed)))
    for i, block in enumerate(network.blocks):
        op(NORM, builder.add(image.norm(block.norm1)))
        op(QKV, builder.add(image.linear(block.qkv)))
        op(ATTEND, builder.add(image.attention(block.attention)))
        op(PROJECT, builder.add(image.linear(block.proj)))
        op(NORM, builder.add(image.norm(block.norm2)))
        if block.mlp is not None:
            op(MLP, builder.add(image.mlp(block.mlp)), hidden=len(block.mlp.fc1.bias))
            continue
        op(GATE, gates[i] * gate_quads, relative=True)
        addresses = [builder.add(image.mlp(e)) for e in block.experts]
        stride = addresses[1] - addresses[0] if len(addresses) > 1 else builder.quads - addresses[0]
        op(EXPERTS, addresses[0], hidden=len(block.experts[0].fc1.bias), stride=stride)

    table: list[list[int]] = []
    for task in config.task_names:
        head, base = network.heads[task], builder.quads
        for i in config.moe_blocks:
            builder.add(image.gate(network.gates[task, i]))
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
            for code, at in zip((HEAD_NORM, HEAD_PROJECT, STEP, STEP, OUTPUT), places, strict=True):
                op(code, at - base, relative=True)
        table.append([base, builder.quads - base, len(head.out.bias)] + [0] * (FIELDS - 3))
    if len(ops) > 512:
        raise CompileError(f"the accelerator runs 512 descriptors at most; this model has {len(ops)}")
    experts = max((len(b.experts) for b in network.blocks), default=0)
    if any(len(b.experts) not in (0, experts) for b in network.blocks):
        raise CompileError("the accelerator needs as many experts in every block that has some")
    tile = config.patch // config.head_stride
    header = [MAGIC, VERSION, len(ops), len(table), 0, *config.image_size, config.dim, config.heads, experts]
    header += [config.top_k, int(config.renormalise), tile, config.head_dim, builder.quads, 0]
    words = np.array([header, *table, *ops], np.uint32)
    words[0, CHECKSUM] = checksum(words)
    return Program(
        words=words,
        banks=builder.banks(),
        tasks=config.task_names,
        image_size=config.image_size,
        map_size=config.map_size,
        channels=tuple(t.channels for t in config.tasks),
        units=tuple(network.heads[t].unit for t in config.task_names),
        task_bytes=tuple(row[1] * image.QUAD for row in table),
    )
