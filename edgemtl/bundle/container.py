"""The container of a bundle: a zip in one canonical form, of stored members that begin on page boundaries.

Any zip tool can read it. In the other direction edgemtl is strict: it takes only the bytes its own writer would have
produced for the same names, sizes and checksums. So nothing can hide between members, no two of them overlap, a local
header cannot contradict the directory, and nearly every damaged byte outside the members' data is noticed.

    local header (its extra field is the padding) | data, on a page | local header | data | … | directory | end record
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edgemtl.bundle.manifest import PAGE
from edgemtl.errors import BundleError

MAX_BYTES = (1 << 32) - 2  # beyond it a zip needs the zip64 form, which bundles do not use
MAX_MEMBERS = 4096
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_NAME = re.compile(r"[a-z0-9_][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.\-]*){0,4}")
_VERSION, _UNIX = 20, 3 << 8
_DATE = 1 | 1 << 5  # 1 January 1980, the first day a zip can name: the same input gives the same bytes
_MODE = 0o100644 << 16
_PADDING_ID = 0xD935  # the extra-field id that Android's zipalign uses for the same purpose
_CENTRAL_SIZE, _END_SIZE = 46, 22
_COMPLAINT = "is not as edgemtl writes it: it is damaged, or another zip tool has packed it anew"

Read = Callable[[int, int], bytes]  # (offset, size) -> exactly that many bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: where its data begins in the file, how long it is, its CRC-32."""

    name: str
    offset: int
    size: int
    crc: int


def local_header(name: str, size: int, crc: int, offset: int) -> bytes:
    """The header of a member, padded so that the data after it begins on a page; `offset` is the header's own."""
    fixed = 30 + len(name)
    extra = -(offset + fixed) % PAGE
    if 0 < extra < 4:  # an extra field has four bytes of its own
        extra += PAGE
    head = struct.pack("<4sHHHHHIIIHH", LOCAL, _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), extra)
    padding = struct.pack("<HH", _PADDING_ID, extra - 4) + bytes(extra - 4) if extra else b""
    return head + name.encode("ascii") + padding


def directory(entries: Iterable[tuple[Entry, int]], offset: int) -> bytes:
    """The central directory at `offset` and the end record, for (member, offset of its local header) pairs."""
    records = []
    for e, start in entries:
        records.append(
            struct.pack(
                "<4sHHHHHHIIIHHHHHII",
                CENTRAL, _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE, e.crc, e.size, e.size,
                len(e.name), 0, 0, 0, 0, _MODE, start,
            )
            + e.name.encode("ascii")
        )  # fmt: skip
    central = b"".join(records)
    count = len(records)
    return central + struct.pack("<4sHHHHIIH", END, 0, 0, count, count, len(central), offset, 0)


def parse(read: Read, total: int) -> dict[str, Entry]:
    """The members of a file of `total` bytes, in order, after checking every byte of the container.

    Raises BundleError for anything that edgemtl's writer would not have written.
    """
    start = read(0, min(total, 16))
    if not start.startswith(LOCAL):
        raise BundleError(f"is not an edgemtl bundle{_guess(start)}")
    if total < _END_SIZE or (end := read(total - _END_SIZE, _END_SIZE))[:4] != END:
        raise BundleError("is cut short, or has bytes after its end: the zip end record is not where the file ends")
    _, disk, first_disk, here, count, size, offset, comment = struct.unpack("<4sHHHHIIH", end)
    if disk or first_disk or here != count or comment:
        raise BundleError("is a zip of several disks or with a comment, which a bundle never is")
    if not 0 < count <= MAX_MEMBERS:
        raise BundleError(f"has {count} members; a bundle has 1 to {MAX_MEMBERS}")
    if offset + size + _END_SIZE != total or size > count * (_CENTRAL_SIZE + 255):
        raise BundleError("has a zip directory that does not fit into the file")
    entries: dict[str, Entry] = {}
    headers: list[tuple[Entry, int]] = []
    central, at, expected = read(offset, size), 0, 0
    for _ in range(count):
        entry, start_of, at = _record(central, at)
        if entry.name in entries:
            raise BundleError(f"has two members called {entry.name!r}")
        if start_of != expected:
            raise BundleError(f"member {entry.name!r} overlaps another one or leaves a gap")
        header = local_header(entry.name, entry.size, entry.crc, start_of)
        entry = Entry(entry.name, start_of + len(header), entry.size, entry.crc)
        if (expected := entry.offset + entry.size) > offset:
            raise BundleError(f"member {entry.name!r} reaches beyond the file")
        if read(start_of, len(header)) != header:
            raise BundleError(f"the header of member {entry.name!r} {_COMPLAINT}")
        entries[entry.name] = entry
        headers.append((entry, start_of))
    if expected != offset or central + end != directory(headers, offset):
        raise BundleError(f"its zip directory {_COMPLAINT}")
    return entries


def _record(central: bytes, at: int) -> tuple[Entry, int, int]:
    """One directory record at `at`: member (data offset unknown yet), offset of its local header, next `at`."""
    record = central[at : at + _CENTRAL_SIZE]
    if len(record) < _CENTRAL_SIZE or record[:4] != CENTRAL:
        raise BundleError(f"its zip directory {_COMPLAINT}")
    fields = struct.unpack("<HHHHHHIIIHHHHHII", record[4:])
    flags, method, crc, packed, size, length, start = (fields[i] for i in (2, 3, 6, 7, 8, 9, 15))
    raw = central[at + _CENTRAL_SIZE : at + _CENTRAL_SIZE + length]
    name = raw.decode("ascii", "replace")
    if not _NAME.fullmatch(name) or len(raw) > 255:
        raise BundleError(f"has a member with the unsafe name {name[:80]!r}")
    if flags & 1:
        raise BundleError(f"member {name!r} is encrypted, which a bundle's members never are")
    if method or packed != size:
        raise BundleError(f"member {name!r} is compressed; a bundle's members are stored, so that they can be mapped")
    return Entry(name, 0, size, crc), start, at + _CENTRAL_SIZE + length


def _guess(start: bytes) -> str:
    """What a file with these first bytes may be instead."""
    known = {
        b"\xff\xd8\xff": "a JPEG image",
        b"\x89PNG": "a PNG image",
        b"\x7fELF": "a program or shared library",
        b"\x1f\x8b": "a gzip file",
        b"RIFF": "an AVI, WAV or WebP file",
        b"\x80\x02": "a pickle or an old PyTorch checkpoint",
        b"\x08": "perhaps an ONNX model; edgemtl compile makes bundles from edgemtl checkpoints",
    }
    if start[4:8] == b"ftyp":
        return ": it begins like an MP4 video"
    if start[8:10] == b'{"':
        return ": it begins like a safetensors file; edgemtl compile makes a bundle from a checkpoint"
    return next((f": it begins like {what}" for magic, what in known.items() if start.startswith(magic)), "")
