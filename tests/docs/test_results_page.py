"""docs/results.md shows what docs/results/study*.json hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("study", ["study", "study_small"])
def test_the_table_is_the_studys(study: str) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'edgemtl[train]'")
    from edgemtl.train.study_report import table

    report = json.loads((DOCS / "results" / f"{study}.json").read_text())
    page = (DOCS / "results.md").read_text()
    assert (report["format"], report["origin"], report["data"]) == ("edgemtl-study", "measured", "synthetic rooms")
    assert table(report) in page
    names = {m["name"] for m in report["models"]}
    assert set(report["baseline"]) <= names
    for model in report["models"]:
        for task, score in model["metrics"].items():
            assert task in model["tasks"]
            assert score["value"] != score["trivial"]
