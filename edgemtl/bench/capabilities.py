"""The capability matrix: engine by feature, a verdict with its reason and the test that proves it, from one YAML file.

python -m edgemtl.bench.capabilities > docs/capabilities.md
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from edgemtl.errors import ConfigError

FILE = Path(__file__).with_name("capabilities.yaml")
VERDICTS = ("sparse-kept", "dense-fallback", "yes", "cannot", "refused")
MEANING = {
    "sparse-kept": "an expert computes the tokens that chose it, and nothing where none did",
    "dense-fallback": "every expert computes every token",
    "yes, cannot": "it does, it does not",
    "refused": "asked for it, it answers with one sentence",
}


class Cell(NamedTuple):
    """One answer; `test` is FILE::FUNCTION or FILE::CLASS::METHOD, without parameters."""

    verdict: str
    reason: str
    test: str


class Matrix(NamedTuple):
    """Features with what they mean; {engine: (title, {feature: cell})}. A feature that is left out is not claimed."""

    features: Mapping[str, str]
    engines: Mapping[str, tuple[str, Mapping[str, Cell]]]


def read(path: Path = FILE) -> Matrix:
    """The matrix of a YAML file. Raises ConfigError for a feature or a verdict that is none."""
    yaml: Any = importlib.import_module("yaml")
    found = yaml.safe_load(path.read_text())
    engines = {}
    for name, row in found["engines"].items():
        cells = {}
        for feature, cell in row.items():
            if feature == "title":
                continue
            if feature not in found["features"]:
                known = ", ".join(found["features"])
                raise ConfigError(f"{path.name}: {name} has the feature {feature!r}; there are {known}")
            words = ["yes" if word is True else str(word) for word in cell]  # YAML reads yes as true
            if len(words) != 3 or words[0] not in VERDICTS:
                raise ConfigError(
                    f"{path.name}: {name}, {feature}: a cell is [verdict, reason, test], with a verdict of "
                    f"{', '.join(VERDICTS)}; not {cell}"
                )
            cells[feature] = Cell(*words)
        engines[name] = (str(row["title"]), cells)
    return Matrix(found["features"], engines)


def page(matrix: Matrix) -> str:
    """docs/capabilities.md."""
    lines = [
        "# What every engine can do",
        "Made from `edgemtl/bench/capabilities.yaml`; do not edit it here. Each verdict has a test behind it, and",
        "another test holds this page to the file. A cell without a verdict claims nothing.",
        "",
        *(f"- **{verdict}**: {words}" for verdict, words in MEANING.items()),
        "",
        *(f"- *{feature}*: {words}" for feature, words in matrix.features.items()),
        "",
        f"| engine | {' | '.join(matrix.features)} |",
        "|---" * (len(matrix.features) + 1) + "|",
    ]
    for title, cells in matrix.engines.values():
        verdicts = [cells[f].verdict if f in cells else "" for f in matrix.features]
        lines.append(f"| {title} | {' | '.join(verdicts)} |")
    lines += ["", "## Why, and the test behind each"]
    for title, cells in matrix.engines.values():
        lines += ["", f"**{title}**", ""]
        lines += [f"- {feature}: {c.verdict}; {c.reason} (`{c.test}`)" for feature, c in cells.items()]
    return "\n".join(lines) + "\n"


def exists(test: str, root: Path) -> bool:
    """Whether FILE::FUNCTION or FILE::CLASS::METHOD is in the tree under `root`."""
    file, *names = test.split("::")
    path = root / file
    return path.is_file() and tuple(names) in _tests(path)


@cache
def _tests(path: Path) -> frozenset[tuple[str, ...]]:
    """Names of test functions, and (class, method) pairs, also as the method alone."""
    out: set[tuple[str, ...]] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            out.add((node.name,))
        if isinstance(node, ast.ClassDef):
            methods = [n.name for n in node.body if isinstance(n, ast.FunctionDef) and n.name.startswith("test_")]
            out |= {(node.name, m) for m in methods}
    return frozenset(out)


if __name__ == "__main__":
    print(page(read()), end="")
