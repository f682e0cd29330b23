"""Peaks: what is measured is plausible and ordered, what is missing is left out."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

from edgemtl.bench import peak
from edgemtl.bench.process import ProcessError, child, environment


@pytest.mark.skipif(
    not importlib.util.find_spec("tvm") or not shutil.which(os.environ.get("CXX", "g++")),
    reason="apache-tvm, g++",
)
def test_the_roof_is_over_what_numpy_reaches() -> None:
    """Nothing is faster than multiply-adds in registers; 0.8 allows for a busy machine between the two."""
    code = (
        "import time, numpy as np\n"
        "a = np.ones((768, 768), np.float32); best = 9.0\n"
        "for _ in range(5):\n"
        "    start = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - start)\n"
        "print(2e-9 * 768**3 / best)"
    )
    environ = {**os.environ, **environment(1)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert peak.measure(peak.FMA, 1, 0.1) > 0.8 * float(done.stdout)
    assert 0.1 < peak.measure(peak.READ, 2, 0.05) < 1e5


@pytest.mark.skipif(
    not importlib.util.find_spec("tvm") or not shutil.which(os.environ.get("CXX", "g++")),
    reason="apache-tvm, g++",
)
def test_the_int8_roof_is_a_rate_or_nothing() -> None:
    found = peak.measure(peak.DOT, 1, 0.05)
    assert found == 0 or 0.1 < found < 1e6
    assert ("INT8 roof" in peak.sentence({peak.DOT: found}, 1)) == (found > 0)


def test_a_child_says_why_not() -> None:
    with pytest.raises(ProcessError, match="KeyError"):
        child("edgemtl.bench.worker", {"peak": "abacus", "threads": 1, "seconds": 0.01}, 60)


def test_a_source_that_cannot_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, request: dict[str, object], *_: object) -> list[str]:
        if request["peak"] == peak.DOT:
            raise ProcessError("exit code 1: ModuleNotFoundError")
        return [json.dumps({"rate": 7.0})]

    monkeypatch.setattr(peak, "child", fake)
    assert peak.fresh(1, 0.01) == {s: 7.0 for s in peak.SOURCES if s != peak.DOT}
    assert peak.sentence({}, 2) == "no roof with 2 thread(s) (measured)"
