"""Text that commands print: made safe for a terminal, and tables.

Rich is imported where it prints: on the way to a first map it would cost as much as opening the bundle.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def clean(text: object) -> str:
    """What a file said, without control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: int = 0) -> Table:
    """A plain table; the last `numbers` columns are flush right."""
    from rich.table import Table
    from rich.text import Text

    out = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        out.add_column(name, justify="right" if i >= len(columns) - numbers else "left", overflow="fold")
    for row in rows:
        out.add_row(*(Text(clean(cell)) for cell in row))
    return out


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a small table without Rich: the first column is flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


class Status:
    """A line on standard error that changes in place and is gone at the end; nothing where that is no terminal."""

    def __enter__(self) -> Self:
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update("")

    def update(self, text: str) -> None:
        if self._shown:
            width = shutil.get_terminal_size().columns - 1  # a full line would wrap
            sys.stderr.write(f"\r{clean(text)[:width]}\x1b[K")
            sys.stderr.flush()


def as_json(value: dict[str, Any]) -> None:
    """Print one JSON object; numbers that JSON lacks (infinite, not a number) become null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
