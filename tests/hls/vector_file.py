"""The form of a file of vectors, which hls/vitis/testbench.cpp reads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAGIC, VERSION, FIELDS = 0x56544D45, 1, 16


def words(data: bytes) -> bytes:
    """Padded to whole 128-bit words."""
    return data + bytes(-len(data) % 16)


def file(
    banks: NDArray[np.uint8], before: bytes, pixels: bytes, after: bytes, *, status: int = 0, task: int = 0
) -> bytes:
    """One file of vectors; banks [4, words, 16], the rest padded to words."""
    parts = [words(before), words(pixels), words(after)]
    counts = [banks.shape[1], *(len(p) // 16 for p in parts)]
    header = np.array([MAGIC, VERSION, status, task, *counts] + [0] * (FIELDS - 8), "<u4")
    return b"".join([header.tobytes(), banks.tobytes(), *parts])
