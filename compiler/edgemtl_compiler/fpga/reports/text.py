"""What all report files have in common: a size limit, numbers as the tools print them, tables of bars."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgemtl.errors import CompileError
from edgemtl_compiler.fpga.estimate.schema import Origin, Resource

MAX_BYTES = 64 << 20
MOST = 10**15  # no cycle count or resource of a real report is larger
UNKNOWN = {"", "-", "?", "undef", "na", "n/a", "unspecified", "unspecified*", "---"}
FINITE = re.compile(r"-?\d{1,18}(?:\.\d{1,9})?")
# Names in the schema, from the tools' names; HLS counts half blocks of BRAM.
RESOURCES = {
    "BRAM_18K": ("BRAM36", 0.5),
    "DSP": ("DSP48E2", 1.0),
    "BRAM36": ("BRAM36", 1.0),
    "FF": ("FF", 1.0),
    "LUT": ("LUT", 1.0),
    "URAM": ("URAM288", 1.0),
}


def read_text(path: Path) -> str:
    """The file's text; raises CompileError when it is missing, too large or binary."""
    try:
        if not path.is_file():
            raise CompileError(f"{path}: there is no such report file")
        if path.stat().st_size > MAX_BYTES:
            raise CompileError(f"{path}: has more than the {MAX_BYTES >> 20} MiB that a report may have")
        data = path.read_bytes()
    except OSError as error:
        raise CompileError(f"{path}: cannot be read: {error.strerror}") from None
    if b"\0" in data:
        raise CompileError(f"{path}: is no text, so no report")
    return data.decode("utf-8", "replace")


def same_part(a: str, b: str) -> bool:
    """Whether two reports name one part; some leave out hyphens, the leading "xc" or the speed grade."""
    short, long = sorted((re.sub(r"[^a-z0-9]", "", part.lower()).removeprefix("xc") for part in (a, b)), key=len)
    return long.startswith(short)


def number(text: str | None, what: str, name: str) -> float | None:
    """A figure, or None where the tool does not know it. Raises CompileError for anything else."""
    value = (text or "").strip()
    if value.lower() in UNKNOWN:
        return None
    bare = value.removeprefix("~").removeprefix("<").replace(",", "")
    if not FINITE.fullmatch(bare) or abs(float(bare)) > MOST:
        raise CompileError(f"{name}: {what} is {value[:40]!r}, which is no number that a report can hold")
    return float(bare)


def count(text: str | None, what: str, name: str) -> int | None:
    """A whole number of at least 0, or None where the tool does not know it."""
    value = number(text, what, name)
    if value is not None and (value < 0 or value != int(value)):
        raise CompileError(f"{name}: {what} is {str(text)[:40]!r}, which must be a whole number")
    return None if value is None else int(value)


def resource(tool_name: str, used: str | None, available: str | None, name: str, origin: Origin) -> Resource | None:
    """A resource in the schema's terms, or None where the tool does not say how much is used."""
    schema_name, factor = RESOURCES[tool_name]
    amount, most = number(used, tool_name, name), number(available, f"available {tool_name}", name)
    if amount is None:
        return None
    if amount < 0 or (most is not None and most < 0):
        raise CompileError(f"{name}: {tool_name} is {str(used)[:40]!r}, which cannot be below 0")
    return Resource(
        name=schema_name,
        low=amount * factor,
        high=amount * factor,
        available=None if most is None else most * factor,
        origin=origin,
        source=f"{tool_name} / 2" if factor != 1 else tool_name,
    )


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row in order; the line between two tables gives an empty list."""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("|") and stripped.endswith("|"):
            yield [cell.strip() for cell in stripped[1:-1].split("|")]
        elif not stripped.startswith("+-"):
            yield []


def field(text: str, pattern: str, what: str, name: str) -> str:
    """The first group of `pattern`; raises CompileError where the report lacks it."""
    found = re.search(pattern, text, re.M)
    if not found:
        raise CompileError(f"{name}: is cut short or of another tool: it does not say its {what}")
    return found[1].strip()
