"""A bitstream on disk: edgemtl.bit, edgemtl.hwh and edgemtl.json, the build's record of both files and its versions.

`make -C bitstreams BOARD` writes the record. Without it nobody can tell whether .bit and .hwh are of one build.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from edgemtl.config import Strict
from edgemtl.errors import BoardError
from edgemtl.fpga import handoff
from edgemtl.fpga.board import names
from edgemtl.fpga.contract import PROGRAM_VERSION, REGISTER_VERSION
from edgemtl.fpga.handoff import Handoff

NAME, VARIABLE = "edgemtl.bit", "EDGEMTL_BITSTREAM"
VIRTUAL = "virtual board"  # the tool that a virtual board's files name


class Record(Strict):
    """What a build says of its files; `clock_hz` is what the timing report closed at."""

    bit_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    hwh_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    register_version: int
    format_version: int
    board: str
    clock_hz: float = Field(gt=0)
    tool: str


@dataclass(frozen=True)
class Bitstream:
    """Files that belong together and to this edgemtl."""

    bit: Path
    record: Record
    handoff: Handoff


def find(beside: Path) -> Path:
    """$EDGEMTL_BITSTREAM, else edgemtl.bit in the folder of the bundle `beside`. Raises BoardError where neither is."""
    given = os.environ.get(VARIABLE)
    path = Path(given) if given else beside.resolve().parent / NAME
    if not path.is_file():
        raise BoardError(
            f"there is no bitstream {path}: put {NAME}, .hwh and .json beside the bundle, or set {VARIABLE}; "
            "make -C bitstreams BOARD builds them"
        )
    return path


def open_bitstream(bit: Path, board: str | None = None) -> Bitstream:
    """Check everything that can be checked without the board, and that it is for `board` if that is given; raises
    BoardError by the name of what is wrong.
    """
    record, hwh = _record(bit.with_suffix(".json")), bit.with_suffix(".hwh")
    for path, wanted in ((bit, record.bit_sha256), (hwh, record.hwh_sha256)):
        if not path.is_file():
            raise BoardError(f"{path} is missing; copy the .bit, .hwh and .json of one build")
        if digest(path) != wanted:
            raise BoardError(f"{path}: is stale: it is not of the build that wrote {bit.with_suffix('.json').name}")
    if record.board not in (boards := names() if board is None else (board,)):
        raise BoardError(f"{bit}: is for the board {record.board}; needed is one for {' or '.join(boards)}")
    for what, has, own in (
        ("register map", record.register_version, REGISTER_VERSION),
        ("weight layout", record.format_version, PROGRAM_VERSION),
    ):
        if has != own:
            raise BoardError(
                f"{bit}: has {what} version {has}, this edgemtl {own}: build the bitstream again, or install the "
                "edgemtl that it was built with"
            )
    found = handoff.read(hwh)
    handoff.check(found, hwh)
    return Bitstream(bit, record, found)


def write_record(bit: Path, *, board: str, clock_hz: float, tool: str) -> Record:
    """Write the .json beside `bit` and its .hwh."""
    record = Record(
        bit_sha256=digest(bit),
        hwh_sha256=digest(bit.with_suffix(".hwh")),
        register_version=REGISTER_VERSION,
        format_version=PROGRAM_VERSION,
        board=board,
        clock_hz=clock_hz,
        tool=tool,
    )
    bit.with_suffix(".json").write_text(record.model_dump_json(indent=1) + "\n")
    return record


def describe(found: Bitstream) -> dict[str, object]:
    """For reports: the record, and where the accelerator lies."""
    return {**found.record.model_dump(), "handoff": {k: v for k, v in asdict(found.handoff).items() if k != "offsets"}}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(path: Path) -> Record:
    try:
        return Record.model_validate(json.loads(path.read_text()))
    except OSError as error:
        raise BoardError(f"cannot read {path}: {error.strerror}; copy the .bit, .hwh and .json of one build") from None
    except (ValueError, ValidationError, RecursionError):
        raise BoardError(f"{path}: is no record of a build; copy the .bit, .hwh and .json of one build") from None
