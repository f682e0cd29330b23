"""The statistics are those of what ran: real measuring processes of engines that behave in known ways."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_engines
import numpy as np
import pytest
from rich.console import Console

from edgemtl.bench import artifacts, document, report
from edgemtl.bench import compare as compare_module
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES, Engine
from edgemtl.bench.prepare import EXPECTED, INPUT
from edgemtl.bench.process import child
from edgemtl.bench.rows import Row, rows
from edgemtl.bench.samples import Settings
from edgemtl.bench.subjects import parse

MACHINE = {"cpu": "x", "cpus": 1, "features": [], "load": 0.0}


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Comparison]:
    """A finished comparison of functions of fake_engines.py; only preparing is fake, processes and clocks are not."""

    def run(*names: str, own: str = "", **changes: Any) -> Comparison:
        for name in names:
            function = getattr(fake_engines, name)
            made = Engine(name, name, (), "onnx-sparse", function, own=name == own)
            monkeypatch.setitem(ENGINES, name, made)
        monkeypatch.setattr(Engine, "missing", lambda self: None)
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

        def prepared(_: str, request: dict[str, Any], *__: Any) -> list[str]:
            folder = Path(request["folder"])
            (folder / "info.json").write_text('{"touched": [6, 6]}')
            np.save(folder / INPUT, np.zeros((1, 3, 4, 4), np.float32))
            np.save(folder / EXPECTED, np.ones((1, 1, 2, 3), np.float32))
            return [json.dumps({"artifact": a, "path": str(tmp_path)}) for a in request["artifacts"]]

        def limited(name: str, request: dict[str, Any], timeout: float, env: dict[str, str]) -> list[str]:
            """A busy machine may start the others as late as it likes."""
            return child(name, request, 2 if request["engine"] == "stalls" else timeout, env)

        monkeypatch.setattr(artifacts, "child", prepared)
        monkeypatch.setattr(compare_module, "child", limited)
        fast = {"threads": (1,), "rounds": 2, "warmup": 1, "warmup_s": 0, "frames": 20, "seconds": 0}
        settings = Settings(**{**fast, "seconds": 1e-6, **changes})
        comparison = Comparison(parse("micro"), list(names), settings, tmp_path, tmp_path / "raw.jsonl")
        comparison.prepare()
        comparison.measure()
        return comparison

    return run


def found(comparison: Comparison) -> dict[str, Row]:
    return {r.engine: r for r in rows(comparison.samples, comparison.subjects[0], 1)}


def test_known_latencies_come_out(compare: Any) -> None:
    """Never less than what was waited; the ratio is one of like with like. Upper bounds would time this machine."""
    comparison = compare("steady", "double", own="steady")
    by_name = found(comparison)
    steady, double = by_name["steady"], by_name["double"]
    assert steady.p50 is not None
    assert double.p50 is not None
    assert steady.p50 >= fake_engines.MS
    assert double.p50 >= 2 * fake_engines.MS
    assert steady.p50 <= steady.p95 <= steady.p99
    assert steady.fps <= 1e3 / fake_engines.MS
    for row in (steady, double):
        samples = [s for s in comparison.samples if s.engine == row.engine and s.round >= 0]
        every = [t for s in samples for t in s.result["ms"]]
        assert len(every) == 2 * 20
        assert row.p50 == pytest.approx(float(np.percentile(every, 50)))
        assert row.p99 == pytest.approx(float(np.percentile(every, 99)))
        assert row.fps == pytest.approx(1e3 * len(every) / sum(every))
    assert steady.ratio == pytest.approx(np.median([a / b for a, b in _pairs(comparison)]))


def _pairs(comparison: Comparison) -> list[tuple[float, float]]:
    """(steady, double) of each round."""
    by = {(s.round, s.engine): s.p50 for s in comparison.samples}
    return [(by[n, "steady"], by[n, "double"]) for n in (0, 1)]


def test_a_hiccup_is_in_the_tail_and_not_in_the_middle(compare: Any) -> None:
    """One frame in ten takes 20 ms: more than 5 %, so p95 has it, and frames/s pays for it."""
    row = found(compare("hiccup"))["hiccup"]
    assert row.p50 < row.p95
    assert row.p95 >= fake_engines.LATE_MS
    assert row.fps <= 1e3 / (0.9 * fake_engines.MS + 0.1 * fake_engines.LATE_MS)


def test_the_rest_of_the_table_comes_out(compare: Any, tmp_path: Path) -> None:
    """One stalls until the time limit and is not started again; others crash, refuse, or answer wrongly."""
    comparison = compare("steady", "stalls", "crashes", "refuses", "wrong", own="steady")
    by_name = found(comparison)
    assert by_name["steady"].rounds == 2
    assert by_name["stalls"].reason == "no result after 2 s"
    assert by_name["crashes"].reason.startswith("killed by signal 11")
    assert by_name["refuses"].reason == "exit code 1: RuntimeError: this machine has no such instruction"
    assert by_name["wrong"].reason.startswith("wrong: differs from torch by 1.0e+00")
    started = [s.engine for s in comparison.samples]
    assert [started.count(e) for e in ("stalls", "crashes", "refuses", "wrong")] == [1, 2, 2, 2]
    console = Console(file=io.StringIO(), width=250)
    report.print_all(document.make(comparison, MACHINE, [], interrupted=False), console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    for words in ("no result after 2 s", "killed by signal 11", "no such instruction", "wrong: differs"):
        assert words in said
    path = tmp_path / "run.json"
    document.write(path, document.make(comparison, MACHINE, ["benchmark"], interrupted=False))
    read = document.read(path)
    assert {r["engine"]: r["reason"][:10] for r in read["rows"]}["crashes"] == "killed by "
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
