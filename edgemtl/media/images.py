"""The one reader of pictures, for `edgemtl run`, calibration and labelled data: what a file is its content says.

found = sniff(path)                    # picture, a format that cannot be read, or something else
image = read_image(path)               # uint8 BGR, turned as its EXIF says; turn=False: as it is stored
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from edgemtl.errors import FrameError
from edgemtl.media.names import shown_name
from edgemtl.media.preprocess import Image

MAX_FILE = 1 << 28  # bytes of one image file
MOST_PAGES = 1000  # that are looked for
HEAD = 1024  # bytes that tell a format, and of a GIF, after its colours, whether it moves
_NAMES = r".*\.(png|jpe?g|jpe|jfif|bmp|dib|webp|tiff?|p[pgbn]m|jp2|gif|avif|hei[cf]|jxl)"
_RAW_NAMES = r".*\.(dng|nef|nrw|arw|srf|sr2|pef|3fr|iiq|erf|dcr|kdc|mos|cr2)"  # photographs with a TIFF's content
_RAW = {"camera raw": rb"(II\*\0|MM\0\*).{4}CR|IIRO|IIU\0|FUJIFILMCCD-RAW|.{4}ftypcrx "}
_READABLE = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WebP": rb"RIFF.{4}WEBP",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "PNM": rb"P[1-6][\s#]|P7\n",
    "JPEG 2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "GIF": rb"GIF8[79]a",
    "AVIF": rb".{4}ftyp(avif|avis|mif1.{4,40}avif)",
}
_FOREIGN = {
    "HEIC": rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1|mif2)",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "Radiance HDR": rb"#\?(RADIANCE|RGBE)",
    "Photoshop": rb"8BPS",
    "PDF": rb"%PDF",
    "SVG": rb"\s*(<\?xml[^>]*>\s*)?<svg[\s>]",
}


_ANIMATED = re.escape(bytes(flags for flags in range(64) if flags & 2))  # of a WebP's flags
_MOVING = re.compile(
    rb"RIFF.{4}WEBPVP8X.{4}[" + _ANIMATED + rb"]|\x89PNG.*acTL|GIF89a.*NETSCAPE2|.{4}ftypavis", re.DOTALL
)


class Kind(NamedTuple):
    """format: the picture format's name, "" for what is no picture. readable: whether `read_image` takes it. moving: it
    is an animation, of which `read_image` gives the first picture.
    """

    format: str
    readable: bool
    moving: bool = False


def is_named_like_one(path: Path) -> bool:
    """Whether a file's name says that it is a picture, which its content may deny."""
    return re.fullmatch(_NAMES, path.name, re.IGNORECASE | re.DOTALL) is not None


def kind(head: bytes, name: str = "") -> Kind:
    """What a file with the first HEAD bytes `head` is; `name` only tells a raw photograph from the TIFF it is in."""
    found = next((f for f, pattern in (_RAW | _READABLE | _FOREIGN).items() if re.match(pattern, head, re.DOTALL)), "")
    if found == "TIFF" and re.fullmatch(_RAW_NAMES, name, re.IGNORECASE | re.DOTALL):
        found = next(iter(_RAW))
    return Kind(found, found in _READABLE, _MOVING.match(head) is not None)


def sniff(path: Path) -> Kind:
    """What the file `path` is; nothing for a pipe or device, which must not be read twice. Raises OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        return Kind("", False)
    with path.open("rb") as file:
        return kind(file.read(HEAD), path.name)


def unread(path: Path) -> str:
    """What of a picture `read_image` does not give, in a sentence; "" for nothing, and for a file that has gone."""
    try:
        found = sniff(path)
        pages = _tiff_pages(path) if found.format == "TIFF" else 1
    except OSError:
        return ""
    if found.moving:
        return f"{shown_name(path)} is an animation: only its first picture is read"
    return f"{shown_name(path)} has {pages} pages: only the first is read" if pages > 1 else ""


def _tiff_pages(path: Path) -> int:
    """Pages of a TIFF file, MOST_PAGES at most, small copies and masks not counted; 0 of a BigTIFF, not read."""
    with path.open("rb") as file:
        head = file.read(8)
        order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
        if int.from_bytes(head[2:4], order) != 42:
            return 0
        at, seen, pages = int.from_bytes(head[4:8], order), set[int](), 0
        while at and at not in seen and len(seen) < MOST_PAGES:
            seen.add(at)
            file.seek(at)
            entries = file.read(12 * int.from_bytes(file.read(2), order))
            tags = [entries[i : i + 12] for i in range(0, len(entries), 12)]
            kinds = [tag[8:12] for tag in tags if int.from_bytes(tag[:2], order) == 254]  # NewSubfileType
            pages += bool(tags) and not any(int.from_bytes(value, order) & 5 for value in kinds)
            at = int.from_bytes(file.read(4), order)
    return pages


def refusal(path: Path, format_: str) -> FrameError:
    """Why a picture of a format that is not read cannot be used, and what would help."""
    return FrameError(f"{shown_name(path)} is a {format_} file, which is not read; convert it to JPEG or PNG first")


def read_image(path: Path, *, turn: bool = True) -> Image:
    """A file as BGR, uint8 [H, W, 3]; reads the bytes itself, so that any file name works.

    turn: whether EXIF's orientation turns it, as for people; labelled pictures are read as they are stored, for so are
    their labels. Raises FrameError, also for a file that is cut off.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise FrameError(f"{shown_name(path)} has more than {MAX_FILE >> 20} MiB, too much for one image")
        data = path.read_bytes()
    except OSError as e:
        raise FrameError(f"cannot read {shown_name(path)}: {e.strerror}") from None
    return decode(path, data, turn=turn)


def decode(path: Path, data: bytes, *, turn: bool = True) -> Image:
    """What `read_image` gives, from the bytes of the file `path`. Raises FrameError."""
    if not data:
        raise FrameError(f"{shown_name(path)} is empty")
    found = kind(data[:HEAD], path.name)
    if found.format and not found.readable:
        raise refusal(path, found.format)
    if cut_off(data, found.format):
        raise FrameError(f"{shown_name(path)} is cut off before its end; copy it again")
    try:
        flags = cv2.IMREAD_COLOR if turn else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # for one, more pixels than OpenCV allows
        image = None
    if image is None and found.format:
        raise FrameError(
            f"{shown_name(path)} is a {found.format} file that cannot be decoded: it is damaged, or of a variant"
            " that is not read; copy it again, or convert it to an 8-bit PNG"
        )
    if image is None:
        raise FrameError(f"{shown_name(path)} is no image that can be decoded, or it is damaged")
    return np.asarray(image, np.uint8)


def exif_turns(path: Path, data: bytes) -> bool:
    """Whether EXIF's orientation turns the picture that is stored. Raises FrameError."""
    if not any(mark in data[: 1 << 16] for mark in (b"Exif\0\0", b"eXIf")):
        return False
    return not np.array_equal(decode(path, data), decode(path, data, turn=False))


def cut_off(data: bytes, format_: str) -> bool:
    """Whether a JPEG or PNG lacks its end: decoders then give a picture whose rest is grey, and say nothing."""
    if format_ == "PNG":
        return b"\0\0\0\0IEND" not in data
    if format_ != "JPEG":
        return False
    at = 2  # of the header's segments, a thumbnail may hold an end of its own
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return data.find(b"\xff\xd9", at) < 0
