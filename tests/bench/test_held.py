"""What a held process sees of its CPU, and what a peer says where it is not held."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgemtl.bench import held

X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="instructions are hidden on x86-64")

LOOK = """
import json, threading
import numpy as np
from edgemtl.bench import held
seen = {}
def look():
    seen["thread"] = held_here()
def held_here():
    try:
        held.need({"target": "x86_64-avx2"})
    except RuntimeError as error:
        return str(error)
threads = [threading.Thread(target=look)]
[t.start() for t in threads]; [t.join() for t in threads]
from numpy._core._multiarray_umath import __cpu_features__ as features
print(json.dumps({"main": held_here(), **seen, **{k: features[k] for k in ("AVX2", "AVX512F")}}))
"""


def seen(variables: dict[str, str], program: str = LOOK) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return held.variables("x86_64-avx2", tmp_path_factory.mktemp("held") / "new")


@X86
def test_a_held_process_knows_no_avx512(library: dict[str, str]) -> None:
    """NumPy asks CPUID as every library does."""
    found = json.loads(seen(library).stdout)
    if found["main"]:
        pytest.skip(f"this machine cannot make CPUID fault: {found['main']}")
    assert found == {"main": None, "thread": None, "AVX2": True, "AVX512F": False}


@X86
def test_a_fault_of_the_program_still_ends_it(library: dict[str, str]) -> None:
    assert seen(library, "import ctypes; ctypes.string_at(8)").returncode == -11


def test_nothing_is_hidden_where_all_may_be_used(tmp_path: Path) -> None:
    assert held.variables("cpu", tmp_path) == {}
    held.need({})


@pytest.mark.parametrize("engine", ["_onnxruntime", "_openvino"])
def test_a_peer_that_is_not_held_is_left_out(engine: str) -> None:
    """Here no library was loaded first, so nothing answers in CPUID's place."""
    opener = getattr(importlib.import_module("edgemtl.bench.engines"), engine)
    with pytest.raises(RuntimeError, match=re.escape("left out: nothing holds it to x86_64-avx2 here")):
        opener({"target": "x86_64-avx2"}, None)
