"""Peaks: what is measured is plausible and ordered, what is missing is left out."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil

import pytest

from edgemtl.bench import peak
from edgemtl.bench.process import ProcessError, child, environment


def test_numpy_does_some_arithmetic_and_less_than_any_machine() -> None:
    assert 0.1 < peak.measure("numpy", 1, 0.01) < 1e5


@pytest.mark.skipif(
    not importlib.util.find_spec("tvm") or not shutil.which(os.environ.get("CXX", "g++")),
    reason="apache-tvm, g++",
)
def test_the_roofs_are_over_what_numpy_reaches() -> None:
    """Nothing is faster than multiply-adds in registers; 0.8 allows for a busy machine between the two.

    NumPy gets a process of its own: in this one its threads were counted when it was first imported.
    """
    request = {"peak": "numpy", "threads": 1, "seconds": 0.05}
    (line,) = child("edgemtl.bench.worker", request, 60, environment(1))
    assert peak.measure(peak.FMA, 1, 0.1) > 0.8 * json.loads(line)["rate"]
    assert 0.1 < peak.measure(peak.READ, 2, 0.05) < 1e5


@pytest.mark.skipif(
    not importlib.util.find_spec("tvm") or not shutil.which(os.environ.get("CXX", "g++")),
    reason="apache-tvm, g++",
)
def test_the_int8_roof_is_a_rate_or_nothing() -> None:
    found = peak.measure(peak.DOT, 1, 0.05)
    assert found == 0 or 0.1 < found < 1e6
    assert ("INT8 roof" in peak.sentence({peak.DOT: found}, 1)) == (found > 0)


def test_a_child_says_the_rate_or_why_not() -> None:
    (line,) = child("edgemtl.bench.worker", {"peak": "numpy", "threads": 1, "seconds": 0.01}, 60)
    assert line.startswith('{"rate": ')
    with pytest.raises(ProcessError, match="KeyError"):
        child("edgemtl.bench.worker", {"peak": "abacus", "threads": 1, "seconds": 0.01}, 60)


def test_the_best_library_is_not_a_roof() -> None:
    assert peak.best_library({"numpy": 3, "torch": 2, peak.FMA: 9}) == "numpy"
    assert peak.best_library({peak.FMA: 9}) is None
    assert "no SGEMM library" in peak.sentence({peak.READ: 9}, 2)


def test_a_source_that_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, request: dict[str, object], *_: object) -> list[str]:
        if request["peak"] == "openvino":
            raise ProcessError("exit code 1: ModuleNotFoundError")
        return [json.dumps({"rate": 7.0})]

    monkeypatch.setattr(peak, "child", fake)
    assert peak.fresh(1, 0.01) == {s: 7.0 for s in peak.SOURCES if s != "openvino"}
