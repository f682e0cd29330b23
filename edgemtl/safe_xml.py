"""XML from a stranger: read with expat, no document type, so that entities can neither expand nor name files."""

from __future__ import annotations

import re
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from edgemtl.errors import EdgeMTLError

MAX_DEPTH, MAX_ELEMENTS = 64, 2_000_000


def tree(text: str, name: str, what: str, error: type[EdgeMTLError]) -> Element:
    """The outermost element of the file `name`, which should be a `what`. Raises `error` for anything else."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise error(f"{name}: is nested or large beyond any {what}")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> NoReturn:
        raise error(f"{name}: has a document type or entities, which a {what} never has")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(re.sub(r"^\s*<\?xml[^>]*\?>", "", text).encode(), True)
    except expat.ExpatError as found:
        raise error(f"{name}: is cut short or no XML: {found}") from None
    return builder.close()
