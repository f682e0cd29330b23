"""Links between the pages lead to files and headings that exist, and the pages that hosts look for are there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import edgemtl

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "edgemtl").rglob("*.md")),
    *sorted((ROOT / "hls").rglob("*.md")),
]


def headings(page: str) -> set[str]:
    """Their anchors, as hosts of repositories make them."""
    found = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", page, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            assert heading in headings(file.read_text(encoding="utf-8")), f"{page.name}: {target}"


def test_pages_that_hosts_look_for() -> None:
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"} == {p.name for p in ROOT.glob("*.md")}
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name})" in readme for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "edgemtl.__version__"
    assert all((ROOT / name).is_file() for name in project["project"]["license-files"])
    assert f"## {edgemtl.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
