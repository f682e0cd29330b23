"""A bundle's part for the accelerator: the model in INT8, packed for the device, with the integers it must give.

The goldens come from the integer NumPy reference, which is the specification: every exact device gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle.manifest import Accelerator, AcceleratorTask, Function
from edgemtl.bundle.manifest import Program as Entry
from edgemtl.fpga import registers
from edgemtl.fpga.board import DEFAULT
from edgemtl.fpga.contract import PROGRAM_VERSION, REGISTER_VERSION
from edgemtl.fpga.program import BACKEND, Program
from edgemtl_compiler.fpga import program
from edgemtl_compiler.fpga.network import IntegerNetwork


@dataclass(frozen=True)
class FpgaPart:
    """The manifest's entry and the members (name -> bytes) of one board, with the network they were made from."""

    entry: Entry
    files: dict[str, bytes]
    network: IntegerNetwork
    program: Program

    @property
    def size(self) -> int:
        """Bytes of all members."""
        return sum(map(len, self.files.values()))


def pack(
    network: IntegerNetwork,
    images: NDArray[np.uint8],
    *,
    target: str = DEFAULT,
    calibration: dict[str, str | int | float] | None = None,
) -> FpgaPart:
    """The part of an integer network; `images` [n, 3, H, W] become the golden frames."""
    made = program.build(network)
    folder = f"programs/{BACKEND}/{target}"
    pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    files = {
        f"{folder}/weights.bin": made.banks.tobytes(),
        f"{folder}/program.bin": made.words.astype("<u4").tobytes(),
        f"{folder}/registers.json": registers.as_json(),
        f"{folder}/golden_frames.bin": pixels.tobytes(),
    }
    tasks = []
    for name, unit, size in zip(made.tasks, made.units, made.task_bytes, strict=True):
        member = f"{folder}/golden_{name}.bin"
        maps = np.stack([network.run(frame, name) for frame in pixels])
        files[member] = maps.astype("<i2").tobytes()
        tasks.append(AcceleratorTask(name=name, unit=unit, bytes=size, golden=member))
    part = Accelerator(
        format_version=PROGRAM_VERSION,
        register_version=REGISTER_VERSION,
        image=f"{folder}/weights.bin",
        quads=made.banks.shape[1],
        registers=f"{folder}/registers.json",
        golden_frames=f"{folder}/golden_frames.bin",
        golden_count=len(pixels),
        tasks=tuple(tasks),
        calibration=calibration or {},
    )
    config, image = network.config, (1, 3, *made.image_size)
    entry = Entry(
        backend=BACKEND,
        target=target,
        functions={
            t.name: Function(inputs=(image,), outputs=((1, t.channels, *config.map_size),)) for t in config.tasks
        },
        members=dict.fromkeys(made.tasks, f"{folder}/program.bin"),
        accelerator=part,
    )
    return FpgaPart(entry, files, network, made)
