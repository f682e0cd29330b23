"""No imports of edgemtl or of its compiler go in a circle, be they in a function or for types alone."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "edgemtl", ROOT / "compiler" / "edgemtl_compiler")


def imported(name: str, is_package: bool, source: str, known: set[str]) -> set[str]:
    """The modules of `known` that `source`, of the module `name`, imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: (1 if is_package else 0) - node.level or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.add(inner if inner in known else base)
    return (found & known) - {name}


def circle(sources: dict[str, tuple[bool, str]]) -> list[str] | None:
    """The names of a circle, the first one again as the last, in {module: whether it is a package, source}."""
    graph = {name: imported(name, *source, set(sources)) for name, source in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1][::-1]  # whose each entry imports the next
        return found
    return None


def test_no_circle() -> None:
    sources = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            sources[".".join(parts[:-1] if is_package else parts)] = (is_package, path.read_text(encoding="utf-8"))
    assert len(sources) > 250
    assert (found := circle(sources)) is None, f"imports in a circle: {' -> '.join(found or [])}"


@pytest.mark.parametrize(
    "last",
    [
        "import p.a",
        "from p import a",
        "from p.a import thing",
        "from . import a",
        "from .a import thing",
        "def f():\n    from p import a",
        "if TYPE_CHECKING:\n    import p.a",
    ],
)
def test_a_circle_is_found(last: str) -> None:
    sources = {
        "p": (True, ""),
        "p.a": (False, "import p.b, json"),
        "p.b": (False, "from p.c import x"),
        "p.c": (False, ""),
    }
    assert circle(sources) is None
    found = circle(sources | {"p.c": (False, last)})
    assert found is not None
    assert set(pairwise(found)) == {("p.a", "p.b"), ("p.b", "p.c"), ("p.c", "p.a")}


def test_a_package_and_its_module() -> None:
    sources = {"p": (True, "from .a import thing"), "p.a": (False, "from p import other")}
    assert circle(sources) in (["p", "p.a", "p"], ["p.a", "p", "p.a"])
