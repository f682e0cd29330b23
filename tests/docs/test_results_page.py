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


def test_photographs_and_losses_are_those_measured() -> None:
    page = (DOCS / "results.md").read_text().replace("**", "")
    starts = json.loads((DOCS / "results" / "starts.json").read_text())["starts"]
    assert {"imagenet", "rooms-600", "homes-600"} <= starts.keys()
    for found in starts.values():
        assert found["protocol"]["count"] == "446 of the 654 official test images"
        assert f"| {found['semseg']['miou']:.3f} | {found['depth']['rmse']:.3f} |" in page
    studies = [json.loads((DOCS / "results" / f"{name}.json").read_text()) for name in ("losses", "hybrid_first")]
    for model in (m for study in studies for m in study["models"]):
        miou, rmse = (model["metrics"][task]["value"] for task in ("semseg", "depth"))
        assert f"| {miou:.3f} | {rmse:.3f} |" in page
    rooms = json.loads((DOCS / "results" / "rooms_hybrid.json").read_text())
    assert f"| {rooms['semseg']['miou']:.3f} | {rooms['depth']['rmse']:.3f} |" in page


def test_the_card_of_the_shipped_model_is_as_measured() -> None:
    card = (DOCS / "indoor.md").read_text().replace("**", "")
    for name, found in json.loads((DOCS / "results" / "indoor.json").read_text()).items():
        if name in ("origin", "what"):
            continue
        scores = [found[task][metric] for task, metric in (("semseg", "miou"), ("depth", "rmse"), ("depth", "delta1"))]
        assert " | ".join(f"{score:.3f}" for score in scores) in card, name
    for name, iou in json.loads((DOCS / "results" / "indoor.json").read_text())["float32"]["semseg"]["iou"].items():
        assert f"{name} {100 * iou:.0f}" in " ".join(card.split())
