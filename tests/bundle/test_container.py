"""Every header pads to a page, and the container takes nothing but its own canonical form."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest

from edgemtl.bundle import container
from edgemtl.bundle.container import Entry, directory, local_header, parse
from edgemtl.bundle.manifest import PAGE
from edgemtl.errors import BundleError


def build(members: dict[str, bytes]) -> bytes:
    image, entries = b"", []
    for name, data in members.items():
        crc, start = zlib.crc32(data), len(image)
        header = local_header(name, len(data), crc, start)
        entries.append((Entry(name, start + len(header), len(data), crc), start))
        image += header + data
    return image + directory(entries, len(image))


def parse_bytes(data: bytes) -> dict[str, Entry]:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0
        assert offset + size <= len(data), "the parser may only ask for what is there"
        return data[offset : offset + size]

    return parse(read, len(data))


GOOD = {"manifest.json": b"{}", "weights/a.bin": b"x" * 5000, "empty": b""}


@pytest.mark.parametrize("offset", [*range(4000, 4100), 0, 1, 123456789])
def test_padding(offset: int) -> None:
    """A zip's extra field has four bytes of its own, so a gap of 1 to 3 bytes must grow by a page."""
    header = local_header("a/b", 7, 1, offset)
    assert (offset + len(header)) % PAGE == 0
    extra = struct.unpack_from("<H", header, 28)[0]
    assert len(header) == 33 + extra
    if extra:
        kind, length = struct.unpack_from("<HH", header, 33)
        assert (kind, length) == (0xD935, extra - 4)


def test_round_trip() -> None:
    data = build(GOOD)
    entries = parse_bytes(data)
    assert {n: data[e.offset : e.offset + e.size] for n, e in entries.items()} == GOOD
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert z.testzip() is None
        assert {n: z.read(n) for n in z.namelist()} == GOOD


def ordinary(method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as z:
        for name, content in GOOD.items():
            z.writestr(name, content)
        z.comment = comment
    return buffer.getvalue()


def patch(offset: int, data: bytes) -> bytes:
    good = build(GOOD)
    at = offset if offset >= 0 else len(good) + offset
    return good[:at] + data + good[at + len(data) :]


def central(change: Callable[[bytearray], None]) -> bytes:
    """GOOD with its first directory record changed."""
    good = bytearray(build(GOOD))
    start = struct.unpack_from("<I", good, len(good) - 6)[0]
    record = good[start:]
    change(record)
    return bytes(good[:start] + record)


def put(at: int, form: str, value: int | bytes) -> Callable[[bytearray], None]:
    return lambda record: struct.pack_into(form, record, at, value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04", "cut short"),
        (b"x", "not an edgemtl bundle"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "begins like a JPEG"),
        (b"\x89PNG\r\n" + bytes(99), "begins like a PNG"),
        (b"\0\0\0\x18ftypmp42" + bytes(99), "begins like an MP4"),
        (struct.pack("<Q", 99) + b'{"a":{' + bytes(99), "begins like a safetensors file"),
        (build(GOOD)[:-1], "cut short"),
        (build(GOOD)[:-4000], "cut short"),
        (build(GOOD) + b"\0", "bytes after its end"),
        (build(GOOD) * 2, "does not fit"),
        (ordinary(), "not as edgemtl writes it"),
        (ordinary(zipfile.ZIP_DEFLATED), "compressed"),
        (ordinary(comment=b"hello"), "end record"),
        (build({"A": b""}), "unsafe name"),
        (build({"a/../b": b""}), "unsafe name"),
        (build({"a//b": b""}), "unsafe name"),
        (build({"/etc/passwd": b""}), "unsafe name"),
        (build({"c:\\windows": b""}), "unsafe name"),
        (build({"a\x1b[2J": b""}), r"unsafe name 'a\\x1b"),
        (build({"a\0": b""}), "unsafe name"),
        (build({"a": b"", "x" * 256: b""}), "unsafe name"),
        (build({}), "not an edgemtl bundle"),
        (patch(-18, b"\1\0"), "several disks"),
        (patch(-2, b"\1\0"), "with a comment"),
        (patch(-12, b"\4\0"), "several disks"),
        (patch(-14, b"\4\0\4\0"), "directory"),
        (patch(-14, b"\0\0\0\0"), "0 members"),
        (patch(-14, b"\xff\xff\xff\xff"), "65535 members"),
        (patch(-10, b"\xff\xff\xff\xff"), "does not fit"),
        (patch(-6, b"\xff\xff\xff\xff"), "does not fit"),
        (central(put(0, "<4s", b"PK\1\3")), "not as edgemtl writes it"),
        (central(put(8, "<H", 1)), "encrypted"),
        (central(put(8, "<H", 0x800)), "not as edgemtl writes it"),
        (central(put(10, "<H", 8)), "compressed"),
        (central(put(14, "<H", 1)), "not as edgemtl writes it"),
        (central(put(20, "<I", 1)), "compressed"),
        (central(put(24, "<I", 3)), "compressed"),
        (central(lambda r: struct.pack_into("<II", r, 20, 1, 1)), "not as edgemtl writes it|gap"),
        (central(lambda r: struct.pack_into("<II", r, 20, 1 << 31, 1 << 31)), "beyond the file"),
        (central(put(28, "<H", 300)), "unsafe name|not as edgemtl"),
        (central(put(30, "<H", 4)), "not as edgemtl writes it|zip directory"),
        (central(put(42, "<I", 1)), "leaves a gap"),
        (central(put(38, "<I", 0o777 << 16)), "zip directory"),
        (patch(31, b"x"), "header of member"),
        (patch(60, b"x"), "header of member"),
    ],
)  # fmt: skip
def test_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        parse_bytes(data)


def test_two_members_of_one_name() -> None:
    data, entries = b"", []
    for _ in range(2):
        header = local_header("a", 0, 0, len(data))
        entries.append((Entry("a", len(data) + len(header), 0, 0), len(data)))
        data += header
    with pytest.raises(BundleError, match="two members called 'a'"):
        parse_bytes(data + directory(entries, len(data)))


def test_members_that_overlap() -> None:
    """Both records are canonical on their own, and point at the same bytes."""
    header = local_header("a", 4, 0, 0)
    data = header + b"data"
    entries = [(Entry("a", len(header), 4, 0), 0), (Entry("b", len(header), 4, 0), 0)]
    with pytest.raises(BundleError, match="overlaps"):
        parse_bytes(data + directory(entries, len(data)))


def test_limits_hold() -> None:
    assert container.MAX_BYTES < 1 << 32
    with pytest.raises(struct.error):
        local_header("a", 1 << 32, 0, 0)
