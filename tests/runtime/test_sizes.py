"""Amounts of memory, read and shown."""

from __future__ import annotations

from typing import Any

import pytest

from edgemtl.errors import BudgetError
from edgemtl.runtime.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [(5, 5), ("48MB", 48_000_000), ("1.5 GiB", 3 << 29), (" 7 ", 7), ("8b", 8), ("64mib", 64 << 20), ("2kB", 2000)],
)
def test_read(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", 0, -5, "1 XB", "1e9", True, 1.5, None, "0MB", "9" * 40, "nan"])
def test_refused(text: Any) -> None:
    with pytest.raises(BudgetError, match="write it like 48MB"):
        parse_size(text)


def test_shown() -> None:
    assert [show_size(n) for n in (0, 999, 1000, 24_300_000, 10**10)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "24.3 MB",
        "10.0 GB",
    ]
