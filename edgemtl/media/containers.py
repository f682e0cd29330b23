"""Whether a video file is shorter than it says itself: its decoder then ends early and calls that the end."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
_MOST_BOXES = 100_000  # that are walked; a file in fragments has two for each


def cut_off(path: Path) -> bool:
    """Whether a Matroska, WebM, MP4 or QuickTime file ends before its end; False for any other. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] == _EBML:
            return path.stat().st_size < _matroska(file)
        if head[4:] in _FIRST_BOXES:
            return path.stat().st_size < _boxes(file)
    return False


def _matroska(file: BinaryIO) -> int:
    """Where the segment ends, behind the head; 0 where that is not stated, as in what was streamed."""
    file.seek(4)
    file.seek(_size(file) or 0, 1)
    if file.read(4) != _SEGMENT:
        return 0
    size = _size(file)
    return file.tell() + size if size is not None else 0


def _size(file: BinaryIO) -> int | None:
    """A number of one to eight bytes whose first bits say how many; None for "unknown", which is all ones."""
    first = (file.read(1) or b"\0")[0]
    more = 8 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(min(more, 7)), "big")
    mask = (1 << 7 * (more + 1)) - 1
    return None if more > 7 or value & mask == mask else value & mask


def _boxes(file: BinaryIO) -> int:
    """Where the last box ends."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # a long one: its size follows its name
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # the end of the file; or 0, up to the end; or damage
            break
        at += size
    return at
