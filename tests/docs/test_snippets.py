"""Every Python snippet of the README and docs runs, in a folder with small bundles of the names that they use."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(code: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rooms", "indoor"):
        shutil.copy(bundle, tmp_path / f"{name}.edgemtl")
    cv2.imwrite(str(tmp_path / "frame.png"), np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {"__name__": "snippet"})


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 3
