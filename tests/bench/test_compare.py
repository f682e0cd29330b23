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
FAST = Settings(threads=(1,), rounds=3, warmup=1, warmup_s=0, frames=2, seconds=1e-6)


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
    return {r.engine: r for r in made_rows(comparison.samples, comparison.subjects[0], 1)}


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
        return result(slow * {"edgemtl": 1.5, "onnxruntime": 3.0}[request["engine"]])

    comparison, calls = faked(answer, ["edgemtl", "onnxruntime"])
    comparison.measure()
    assert calls == ["edgemtl", "onnxruntime", "onnxruntime", "edgemtl", "edgemtl", "onnxruntime"]
    found = rows(comparison)
    assert (found["edgemtl"].ratio, found["onnxruntime"].ratio) == (0.5, 1.0)
    assert found["edgemtl"].rounds == 3
    lines = [json.loads(line) for line in (comparison.out or Path()).read_text().splitlines()]
    assert sum(x["kind"] == "sample" and x["round"] >= 0 for x in lines) == 6


def test_the_order_rotates() -> None:
    assert [order("abc", i) for i in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]
    assert order([], 3) == []


def test_a_wrong_output_is_a_row_and_no_ratio(faked: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return result(1.0, 0.5) if request["engine"] == "openvino" else result(2.0)

    comparison, _ = faked(answer, ["openvino", "onnxruntime"])
    comparison.measure()
    found = rows(comparison)
    assert found["openvino"].p50 is None
    assert found["openvino"].reason.startswith("wrong: differs from torch by 5.0e-01")
    assert found["onnxruntime"].ratio == 1.0
    assert "wrong: differs" in printed(comparison)


def test_a_crash_is_a_row(faked: Any) -> None:
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["engine"] == "openvino":
            raise ProcessError("killed by signal 11: it printed nothing")
        return result(2.0)

    comparison, calls = faked(answer, ["openvino", "onnxruntime"])
    comparison.measure()
    assert calls.count("openvino") == 2  # not a third time
    assert "killed by signal 11" in printed(comparison)
    assert rows(comparison)["onnxruntime"].rounds == 3


def test_both_forms_of_a_peer_are_measured_and_the_better_one_counts(faked: Any) -> None:
    speed = {"edgemtl": 4.0, "openvino": 6.0, "openvino-dense": 5.0}
    comparison, _ = faked(lambda request: result(speed[request["engine"]]), list(speed))
    comparison.measure()
    assert {e: r.export for e, r in rows(comparison).items()}["openvino-dense"] == "onnx-dense"
    assert rows(comparison)["edgemtl"].ratio == pytest.approx(0.8)


def test_a_model_without_experts_has_one_form(faked: Any) -> None:
    comparison, _ = faked(lambda _: result(1.0), ["openvino", "openvino-dense", "openvino-int8"], subject="micro-dense")
    comparison.measure()
    assert {(s.engine, s.artifact) for s in comparison.samples} == {
        ("openvino", "onnx-plain"),
        ("openvino-int8", "nncf-plain"),
    }


def test_what_edgemtl_runs_is_made_once_for_a_bundle(faked: Any, tmp_path: Path) -> None:
    (micro,) = parse("micro")
    (tmp_path / "rooms.edgemtl").write_bytes(b"")
    tasks = [replace(micro, name=f"rooms:{t}", bundle=str(tmp_path / "rooms.edgemtl")) for t in ("depth", "edge")]
    comparison, _ = faked(lambda _: result(1.0), ["edgemtl-int8", "openvino"], tasks)
    lines = [json.loads(line) for line in (comparison.out or Path()).read_text().splitlines()]
    made = [(x["subject"], x["artifact"]) for x in lines if x["kind"] == "prepared"]
    assert sorted(made) == [
        ("rooms:depth", "bundle-int8"),
        ("rooms:depth", "onnx-sparse"),
        ("rooms:edge", "onnx-sparse"),
    ]
    assert comparison.ready == {s.name: ["edgemtl-int8", "openvino"] for s in tasks}


def test_each_precision_has_its_own_best_peer(faked: Any) -> None:
    """A fast INT8 peer does not push the float ones out, and is what edgemtl's INT8 is held against."""
    speed = {"edgemtl": 4.0, "openvino": 5.0, "edgemtl-int8": 2.0, "openvino-int8": 2.5, "onnxruntime-int8": 9.0}
    error = {"openvino-int8": 0.01}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        made = {**result(speed[request["engine"]]), "precision": request["precision"]}
        return made | ({"error": error.get(request["engine"], 0.05)} if request["precision"] == "int8" else {})

    comparison, _ = faked(answer, list(speed))
    comparison.measure()
    found = rows(comparison)
    assert found["edgemtl"].ratio == pytest.approx(0.8)
    assert found["edgemtl-int8"].ratio == pytest.approx(0.8)
    assert found["openvino"].rounds == 3
    assert found["onnxruntime-int8"].rounds == 3
    said = printed(comparison)
    assert ", 2.5 ms, which errs less" in said


def test_ctrl_c_keeps_what_was_measured(faked: Any) -> None:
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        return result(2.0)

    comparison, calls = faked(answer, ["edgemtl", "onnxruntime"])
    with pytest.raises(KeyboardInterrupt):
        comparison.measure()
    assert rows(comparison)["edgemtl"].rounds == 1
    assert "edgemtl / peer" in printed(comparison)


def test_time_is_up_but_two_rounds_are_done(faked: Any) -> None:
    comparison, calls = faked(lambda _: result(1.0), ["onnxruntime"], minutes=1e-9)
    comparison.measure()
    assert len(calls) == 2
    assert "stopped after 2 of 3 rounds" in printed(comparison)


def test_every_process_is_held_to_the_instructions(faked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str, str]] = []
    made = {e: result(1.0) for e in ("edgemtl", "openvino", "onnxruntime")}
    comparison, _ = faked(lambda request: made[request["engine"]], list(made), target="x86_64-avx2")
    monkeypatch.setattr(
        module,
        "child",
        lambda _, request, __, env: (
            told.append((request["engine"], request["target"], Path(env["LD_PRELOAD"]).name))
            or [json.dumps(made[request["engine"]])]
        ),
    )
    comparison.measure()
    assert set(told) == {(e, "x86_64-avx2", "held.so") for e in made}
    said = " ".join(printed(comparison).split())
    assert "programs for x86_64-avx2, peers held to it" in said


def test_rounds_go_on_until_the_ratio_is_known(faked: Any) -> None:
    """Ratios that scatter in the first rounds and then agree: more rounds than asked for, and no more than needed."""
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        scatter = 0.3 if len(calls) in (1, 4) else 0.0
        return result(1.0 if request["engine"] == "onnxruntime" else 0.8 + scatter)

    comparison, calls = faked(answer, ["edgemtl", "onnxruntime"], precise=0.03)
    comparison.measure()
    found = rows(comparison)["edgemtl"]
    assert 5 <= found.rounds < comparison.settings.most
    assert found.reach is not None
    assert found.reach <= 0.03
    assert not comparison.notes


def test_a_ratio_that_is_not_known_is_told(faked: Any) -> None:
    calls: list[str] = []

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return result(1.0 if request["engine"] == "onnxruntime" else 0.5 + len(calls) % 5)

    comparison, calls = faked(answer, ["edgemtl", "onnxruntime"], precise=0.03, most=8)
    comparison.measure()
    assert rows(comparison)["edgemtl"].rounds == 8
    said = " ".join(printed(comparison).split())
    assert "micro, 1 thread(s): the ratio of edgemtl is not known to within ±0.03" in said


def test_a_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        ENGINES, "openvino", Engine("openvino", "openvino", ("no_such_package",), "onnx-sparse", lambda *_: None)
    )  # type: ignore[arg-type, return-value]
    comparison = Comparison(parse("micro"), ["openvino"], Settings(threads=(1,), rounds=1), tmp_path)
    comparison.samples += [Sample("micro", e, "", 1, 0, failure=ENGINES[e].missing()) for e in ("openvino",)]
    assert "not installed: pip install no_such_package" in printed(comparison)


def test_a_child_that_fails_is_one_line() -> None:
    with pytest.raises(ProcessError, match=r"^exit code 1: .*no_such"):
        child("edgemtl.bench.no_such", {}, 60)
    with pytest.raises(ProcessError, match=r"^no result after 0 s"):
        child("edgemtl.bench.worker", {"peak": "torch", "threads": 1, "seconds": 60}, 0.01)
