"""Tensors in a bundle: safetensors members whose data begins on a page, written and read strictly.

A stock safetensors library reads them: the header is padded with the spaces that the format allows. The reader here
takes float32, float16, bfloat16 and bytes (INT8 layers with their scales) only, has limits, and hands out places in the
file rather than arrays, so that nothing is allocated before everything is checked. NumPy has no bfloat16: its arrays
here are the bits, as uint16.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pydantic_core

from edgemtl.bundle.container import Read
from edgemtl.bundle.manifest import PAGE
from edgemtl.errors import BundleError

MAX_HEADER = 1 << 20
MAX_NAME = 100
TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: byte offset in the bundle file, shape, size in bytes; and its type."""

    offset: int
    shape: tuple[int, ...]
    size: int
    dtype: np.dtype[Any] = TYPES["F32"]


def encode(tensors: Mapping[str, np.ndarray[Any, Any]]) -> list[bytes | memoryview]:
    """The bytes of a safetensors file as a list of pieces: the header, then each tensor's data, nothing copied.

    The header ends on a page boundary; tensors follow each other without gaps, in the order given. Raises
    BundleError for a tensor that is not C-contiguous and of one of `TYPES`.
    """
    names = {dtype: name for name, dtype in TYPES.items()}
    header: dict[str, Any] = {}
    pieces: list[bytes | memoryview] = []
    at = 0
    for name, array in tensors.items():
        if array.dtype not in names or not array.flags.c_contiguous:
            raise BundleError(
                f"tensor {name!r} must be contiguous float32, float16, uint16 (bfloat16's bits) or uint8 to go into a"
                f" bundle, not {array.dtype}"
            )
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
        if array.nbytes:
            pieces.append(array.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    length = len(text) + -(8 + len(text)) % PAGE
    if length > MAX_HEADER:
        raise BundleError(f"{len(header)} tensors in one member are more than a bundle's header can list")
    return [struct.pack("<Q", length) + text.ljust(length), *pieces]


def places(read: Read, offset: int, size: int) -> dict[str, Place]:
    """The tensors of the member of `size` bytes at `offset`, in the order of their data.

    Raises BundleError unless the tensors fill the member's data exactly, without gaps or overlaps.
    """
    length = struct.unpack("<Q", read(offset, 8))[0] if size >= 8 else MAX_HEADER + 1
    if length > MAX_HEADER or 8 + length > size or (8 + length) % PAGE:
        raise BundleError("its tensor header has an impossible length")
    try:
        header = pydantic_core.from_json(read(offset + 8, length), allow_inf_nan=False)
    except ValueError:
        raise BundleError("its tensor header is not JSON") from None
    if not isinstance(header, dict):
        raise BundleError("its tensor header is no table")
    header.pop("__metadata__", None)
    found = sorted((_span(name, entry) for name, entry in header.items()), key=lambda f: f[1])
    data, at, out = offset + 8 + length, 0, {}
    for name, begin, end, shape, dtype in found:
        if begin != at or end - begin != dtype.itemsize * prod(shape):
            raise BundleError(f"tensor {name!r} overlaps another one, leaves a gap, or has the wrong size")
        out[name] = Place(data + begin, shape, end - begin, dtype)
        at = end
    if at != size - 8 - length:
        raise BundleError("its tensors do not fill it")
    return out


def _span(name: str, entry: Any) -> tuple[str, int, int, tuple[int, ...], np.dtype[Any]]:
    """(name, begin, end, shape, dtype) of one header entry."""
    if len(name) > MAX_NAME or not name.isascii() or not name.isprintable():
        raise BundleError(f"has a tensor with the unsafe name {name[:MAX_NAME]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"tensor {name!r} is described wrongly")
    kind = entry["dtype"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise BundleError(f"tensor {name!r} is of type {str(kind)[:16]!r}; a bundle holds {', '.join(TYPES)} only")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape, 8) or not _counts(offsets, 2) or len(offsets) != 2:
        raise BundleError(f"tensor {name!r} has an impossible shape or place")
    return name, offsets[0], offsets[1], tuple(shape), TYPES[kind]


def _counts(value: Any, most: int) -> bool:
    """Is it a list of at most `most` whole numbers from 0 to 2^40?"""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) <= most
        and all(type(v) is int and 0 <= v <= 1 << 40 for v in value)
    )
