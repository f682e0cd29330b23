"""Proves the accelerator on a board, and times it: bit-exactness per task, latency, power, one JSON file to send back.

`edgemtl deploy` puts a script of the same name beside the model's files; it calls `main`. With --virtual the same runs
on the virtual board, whose times say nothing and whose power is not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import edgemtl
from edgemtl.errors import BoardError, EdgeMTLError
from edgemtl.fpga import bitstream, counters, model_folder
from edgemtl.fpga.board import find
from edgemtl.fpga.counters import NOT_MEASURED
from edgemtl.fpga.driver import Board, Driver
from edgemtl.fpga.model_folder import Facts
from edgemtl.fpga.program import Golden

NO_POWER, NOT_ESTIMATED = NOT_MEASURED, "not estimated: deployed without the compiler"
SAMPLE_S = 0.05


def main(script: str) -> int:
    """What `board_test.py` does; exit code 0: every map is exact, 1: one is not, 2: it could not be tried."""
    parser = argparse.ArgumentParser(description="Test the accelerator on this board and write one JSON file.")
    parser.add_argument("--virtual", action="store_true", help="use the virtual board (needs a checkout and g++)")
    parser.add_argument("--frames", type=int, help="frames to time per task; 200, with --virtual 2")
    parser.add_argument("-o", "--out", type=Path, default=Path("board_test.json"))
    given = parser.parse_args()
    folder = Path(script).resolve().parent
    try:
        found = test(folder, virtual=given.virtual, frames=given.frames or (2 if given.virtual else 200))
    except EdgeMTLError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, task in found["tasks"].items():
        exact, ms = ("exact" if task["exact"] else "WRONG"), task["frame_ms"]
        times = ", ".join(f"{p} {ms[p]:.3f} ms" for p in ("p50", "p95", "p99"))
        print(f"{name}: {exact}; {times} (origin: {ms['origin']})")
        for line in counters.lines(task["counters"], task["estimated_cycles"]["units"]):
            print(f"  {line}")
    print(f"power: {found['power'] if isinstance(found['power'], str) else json.dumps(found['power'])}")
    print(f"wrote {given.out}")
    return 0 if found["passed"] else 1


def test(folder: Path, *, virtual: bool, frames: int) -> dict[str, Any]:
    """The whole report. Raises BoardError and BundleError for what makes a test impossible."""
    facts, program, golden = model_folder.read(folder / "model")
    board, about = _virtual() if virtual else _real(folder, facts.board)
    driver = Driver(board, program, timeout_s=120 if virtual else 1)
    try:
        with _power(() if virtual else find(facts.board).rails) as watts:
            tasks = {t.name: _task(driver, facts, golden, t.name, frames, about["origin"]) for t in facts.tasks}
        power = watts.summary()
        before = driver.counters.register_bytes
        for name in program.tasks[:2]:
            driver.frame(golden.pixels[0], name)
        switch = driver.counters.register_bytes - before
    finally:
        driver.close()
    return {
        "edgemtl": edgemtl.__version__,
        "model": facts.name,
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        **about,
        "tasks": tasks,
        "switch_register_bytes": switch,
        "power": power,
        "passed": all(t["exact"] for t in tasks.values()),
    }


def _real(folder: Path, name: str) -> tuple[Board, dict[str, Any]]:
    bit = bitstream.find(folder / "model.json")
    from edgemtl.fpga import pynq_driver

    board = pynq_driver.board(bit, name)
    return board, {
        "board": board.bitstream.record.board,
        "origin": board.origin,
        "bitstream": bitstream.describe(board.bitstream),
        "clock_hz": board.clock_hz(),
    }


def _virtual() -> tuple[Board, dict[str, Any]]:
    from edgemtl.fpga import simulation
    from edgemtl.fpga.virtual import VirtualBoard

    if reason := simulation.obstacle(simulation.chosen()):
        raise BoardError(f"the virtual board cannot run: {reason}")
    board = VirtualBoard(simulation.kernel())
    return board, {"board": bitstream.VIRTUAL, "origin": board.origin, "bitstream": None, "clock_hz": None}


def _task(driver: Driver, facts: Facts, golden: Golden, name: str, frames: int, origin: str) -> dict[str, Any]:
    exact = all(
        np.array_equal(driver.frame(pixels, name), want)
        for pixels, want in zip(golden.pixels, golden.maps[name], strict=True)
    )
    whole, kernel = [], []
    for i in range(frames):
        begun, before = time.perf_counter(), driver.counters.kernel_s
        driver.frame(golden.pixels[i % len(golden.pixels)], name)
        whole.append(time.perf_counter() - begun)
        kernel.append(driver.counters.kernel_s - before)
    (estimated,) = (t.estimated_cycles for t in facts.tasks if t.name == name)
    counted = driver.last_count
    assert counted is not None
    return {
        "exact": exact,
        "golden_frames": len(golden.pixels),
        "frame_ms": _percentiles(whole, origin),
        "start_to_done_ms": _percentiles(kernel, origin),
        "cycles": {"value": counted.cycles or NOT_MEASURED, "origin": counted.cycles_origin},
        "estimated_cycles": {"value": sum(estimated.values()) or NOT_ESTIMATED, "origin": "model", "units": estimated},
        "ddr_bytes": {"read": counted.read_bytes, "written": counted.written_bytes, "origin": counted.origin},
        "counters": counted.as_dict(),
    }


def _percentiles(seconds: list[float], origin: str) -> dict[str, Any]:
    p50, p95, p99 = (float(v) for v in 1e3 * np.percentile(seconds, (50, 95, 99)))
    return {"p50": p50, "p95": p95, "p99": p99, "frames": len(seconds), "origin": origin}


class _Watts:
    """Samples of the rails' power while the test runs."""

    def __init__(self, rails: dict[str, Any]) -> None:
        self._rails, self._over = rails, threading.Event()
        self._samples: dict[str, list[float]] = {name: [] for name in rails}

    def sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            for name, rail in self._rails.items():
                self._samples[name].append(float(rail.power.value))

    def stop(self) -> None:
        self._over.set()

    def summary(self) -> dict[str, Any] | str:
        if not any(self._samples.values()):
            return NO_POWER
        return {
            name: {"mean_w": float(np.mean(w)), "max_w": max(w), "samples": len(w), "origin": "measured"}
            for name, w in self._samples.items()
            if w
        }


@contextlib.contextmanager
def _power(wanted: tuple[str, ...]) -> Iterator[_Watts]:
    rails: dict[str, Any] = {}
    if wanted:
        import pynq

        found = pynq.get_rails()  # empty, with a warning, where the image has no sensors
        rails = {name: found[name] for name in wanted if name in found and found[name].power is not None}
    watts = _Watts(rails)
    thread = threading.Thread(target=watts.sample, daemon=True)
    if rails:
        thread.start()
    try:
        yield watts
    finally:
        watts.stop()
        if rails:
            thread.join()
