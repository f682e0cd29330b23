"""The linear unit: NumPy reference == C simulation, bit for bit, and the reference against exact arithmetic."""

from __future__ import annotations

import shutil
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl_compiler.hls import reference
from edgemtl_compiler.hls.csim import CSim, build

HLS = Path(__file__).parents[2] / "hls"


@pytest.fixture(scope="module")
def csim(tmp_path_factory: pytest.TempPathFactory) -> CSim:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler: apt-get install g++")
    return CSim(build(HLS, tmp_path_factory.mktemp("csim") / "hls.so"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    extreme=st.booleans(),
)
def test_csim_equals_reference(csim: CSim, rows: int, inputs: int, outputs: int, seed: int, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    low, high = (-128, 127)
    x = rng.choice([low, high], (rows, inputs)) if extreme else rng.integers(low, high, (rows, inputs), endpoint=True)
    w = rng.choice([low, high], (outputs, inputs)) if extreme else rng.integers(low, high, (outputs, inputs))
    bias = rng.integers(-(2**30), 2**30, outputs).astype(np.int32)
    multiplier, shift = reference.fixed_point(2.0 ** rng.uniform(-30, 4, outputs))
    args = (x.astype(np.int8), w.astype(np.int8), bias, multiplier, shift)
    np.testing.assert_array_equal(csim.linear(*args), reference.linear(*args))


@given(total=st.integers(-(2**31), 2**31 - 1), scale=st.floats(2.0**-30, 2.0**20))
def test_requantise_rounds_once(total: int, scale: float) -> None:
    multiplier, shift = reference.fixed_point(np.array([scale]))
    exact = floor(Fraction(total) * int(multiplier[0]) / Fraction(2 ** int(shift[0])) + Fraction(1, 2))
    got = reference.requantise(np.array([total], np.int32), multiplier, shift)
    assert got[0] == min(127, max(-128, exact))
    assert abs(int(multiplier[0]) * 2.0 ** -int(shift[0]) / scale - 1) < 2.0**-30


def test_refusals(csim: CSim) -> None:
    one = np.ones(1, np.int32)
    wide = np.zeros((1, 1537), np.int8)
    with pytest.raises(ValueError, match="maxima"):
        csim.linear(wide, wide, one, one, np.ones(1, np.uint8))
    with pytest.raises(ValueError, match="shift"):
        csim.linear(np.zeros((1, 4), np.int8), np.zeros((1, 4), np.int8), one, one, np.array([63], np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        csim.linear(np.zeros((1, 4), np.int8), np.zeros((1, 5), np.int8), one, one, np.ones(1, np.uint8))
    with pytest.raises(ValueError, match="between"):
        reference.fixed_point(np.array([0.0]))


def test_no_undefined_behaviour_at_the_extremes(tmp_path: Path) -> None:
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler: apt-get install g++")
    import subprocess
    import sys

    build(HLS, tmp_path / "ubsan.so", sanitize=True)
    code = (
        "import numpy as np, sys; from pathlib import Path; from edgemtl_compiler.hls.csim import CSim\n"
        "x = np.full((3, 1536), -128, np.int8); w = np.full((5, 1536), -128, np.int8)\n"
        "m = np.full(5, 2**31 - 1, np.int32); s = np.array([1, 62, 31, 20, 2], np.uint8)\n"
        "print(CSim(Path(sys.argv[1])).linear(x, w, np.full(5, 2**30, np.int32), m, s).tolist()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "ubsan.so")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[127, 1, 127, 127, 127]"
