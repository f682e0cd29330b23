"""What a run leaves behind: a document, a block of docs/benchmark.md that is held to it, tables."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import documents
import pytest
from rich.console import Console

from edgemtl.bench import document, report
from edgemtl.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "results" / "benchmark.json"


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = documents.made(tmp_path)
    document.write(tmp_path / "run.json", made)
    read = document.read(tmp_path / "run.json")
    assert read == json.loads(json.dumps(made))
    assert read["command"] == "benchmark.py --data rooms"
    rows = {(r["subject"], r["engine"]): r for r in read["rows"]}
    assert rows["rooms:depth", "edgemtl"]["ratio"] == pytest.approx(10 / 12)
    assert rows["rooms:depth", "onnxruntime-dense"]["reason"].startswith("killed by signal 11")
    assert rows["rooms:depth", "openvino-int8-dense"]["gmac"] > rows["rooms:depth", "edgemtl-int8"]["gmac"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is no JSON"), ("[" * 9999, "is no JSON"), ("[]", "no benchmark of version 2"), ("{}", "make it again")],
)
def test_a_file_that_is_no_document(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=said):
        document.read(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"cannot read .*none\.json"):
        document.read(tmp_path / "none.json")


def test_the_block_says_what_the_document_says(tmp_path: Path) -> None:
    text = report.block(documents.made(tmp_path))
    assert "| rooms:depth | fp32, 2 | 11.0, 13.0 ms | 88 | openvino (sparse), 13.2 ms | 0.83 |" in text
    assert "| rooms:depth | int8, 2 | 4.4, 5.2 ms | 221 | openvino-int8-dense (dense), 6.6 ms | 0.67 |" in text
    assert "- onnxruntime-dense: killed by signal 11: it printed nothing" in text
    assert "| single:depth | fp32, 2 | – | – | openvino (sparse), 7.7 ms | – |" in text
    assert "| edgemtl | 8.0 ms, 3.2 MB | 6.0 ms, 3.2 MB | 30 MB, 26 MB (smaps) |" in text
    assert "| openvino, all models open | no result after 120 s |  |  |" in text


def test_the_block_goes_between_the_markers_and_again(tmp_path: Path) -> None:
    found, page = documents.made(tmp_path), tmp_path / "page.md"
    document.write(tmp_path / "run.json", found)
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.main(tmp_path / "run.json", page)
    once = page.read_text()
    assert once == f"before\n{report.block(found)}\nafter\n"
    report.main(tmp_path / "run.json", page)
    assert page.read_text() == once
    for text in ("no markers", f"{report.END}{report.BEGIN}", f"{report.BEGIN}{report.BEGIN}{report.END}"):
        with pytest.raises(ConfigError, match="once each"):
            report.put(text, found)


def test_the_page_is_that_of_the_published_run() -> None:
    """Type: python -m edgemtl.bench.report docs/results/benchmark.json docs/benchmark.md"""
    text = (ROOT / "docs" / "benchmark.md").read_text()
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} has not been made yet: make bench")
    assert report.put(text, document.read(PUBLISHED)) == text
    assert not re.search(r"(?<![\w.~])/(?:tmp|home|root|work|Users)\b", PUBLISHED.read_text())


def test_the_readme_has_the_published_figures() -> None:
    """Latency and its ratio to the best peer, of the shipped model's tasks with two threads: lowest and highest."""
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} has not been made yet: make bench")
    readme, found = (ROOT / "README.md").read_text(encoding="utf-8"), document.read(PUBLISHED)
    said = {"p50": ("latency of a task", ".1f", " ms"), "ratio": ("latency ÷ fastest", ".2f", "")}
    for figure, (words, form, unit) in said.items():
        line = next(line for line in readme.splitlines() if words in line)
        for precision, name in (("fp32", "float32"), ("int8", "INT8")):
            values = [
                row[figure]
                for row in found["rows"]
                if row["engine"].startswith("edgemtl")
                and row["subject"].startswith("rooms:")
                and (row["threads"], row["precision"]) == (2, precision)
            ]
            assert f"{min(values):{form}}–{max(values):{form}}{unit} in {name}" in line


def test_every_block_is_printed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=250)
    report.print_all(documents.made(tmp_path), console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for words in (
        "GMAC done",
        "import ms",
        "a switch of the task",
        "openvino, one model at a time",
        "no result after 120 s",
        "how each engine was run",
        "openvino-int8-dense: nncf.quantize, transformer model type",
    ):
        assert words in said
