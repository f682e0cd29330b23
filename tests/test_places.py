"""How many files know an op: its own, the network, one per target (docs/architecture.md). The sources are searched."""

from __future__ import annotations

import ast
from collections import Counter
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


TARGETS = ("cpu", "cuda", "onnx", "fpga")
SPARSE = {  # a sparse layer is what the project is for: its tokens, queues and ranges are known beyond its own files
    "compiler/edgemtl_compiler/fpga/estimate/workload.py",
    "compiler/edgemtl_compiler/fpga/network.py",
    "compiler/edgemtl_compiler/fpga/program.py",
    "compiler/edgemtl_compiler/onnx/export.py",
    "compiler/edgemtl_compiler/quantise/calibrate.py",
    "compiler/edgemtl_compiler/quantise/cpu.py",
    "edgemtl/bench/forms.py",
    "edgemtl/graph/count.py",
}
INT8 = {  # which layers become INT8 on a CPU, what is kept of their inputs, and their arithmetic in NumPy
    "compiler/edgemtl_compiler/quantise/calibrate.py",
    "compiler/edgemtl_compiler/quantise/cpu.py",
    "compiler/edgemtl_compiler/quantise/fake_int8.py",
    "compiler/edgemtl_compiler/quantise/ranges.py",
}
KNOWN = dict.fromkeys(("route", "experts"), SPARSE)
KNOWN |= dict.fromkeys(("attention", "convolution", "inverted_residual", "linear", "patch_embed", "reshape"), INT8)
KNOWN |= {"separable_step": INT8}


@pytest.mark.parametrize("op", ops.names())
def test_files_that_know_an_op(op: str) -> None:
    """The graph's file, the network that calls it, and in a target's folder its own or that of an op fused with it."""
    words = compared if op in PLAIN else mentioned
    knowing = {p.relative_to(ROOT).as_posix() for p in SOURCES if op in words(p.read_text(encoding="utf-8"))}
    fused = {k for k in knowing for t in TARGETS if k.startswith(f"compiler/edgemtl_compiler/{t}/ops/")}
    others = knowing - fused - {f"edgemtl/graph/ops/{op}.py", "edgemtl/graph/network.py"} - KNOWN.get(op, set())
    assert not others, f"op {op} is known to {', '.join(sorted(others))}"


def test_every_exception_is_needed() -> None:
    for files in (SPARSE, INT8):
        for file in files:
            words = mentioned((ROOT / file).read_text(encoding="utf-8"))
            assert words & KNOWN.keys(), f"{file} is no exception any more"


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


def test_test_modules_have_names_of_their_own() -> None:
    """pytest imports them by their file's name alone: of two of one name the second stops the whole run."""
    names = Counter(p.name for p in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
