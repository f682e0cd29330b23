"""Text that commands print: made safe for a terminal, and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


def clean(text: object) -> str:
    """What a file said, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def console(*, stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> Table:
    """A plain table; the last `numbers` columns are flush right."""
    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        out.add_column(name, justify="right" if i >= len(columns) - numbers else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(clean(cell)) for cell in row))
    return out


def as_json(value: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON lacks (infinite, not a number) become null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
