"""What a run leaves behind: a document, a README block that is held to it, tables, pictures."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import documents
import pytest
from rich.console import Console

from edgemtl.bench import document, readme, report
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
    assert rows["rooms:depth", "openvino"]["score"] == 0.5
    assert rows["rooms:edge", "openvino-nncf"]["score"] == pytest.approx(0.82)
    assert rows["rooms:depth", "torch"]["reason"].startswith("killed by signal 11")
    assert rows["rooms:depth", "openvino-nncf"]["gmac"] > rows["rooms:depth", "edgemtl-int8"]["gmac"]
    assert {r["energy"] for r in read["rows"]} == {"not measured"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is no JSON"), ("[" * 9999, "is no JSON"), ("[]", "no benchmark of version 1"), ("{}", "make it again")],
)
def test_a_file_that_is_no_document(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=said):
        document.read(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"cannot read .*none\.json"):
        document.read(tmp_path / "none.json")


def test_the_block_says_what_the_document_says(tmp_path: Path) -> None:
    text = readme.block(documents.made(tmp_path))
    assert "| rooms:depth | fp32, 2 | 11.0, 13.0 ms | 88 | openvino (sparse, opset 18) | 0.83 |" in text
    assert "| rooms:depth | int8, 2 | 4.4, 5.2 ms | 221 | openvino-nncf (dense, opset 18) | 0.67 |" in text
    assert "- torch: killed by signal 11: it printed nothing" in text
    assert "| rooms:depth, rmse | 0.5 | 0.51 | 0.52 |" in text
    assert "| depth: a dense ViT per task | fp32, 2 | 7.7 ms, openvino | not measured |" in text
    assert "| depth: one sparse model, the task's path alone | fp32, 2 | 11.0 ms, edgemtl | not measured |" in text
    assert "| edgemtl | 8.0 ms, 3.2 MB | 6.0 ms, 3.2 MB | 30 MB, 26 MB (smaps) |" in text
    assert "| openvino, all models open | no result after 120 s | | |" in text
    assert "| fpga-sim, depth | 2.41 | model | equal to the integer reference bit for bit |" in text
    assert "| cuda, – | – | not measured | this machine has no NVIDIA GPU |" in text


def test_the_block_goes_between_the_markers_and_again(tmp_path: Path) -> None:
    found, page = documents.made(tmp_path), tmp_path / "page.md"
    document.write(tmp_path / "run.json", found)
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    readme.main(tmp_path / "run.json", page)
    once = page.read_text()
    assert once == f"before\n{readme.block(found)}\nafter\n"
    readme.main(tmp_path / "run.json", page)
    assert page.read_text() == once
    for text in ("no markers", f"{readme.END}{readme.BEGIN}", f"{readme.BEGIN}{readme.BEGIN}{readme.END}"):
        with pytest.raises(ConfigError, match="once each"):
            readme.put(text, found)


def test_the_readme_is_that_of_the_published_run() -> None:
    """Type: python -m edgemtl.bench.readme docs/results/benchmark.json README.md"""
    text = (ROOT / "README.md").read_text()
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED.name} has not been made yet: make bench")
    assert readme.put(text, document.read(PUBLISHED)) == text
    assert not re.search(r"(?<![\w.~])/(?:tmp|home|root|work|Users)\b", PUBLISHED.read_text())


def test_every_block_is_printed(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=250)
    report.show_all(documents.comparison(tmp_path), documents.MACHINE, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for words in (
        "GMAC done",
        "import ms",
        "a switch of the task",
        "openvino, one model at a time",
        "no result after 120 s",
        "not to be ranked",
        "equal bit for bit",
        "this machine has no NVIDIA GPU",
        "how each engine was run",
        "openvino-nncf: nncf.quantize, transformer model type",
        "100 labelled pictures",
    ):
        assert words in said


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from edgemtl.bench import plots

    made = documents.made(tmp_path)
    for path in (tmp_path / "run.png", tmp_path / "run.svg"):
        plots.overview(made, path)
    text = (tmp_path / "run.svg").read_text()
    for words in ("rooms:edge", "openvino-nncf", "openvino, one model at a time", "ms per frame, switch included"):
        assert f"<!-- {words} -->" in text
    axes = Figure().add_subplot()
    plots.accuracy(axes, made, "rooms:depth")
    marks = {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in axes.lines if len(line.get_xdata())}
    assert {y for _, y in marks} == {0.5, 0.51, 0.52}
    assert len(marks) == len(documents.ENGINES)
    assert axes.yaxis_inverted()  # less is better of an RMSE
    axes = Figure().add_subplot()
    plots.timeline(axes, made["walks"])
    (first, second) = (line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 24)
    assert first[0] == 10 * 1.5 + 3
    assert second[6] == 12 * 1.5 + 600


def test_pictures_of_a_run_that_was_cut_short(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from edgemtl.bench import plots

    made = documents.made(tmp_path) | {"rows": [], "walks": [], "scores": []}
    plots.overview(made, tmp_path / "run.svg")
    text = (tmp_path / "run.svg").read_text()
    assert text.count("not measured") == 3
