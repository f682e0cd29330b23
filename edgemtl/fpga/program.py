"""What the host writes to the accelerator's memory: weight image and descriptor program, and how to read its output.

`Program` is what the compiler makes and what `load` reads from a bundle. The layout is that of `contract`: a header,
a table of tasks, and descriptors, 16 32-bit fields each. A task switch is another index into the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import BundleError, TaskError
from edgemtl.fpga import registers
from edgemtl.fpga.board import DEFAULT
from edgemtl.fpga.contract import (
    FIELDS,
    MAX_OPS,
    PORTS,
    PROGRAM_MAGIC,
    PROGRAM_VERSION,
    REGISTER_VERSION,
    WORD,
    Header,
    OpCode,
    Status,
)

if TYPE_CHECKING:
    from edgemtl.bundle.manifest import Accelerator
    from edgemtl.bundle.manifest import Program as Entry
    from edgemtl.bundle.reader import Bundle

BACKEND = "fpga"
STATUS: dict[int, str] = {  # what the kernel returns, in words
    Status.BAD_SHAPE: "a shape outside the compiled maxima",
    Status.BAD_TABLE: "a value in the weight image outside its range",
    Status.BAD_MAGIC: "this is no descriptor program",
    Status.BAD_VERSION: "a descriptor program of another version",
    Status.BAD_CHECKSUM: "a damaged descriptor program: its checksum is wrong",
    Status.BAD_PROGRAM: "an unknown descriptor, or an address outside the weight image",
    Status.BAD_TASK: "no such task",
    Status.BAD_BUFFER: "a buffer of the wrong size",
    Status.DEADLOCK: "a deadlock in simulation",
}


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


@dataclass(frozen=True)
class Golden:
    """Frames uint8 [n, H, W, 3] and the raw maps int16 [n, h, w, channels] that every exact device gives."""

    pixels: NDArray[np.uint8]
    maps: dict[str, NDArray[np.int16]]


def checksum(words: NDArray[np.uint32]) -> int:
    """Sum of all fields but itself, each step after a rotation to the left by one."""
    total = 0
    for i, value in enumerate(words.reshape(-1).tolist()):
        total = ((total << 1 | total >> 31) + (0 if i == Header.CHECKSUM else value)) & 0xFFFFFFFF
    return total


def described(bundle: Bundle, target: str | None = None) -> tuple[Entry, Accelerator]:
    """What the manifest says of the board `target`, or of the first board; raises BundleError where the bundle has
    nothing for it.
    """
    for entry in bundle.manifest.programs:
        if entry.accelerator is not None and target in (None, entry.target):
            return entry, entry.accelerator
    target = target or DEFAULT
    raise BundleError(
        f"{bundle.path}: holds nothing for the FPGA board {target}; "
        f"make it with edgemtl compile CHECKPOINT --target {target} --calibrate FOLDER -o {bundle.path.name}"
    )


def load(bundle: Bundle, target: str | None = None) -> Program:
    """The program for `target`, its buffers as the device reads them: read-only arrays, copied as they are.

    Every size, the magic, versions, checksum, task table and descriptors are checked against the manifest's model
    first; the kernel checks them again. Raises BundleError.
    """
    (entry, fpga), config = described(bundle, target), bundle.manifest.model
    try:
        if fpga.format_version != PROGRAM_VERSION:
            raise BundleError(
                f"its FPGA image has format version {fpga.format_version}, this edgemtl reads {PROGRAM_VERSION}: "
                "compile the bundle with the same edgemtl that runs it"
            )
        if bundle.read(fpga.registers, 1 << 16) != registers.as_json():
            raise BundleError(
                f"its register map (version {fpga.register_version}) is not this edgemtl's (version "
                f"{REGISTER_VERSION}): compile the bundle with the same edgemtl that runs it"
            )
        words = np.frombuffer(bundle.read(entry.members[config.task_names[0]], 1 << 16), "<u4").reshape(-1, FIELDS)
        banks = np.frombuffer(bundle.read(fpga.image), np.uint8).reshape(PORTS, fpga.quads, WORD)
        made = Program(
            words=words,
            banks=banks,
            tasks=config.task_names,
            image_size=config.image_size,
            map_size=config.map_size,
            channels=tuple(t.channels for t in config.tasks),
            units=tuple(t.unit for t in fpga.tasks),
            task_bytes=tuple(int(q) * PORTS * WORD for q in words[1 : 1 + len(config.tasks), 1]),
        )
        check(made)
    except BundleError as error:
        text = str(error)
        raise BundleError(text if text.startswith(str(bundle.path)) else f"{bundle.path}: {text}") from None
    return made


def golden(bundle: Bundle, target: str | None = None) -> Golden:
    """The frames and raw maps that prove a device; raises BundleError for damaged ones."""
    (_, fpga), config = described(bundle, target), bundle.manifest.model
    pixels = np.frombuffer(bundle.read(fpga.golden_frames), np.uint8)
    maps = {
        t.name: np.frombuffer(bundle.read(t.golden), "<i2").reshape(
            fpga.golden_count, *config.map_size, config.task(t.name).channels
        )
        for t in fpga.tasks
    }
    return Golden(pixels.reshape(fpga.golden_count, *config.image_size, 3), maps)


def check(program: Program) -> None:
    """The header and table of tasks against the model, then every descriptor's place. Raises BundleError."""
    words, quads = program.words, program.banks.shape[1]
    header = words[0].tolist()
    if header[Header.MAGIC] != PROGRAM_MAGIC:
        raise BundleError(f"its FPGA program begins with {header[Header.MAGIC]:#010x}, which is no descriptor program")
    if header[Header.VERSION] != PROGRAM_VERSION:
        raise BundleError(
            f"its FPGA program has version {header[Header.VERSION]}, this edgemtl reads {PROGRAM_VERSION}"
        )
    ops, tasks = header[Header.OPS], header[Header.TASKS]
    if not 1 <= ops <= MAX_OPS or tasks != len(program.tasks) or len(words) != 1 + tasks + ops:
        raise BundleError(f"its FPGA program counts {tasks} tasks and {ops} descriptors in {len(words)} records")
    if checksum(words) != header[Header.CHECKSUM]:
        raise BundleError("its FPGA program is damaged: its checksum is wrong")
    if tuple(header[Header.HEIGHT : Header.DIM]) != program.image_size or header[Header.QUADS] != quads:
        raise BundleError("its FPGA program is for another image size or weight image than the bundle's")
    for name, channels, (base, size, count) in zip(
        program.tasks, program.channels, words[1 : 1 + tasks, :3].tolist(), strict=True
    ):
        if base + size > quads or count != channels:
            raise BundleError(f"its FPGA program's entry of task {name!r} reaches beyond the image or is another's")
    _check_ops(words[1 + tasks :].tolist(), quads, min(words[1 : 1 + tasks, 1].tolist()))


def _check_ops(ops: Sequence[Sequence[int]], quads: int, task_quads: int) -> None:
    for number, (code, relative, at, second, *_) in enumerate(ops):
        limit = task_quads if relative else quads
        if not 1 <= code <= max(OpCode) or relative > 1 or at >= limit or second >= limit:
            raise BundleError(f"its FPGA program's descriptor {number} is unknown or points outside the weight image")
