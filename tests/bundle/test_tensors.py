"""The small safetensors reader finds what the stock library finds, and refuses what leaves the page or the file."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from edgemtl.bundle.manifest import PAGE
from edgemtl.bundle.tensors import MAX_HEADER, encode, places
from edgemtl.errors import BundleError


def read_from(data: bytes) -> Any:
    def read(offset: int, size: int) -> bytes:
        assert offset >= 0
        assert offset + size <= len(data)
        return data[offset : offset + size]

    return read


@given(
    st.dictionaries(st.text("abcxyz._019", min_size=1, max_size=8), st.integers(0, 70), max_size=6), st.integers(0, 3)
)
def test_round_trip_and_stock_reader(counts: dict[str, int], shift: int) -> None:
    arrays = {n: np.arange(16 * c, dtype=np.float32).reshape(4, -1) for n, c in counts.items()}
    data = b"".join(encode(arrays))
    base = shift * PAGE
    found = places(read_from(bytes(base) + data), base, len(data))
    assert found.keys() == arrays.keys()
    for name, place in found.items():
        assert place.shape == arrays[name].shape
        raw = (bytes(base) + data)[place.offset : place.offset + place.size]
        assert raw == arrays[name].tobytes()
        assert (place.offset - base) % 64 == 0
    stock = safetensors.numpy.load(data)
    assert all(np.array_equal(stock[n], a) for n, a in arrays.items())


def member(header: Any, data: bytes = bytes(128), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text = text.ljust(-8 % PAGE if len(text) <= -8 % PAGE else len(text))
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int = 0, end: int = 128, shape: Any = (32,), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "impossible length"),
        (b"\0" * 7, "impossible length"),
        (member({"a": entry()}, length=(1 << 64) - 1), "impossible length"),
        (member({"a": entry()}, length=MAX_HEADER + PAGE - 8), "impossible length"),
        (member({"a": entry()}, length=4096), "impossible length"),
        (member(b"{"), "not JSON"),
        (member(b"[" * 4000), "not JSON"),
        (member(b'{"a": NaN}'), "not JSON"),
        (member(b"\xff\xfe"), "not JSON"),
        (member([1]), "no table"),
        (member({}), "do not fill"),
        (member({"a": 1}), "described wrongly"),
        (member({"a": entry(more=1)}), "described wrongly"),
        (member({"a": entry(dtype="F64")}), "type 'F64'"),
        (member({"a": entry(dtype=["F32"])}), "type"),
        (member({"a": entry(shape="32")}), "impossible shape"),
        (member({"a": entry(shape=[32.0])}), "impossible shape"),
        (member({"a": entry(shape=[True] * 2)}), "impossible shape"),
        (member({"a": entry(shape=[-32])}), "impossible shape"),
        (member({"a": entry(shape=[1 << 63, 0])}), "impossible shape"),
        (member({"a": entry(shape=[1] * 9)}), "impossible shape"),
        (member({"a": entry(shape=[31])}), "wrong size"),
        (member({"a": entry(0, 64, [16])}), "do not fill"),
        (member({"a": entry(64, 128, [16])}), "gap"),
        (member({"a": entry(0, 256, [64])}), "do not fill"),
        (member({"a": entry(0, 64, [16]), "b": entry(0, 64, [16])}), "overlaps"),
        (member({"a": entry(), "b": entry(128, 0, [0])}), "wrong size"),
        (member({"x" * 101: entry()}), "unsafe name"),
        (member({"\x1b[2J": entry()}), "unsafe name"),
        (member({"é": entry()}), "unsafe name"),
        (member(b'{"a":1,"a":{"dtype":"F32","shape":[16],"data_offsets":[64,128]}}'), "gap"),
    ],
)
def test_refused(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        places(read_from(data), 0, len(data))


def test_other_types_are_not_written() -> None:
    for array in (np.zeros(16), np.zeros((4, 8), np.float32)[:, ::2], np.zeros(16, ">f4")):
        with pytest.raises(BundleError, match="contiguous float32"):
            encode({"a": array})
