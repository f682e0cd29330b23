"""The benchmark measures what it says: pairing, interleaving, fresh processes, and no failure that stops the rest."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgemtl.bench import artifacts as made
from edgemtl.bench import compare as module
from edgemtl.bench import document, report
from edgemtl.bench.compare import Comparison, order
from edgemtl.bench.engines import ENGINES, Engine
from edgemtl.bench.process import ProcessError, child
from edgemtl.bench.rows import Row
from edgemtl.bench.rows import rows as made_rows
from edgemtl.bench.samples import Sample, Settings
from edgemtl.bench.subjects import Subject, parse

MEMORY = {"before": {"resident": 10, "peak": 10}, "after": {"resident": 30, "peak": 40}}
FAST = Settings(threads=(1,), rounds=3, warmup=1, warmup_s=0, frames=2, seconds=1e-6, peak_s=0.01)


def result(ms: float, error: float = 1e-7) -> dict[str, Any]:
    return {"import_s": 1, "load_s": 1, "first_s": 1, "ms": [ms] * 3, "error": error, "memory": MEMORY,
            "weights": None}  # fmt: skip


Fake = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Comparison, list[str]]]:
    """A comparison of fake processes: `answer` gives each one's result; the list has the engines in their order."""

    def run(
        answer: Fake, engines: list[str], subject: str | list[Subject] = "micro", **changes: Any
    ) -> tuple[Comparison, list[str]]:
        calls: list[str] = []

        def fake_child(name: str, request: dict[str, Any], *_: Any) -> list[str]:
            if "peak" in request:
                return [json.dumps({"rate": {"torch": 80, "openvino": 100, "fma roof": 200}.get(request["peak"], 9)})]
            if name.endswith("prepare"):
                (Path(request["folder"]) / "info.json").write_text('{"touched": [6, 6]}')
                return [json.dumps({"artifact": a, "path": str(tmp_path)}) for a in request["artifacts"]]
            if request["seconds"] == FAST.seconds:
                calls.append(request["engine"])
            return [json.dumps(answer(request))]

        monkeypatch.setattr(module, "child", fake_child)
        monkeypatch.setattr(made, "child", fake_child)
        monkeypatch.setattr(Engine, "missing", lambda self: None)
        subjects = parse(subject) if isinstance(subject, str) else subject
        comparison = Comparison(subjects, engines, Settings(**{**vars(FAST), **changes}), tmp_path, tmp_path / "o")
        comparison.prepare()
        return comparison, calls

    return run


def rows(comparison: Comparison) -> dict[str, Row]:
    return {r.engine: r for r in made_rows(comparison.samples, comparison.subjects[0], 1, {"numpy": 100.0})}


def printed(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=200)
    machine = {"cpu": "x", "cpus": 1, "features": [], "load": 0.0}
    report.print_all(document.make(comparison, machine, [], interrupted=False), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_ratios_are_paired_within_a_round(faked: Any) -> None:
    """The machine gets ten times slower in round 2; the ratio does not see it."""
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        slow = 10.0 if len(calls) in (3, 4) else 1.0
        return result(slow * {"edgemtl": 1.5, "torch": 3.0}[request["engine"]])

    comparison, calls = faked(answer, ["edgemtl", "torch"])
    comparison.measure()
    assert calls == ["edgemtl", "torch", "torch", "edgemtl", "edgemtl", "torch"]
    found = rows(comparison)
    assert (found["edgemtl"].ratio, found["torch"].ratio) == (0.5, 1.0)
    assert found["edgemtl"].rounds == 3
    lines = [json.loads(line) for line in (comparison.out or Path()).read_text().splitlines()]
    assert sum(x["kind"] == "sample" and x["round"] >= 0 for x in lines) == 6


def test_the_order_rotates() -> None:
    assert [order("abc", i) for i in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert order([], 3) == []


def test_the_better_export_is_measured(faked: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return result({"sparse": 5.0, "dense": 2.0}[request["form"]])

    comparison, calls = faked(answer, ["onnxruntime-18"], doubtful=99)
    comparison.measure()
    assert calls == ["onnxruntime-18"] * 3
    assert rows(comparison)["onnxruntime-18"].export == "onnx-dense-18"


def test_a_trial_is_not_done_again_in_the_same_folder(faked: Any) -> None:
    """The exports are chosen once for a folder; the second run finds the choice of the first, and its speed."""

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return result({"sparse": 5.0, "dense": 2.0}[request["form"]])

    first, _ = faked(answer, ["onnxruntime-18"], doubtful=99)
    again, _ = faked(lambda _: result(1.0), ["onnxruntime-18"], doubtful=99)
    assert sum(s.round == module.TRIAL for s in first.samples) == 2
    assert not again.samples
    assert again.artifacts.trials == first.artifacts.trials == {("micro", "onnxruntime-18", 1): ("onnx-dense-18", 2.0)}
    again.measure()
    assert {s.artifact for s in again.samples} == {"onnx-dense-18"}


def test_a_dense_export_with_much_more_work_is_not_tried(faked: Any) -> None:
    comparison, _ = faked(lambda _: result(1.0), ["onnxruntime-18"], subject="edge-moe:129")
    comparison.measure()
    assert {s.artifact for s in comparison.samples} == {"onnx-sparse-18"}
    assert any("dense exports do 3." in note for note in comparison.notes)


def test_a_wrong_output_is_a_row_and_no_ratio(faked: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return result(1.0, 0.5) if request["engine"] == "openvino" else result(2.0)

    comparison, _ = faked(answer, ["openvino", "torch"])
    comparison.measure()
    found = rows(comparison)
    assert found["openvino"].p50 is None
    assert found["openvino"].reason.startswith("wrong: differs from torch by 5.0e-01")
    assert found["torch"].ratio == 1.0
    assert "wrong: differs" in printed(comparison)


def test_a_crash_is_a_row(faked: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["engine"] == "openvino":
            raise ProcessError("killed by signal 11: it printed nothing")
        return result(2.0)

    comparison, calls = faked(answer, ["openvino", "torch"])
    comparison.measure()
    assert calls.count("openvino") == 2  # not a third time
    assert "killed by signal 11" in printed(comparison)
    assert rows(comparison)["torch"].rounds == 3


def test_a_slow_peer_is_left_out_after_two_rounds(faked: Any) -> None:
    speed = {"edgemtl": 9.0, "torch": 4.0, "openvino": 2.0}
    comparison, _ = faked(lambda request: result(speed[request["engine"]]), list(speed), rounds=4)
    comparison.measure()
    assert {e: r.rounds for e, r in rows(comparison).items()} == {"edgemtl": 4, "torch": 2, "openvino": 4}
    assert rows(comparison)["edgemtl"].ratio == 4.5


def test_tasks_of_one_shape_share_what_the_first_decided(faked: Any) -> None:
    """The second task tries no exports, compiles nothing for a minute, and leaves out who was far behind."""
    (first,) = parse("micro")
    second = replace(first, name="micro:second")
    speed = {"edgemtl": 1.0, "openvino": 2.0, "torch": 9.0, "torch-compile": 2.0}
    comparison, _ = faked(lambda request: result(speed[request["engine"]]), list(speed), [first, second], doubtful=99)
    comparison.measure()
    found = {r.engine: r for r in made_rows(comparison.samples, second, 1)}
    assert not any(s.round == module.TRIAL and s.subject == second.name for s in comparison.samples)
    assert found["torch-compile"].reason.startswith("compiles for long, so measured on micro alone")
    assert found["torch"].reason == "left out: 4.5 times slower than the best on micro, which has the same shape"
    assert found["openvino"].rounds == found["edgemtl"].rounds == 3
    assert {s.artifact for s in comparison.samples if s.engine == "openvino" and s.round >= 0} == {"onnx-sparse-18"}
    assert "left out: 4.5 times slower" in printed(comparison)


def test_shares_are_of_the_best_library_and_of_the_roof(faked: Any) -> None:
    """Both are named; a library that was not measured (a figure that cannot be read) is left out."""
    comparison, _ = faked(lambda _: result(2.0), ["edgemtl"])
    comparison.measure()
    row = made_rows(comparison.samples, comparison.subjects[0], 1, comparison.peaks[1])[0]
    assert row.share == pytest.approx(row.gflops / 100)
    assert row.roof == pytest.approx(row.gflops / 200)
    said = printed(comparison)
    assert "SGEMM peak with 1 thread(s): 100 GFLOP/s by openvino (best of torch 80, openvino 100, numpy 9;" in said
    assert "FMA roof 200 GFLOP/s" in said
    assert "reading memory 9.0 GB/s" in said


def test_each_precision_has_its_own_best_peer(faked: Any) -> None:
    """A fast INT8 peer does not push the float ones out, and is what edgemtl's INT8 is held against."""
    speed = {"edgemtl": 4.0, "openvino": 5.0, "edgemtl-int8": 2.0, "openvino-nncf": 2.5, "onnxruntime-dynamic": 9.0}
    error = {"openvino-nncf": 0.01}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        made = {**result(speed[request["engine"]]), "precision": request["precision"]}
        return made | ({"error": error.get(request["engine"], 0.05)} if request["precision"] == "int8" else {})

    comparison, _ = faked(answer, list(speed))
    comparison.measure()
    found = rows(comparison)
    assert found["edgemtl"].ratio == pytest.approx(0.8)
    assert found["edgemtl-int8"].ratio == pytest.approx(0.8)
    assert found["openvino"].rounds == 3
    assert found["onnxruntime-dynamic"].rounds == 2
    said = printed(comparison)
    assert ", 2.5 ms, which errs less" in said


def test_ctrl_c_keeps_what_was_measured(faked: Any) -> None:
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result(2.0)

    comparison, calls = faked(answer, ["edgemtl", "torch"])
    with pytest.raises(KeyboardInterrupt):
        comparison.measure()
    assert rows(comparison)["edgemtl"].rounds == 1
    assert "edgemtl / peer" in printed(comparison)


def test_time_is_up_but_two_rounds_are_done(faked: Any) -> None:
    comparison, calls = faked(lambda _: result(1.0), ["torch"], minutes=1e-9)
    comparison.measure()
    assert len(calls) == 2
    assert "stopped after 2 of 3 rounds" in printed(comparison)


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        ENGINES, "openvino", Engine("openvino", "openvino", ("no_such_package",), "openvino", (), lambda *_: None)
    )  # type: ignore[arg-type, return-value]
    comparison = Comparison(parse("micro"), ["openvino"], Settings(threads=(1,), rounds=1), tmp_path)
    comparison.samples += [Sample("micro", e, "", 1, 0, failure=ENGINES[e].missing()) for e in ("openvino",)]
    assert "not installed: pip install openvino" in printed(comparison)


def test_a_child_that_fails_is_one_line() -> None:
    with pytest.raises(ProcessError, match=r"^exit code 1: .*no_such"):
        child("edgemtl.bench.no_such", {}, 60)
    with pytest.raises(ProcessError, match=r"^no result after 0 s"):
        child("edgemtl.bench.worker", {"peak": "torch", "threads": 1, "seconds": 60}, 0.01)
