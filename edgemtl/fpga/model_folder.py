"""The accelerator's part of a bundle as plain files, for a board: model.json, and the members under their own names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from edgemtl.bundle.reader import Bundle
from edgemtl.config import Strict
from edgemtl.errors import BoardError, BundleError
from edgemtl.fpga import program, registers
from edgemtl.fpga.contract import FIELDS, PORTS, PROGRAM_VERSION, REGISTER_VERSION, WORD
from edgemtl.fpga.program import Golden, Program

FACTS = "model.json"


class TaskFacts(Strict):
    """One task: a value of its raw map is its integer times `unit`; `estimated_cycles` of a frame by unit,
    origin model."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    channels: int = Field(ge=1, le=1 << 12)
    unit: float
    bytes: int = Field(ge=0)
    estimated_cycles: dict[str, int] = Field(default_factory=dict)


class Facts(Strict):
    """What the files are: see edgemtl/bundle/manifest.py, `Accelerator`."""

    name: str
    board: str
    format_version: int
    register_version: int
    quads: int = Field(ge=1, le=1 << 24)
    golden_count: int = Field(ge=1, le=64)
    image_size: tuple[int, int]
    map_size: tuple[int, int]
    tasks: tuple[TaskFacts, ...] = Field(min_length=1)


def write(bundle: Bundle, folder: Path, board: str, estimated: dict[str, dict[str, int]] | None = None) -> Facts:
    """Write the files for `board` into the new folder `folder`; raises BundleError where the bundle holds none."""
    program.load(bundle, board)
    (entry, fpga), config = program.described(bundle, board), bundle.manifest.model
    facts = Facts(
        name=bundle.manifest.name,
        board=entry.target,
        format_version=fpga.format_version,
        register_version=fpga.register_version,
        quads=fpga.quads,
        golden_count=fpga.golden_count,
        image_size=config.image_size,
        map_size=config.map_size,
        tasks=tuple(
            TaskFacts(
                name=t.name,
                channels=config.task(t.name).channels,
                unit=t.unit,
                bytes=t.bytes,
                estimated_cycles=(estimated or {}).get(t.name, {}),
            )
            for t in fpga.tasks
        ),
    )
    folder.mkdir(parents=True)
    for member in entry.files:
        (folder / Path(member).name).write_bytes(bundle.read(member))
    (folder / FACTS).write_text(facts.model_dump_json(indent=1) + "\n")
    return facts


def read(folder: Path) -> tuple[Facts, Program, Golden]:
    """The files, checked as those of a bundle are; raises BundleError, BoardError where a file is missing."""
    try:
        facts = Facts.model_validate_json((folder / FACTS).read_text())
        files = {
            name: (folder / name).read_bytes()
            for name in ("weights.bin", "program.bin", "registers.json", "golden_frames.bin")
        }
        maps = {t.name: (folder / f"golden_{t.name}.bin").read_bytes() for t in facts.tasks}
    except OSError as error:
        raise BoardError(f"cannot read {error.filename}: {error.strerror}; deploy the bundle again") from None
    except (ValidationError, ValueError):
        raise BundleError(f"{folder / FACTS}: does not say what the files are; deploy the bundle again") from None
    if (facts.format_version, files["registers.json"]) != (PROGRAM_VERSION, registers.as_json()):
        raise BundleError(
            f"{folder}: has weight layout version {facts.format_version} and register map version "
            f"{facts.register_version}, this edgemtl {PROGRAM_VERSION} and {REGISTER_VERSION}: deploy the bundle again"
        )
    tasks, (height, width) = facts.tasks, facts.image_size
    try:
        words = np.frombuffer(files["program.bin"], "<u4").reshape(-1, FIELDS)
        made = Program(
            words=words,
            banks=np.frombuffer(files["weights.bin"], np.uint8).reshape(PORTS, facts.quads, WORD),
            tasks=tuple(t.name for t in tasks),
            image_size=facts.image_size,
            map_size=facts.map_size,
            channels=tuple(t.channels for t in tasks),
            units=tuple(t.unit for t in tasks),
            task_bytes=tuple(t.bytes for t in tasks),
        )
        pixels = np.frombuffer(files["golden_frames.bin"], np.uint8).reshape(facts.golden_count, height, width, 3)
        form = (facts.golden_count, *facts.map_size)
        golden = {t.name: np.frombuffer(maps[t.name], "<i2").reshape(*form, t.channels) for t in tasks}
        program.check(made)
    except (ValueError, IndexError):
        raise BundleError(f"{folder}: has a file of a wrong size; deploy the bundle again") from None
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None
    return facts, made, Golden(pixels, golden)
