"""How many files know an op: its own, the network, one per target (docs/architecture.md). The sources are searched."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from edgemtl.graph import ops

ROOT = Path(__file__).parents[1]
SOURCES = sorted(p for folder in ("edgemtl", "compiler", "demos") for p in (ROOT / folder).rglob("*.py"))
PLAIN = {"add", "attention", "experts", "linear", "positions", "rays", "reshape", "route", "tiles"}  # words of English


def compared(source: str) -> set[str]:
    """Words that the source compares with a node's `op`, matches it to, or looks up for it in a table."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            sides = [node.subject, *(case.pattern for case in node.cases)]
        else:
            continue
        if any(isinstance(side, ast.Attribute) and side.attr == "op" for side in sides):
            out |= {c.value for side in sides for c in ast.walk(side) if isinstance(c, ast.Constant) and c.value}
    return {word for word in out if isinstance(word, str)}


def mentioned(source: str) -> set[str]:
    """Its strings."""
    return {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


@pytest.mark.parametrize("op", ops.names())
def test_files_that_know_an_op(op: str) -> None:
    """Its own in the graph and in each target's folder, and the network that calls it."""
    words = compared if op in PLAIN else mentioned
    knowing = {p.relative_to(ROOT).as_posix() for p in SOURCES if op in words(p.read_text(encoding="utf-8"))}
    own = {f"edgemtl/graph/ops/{op}.py", *(f"compiler/edgemtl_compiler/{t}/ops/{op}.py" for t in TARGETS)}
    others = knowing - own - {"edgemtl/graph/network.py"} - KNOWN.get(op, set())
    assert not others, f"op {op} is known to {', '.join(sorted(others))}"
    assert (ROOT / "edgemtl/graph/ops" / f"{op}.py").is_file()


TARGETS = ("cpu", "cuda", "onnx", "fpga")
KNOWN: dict[str, set[str]] = {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("if node.op == 'route': pass", {"route"}),
        ("x = [n for n in g if n.op in ('route', 'linear')]", {"route", "linear"}),
        ("match node.op:\n    case 'tiles': pass", {"tiles"}),
        ("if node.kind == 'linear': pass", set()),
        ("linear = 'linear'", set()),
    ],
)
def test_the_search_finds(source: str, found: set[str]) -> None:
    assert compared(source) == found
