"""Imports of edgemtl and its compiler, be they in a function or for types alone: no circles, and one direction."""

from __future__ import annotations

import ast
import sys
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


def sources() -> dict[str, tuple[bool, str]]:
    """{module: whether it is a package, source} of both packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package.parent).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            found[".".join(parts[:-1] if is_package else parts)] = (is_package, path.read_text(encoding="utf-8"))
    assert len(found) > 250
    return found


def part(module: str) -> str:
    """The name in `MAY` of the part of the house that a module belongs to."""
    first, *rest = module.split(".")
    return "compiler" if first == "edgemtl_compiler" else rest[0] if rest else "version"


# What each part may import, beside itself. "version" is edgemtl/__init__.py, which loads the engine when asked for it.
MAY = {
    "errors": "",
    "files": "",
    "tasks": "errors",
    "config": "errors tasks",
    "graph": "config errors tasks",
    "bundle": "config errors files graph tasks version",
    "safe_xml": "errors",
    "media": "bundle config errors files runtime tasks",
    "fpga": "bundle compiler config errors runtime safe_xml version",
    "runtime": "bundle config errors fpga graph media model tasks",
    "data": "config errors files media tasks",
    "model": "bundle config data errors files graph tasks",
    "train": "config data errors graph media model tasks version",
    "compiler": "bundle config data errors files fpga graph media model runtime safe_xml tasks train version",
    "web": "config errors tasks",
    "demo": "errors fpga media tasks web",
    "version": "errors runtime",
    "__main__": "cli",
}
EVERYTHING = set(MAY) - {"__main__"}
TOP = {"cli": EVERYTHING, "bench": EVERYTHING}  # these know nothing of each other
LAZY = {  # arrows that only these modules may be
    ("runtime", "model"): "edgemtl.runtime.backends.torch",
    ("fpga", "compiler"): "edgemtl.fpga.simulation",
}
TORCH = {"model", "data", "train", "cli", "bench", "compiler"}  # and what LAZY names


def test_directions() -> None:
    found = sources()
    for name, source in found.items():
        mine = part(name)
        allowed = TOP.get(mine) or set(MAY[mine].split())
        for other in imported(name, *source, set(found)):
            if part(other) != mine:
                assert part(other) in allowed, f"{name} imports {other}: {mine} may import {sorted(allowed)}"
                assert LAZY.get((mine, part(other)), name) == name, f"{name} imports {other}"


def foreign(source: str) -> set[str]:
    """The first words of all that is imported from other projects."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    return {n.split(".")[0] for n in names} - sys.stdlib_module_names - {"edgemtl", "edgemtl_compiler"}


def test_where_numpy_is_enough_and_who_needs_torch() -> None:
    for name, (_, source) in sources().items():
        if part(name) == "graph":
            assert foreign(source) <= {"numpy"}, name
        if part(name) not in TORCH and name not in LAZY.values():
            assert "torch" not in foreign(source), name


def test_no_circle() -> None:
    assert (found := circle(sources())) is None, f"imports in a circle: {' -> '.join(found or [])}"


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
    files = {
        "p": (True, ""),
        "p.a": (False, "import p.b, json"),
        "p.b": (False, "from p.c import x"),
        "p.c": (False, ""),
    }
    assert circle(files) is None
    found = circle(files | {"p.c": (False, last)})
    assert found is not None
    assert set(pairwise(found)) == {("p.a", "p.b"), ("p.b", "p.c"), ("p.c", "p.a")}


def test_a_package_and_its_module() -> None:
    files = {"p": (True, "from .a import thing"), "p.a": (False, "from p import other")}
    assert circle(files) in (["p", "p.a", "p"], ["p.a", "p", "p.a"])
