"""The camera demo on the virtual board: tasks change in mid-clip, and little is written for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgemtl.fpga import simulation

DEMOS = Path(__file__).parents[2] / "demos"


def test_a_switch_in_mid_clip(integer_bundle: Path, simulation_cache: Path, tmp_path: Path) -> None:
    if reason := simulation.obstacle():
        pytest.skip(reason)
    words = (DEMOS / "camera.py", integer_bundle, DEMOS / "homes.mp4", "--backend", "fpga-sim", "--cycle", "0.5")
    command = [sys.executable, *map(str, words), "--limit", "24", "-o", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMTL_CACHE", str(simulation_cache))
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [s["to"] for s in found["switches"]] == [["semseg"], ["depth"], ["normals"], ["edge"]]
    assert all(0 < s["bytes_written"] <= 64 << 10 for s in found["switches"])
    assert list(found["counters"]) == ["edge"]
    for text in ("simulated, and no measure of a board, fpga-sim", "cycles, stalls: not measured", "28 bytes"):
        assert text in done.stdout
    assert "resident" not in done.stdout
