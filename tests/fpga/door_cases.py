"""What an engine on the accelerator promises, whichever door leads to the board: run in process, and under stock pynq.

Plain functions without pytest or PyTorch: the environment of pynq has neither. Each takes `load`, which makes an
engine with some tasks, and the bundle's integers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import FrameError, TaskError
from edgemtl.fpga import program as fpga_program

TASKS = ("semseg", "depth", "normals", "edge")
Load = Callable[..., Any]


class Want:
    """What the integer reference gave."""

    def __init__(self, bundle: Path) -> None:
        with Bundle.open(bundle) as opened:
            self.program, self.golden = fpga_program.load(opened), fpga_program.golden(opened)

    def raw(self, task: str, i: int) -> Any:
        unit = np.float32(self.program.units[self.program.task(task)])
        return self.golden.maps[task][i].transpose(2, 0, 1) * unit


def goldens(load: Load, want: Want) -> None:
    for task in TASKS:
        engine = load(task)
        for i, pixels in enumerate(want.golden.pixels):
            np.testing.assert_array_equal(engine(pixels)[task].raw, want.raw(task, i))


def several_tasks(load: Load, want: Want) -> None:
    """Each overlaps the conversion of the one before; the order is the caller's."""
    for tasks in (TASKS, TASKS[::-1], ("edge", "depth")):
        out = load(*tasks)(want.golden.pixels[1])
        assert tuple(out) == tasks
        for task in tasks:
            np.testing.assert_array_equal(out[task].raw, want.raw(task, 1))


def switches(load: Load, want: Want) -> None:
    engine = load("depth")
    image = engine._runner.driver.counters.image_bytes
    for i, tasks in enumerate([("depth",), ("semseg",), ("depth", "edge"), ("normals",), ("depth",)]):
        engine.activate(*tasks)
        out = engine(want.golden.pixels[i % 2])
        for task in tasks:
            np.testing.assert_array_equal(out[task].raw, want.raw(task, i % 2))
    assert engine._runner.driver.counters.image_bytes == image


def same_bits(load: Load, want: Want) -> None:
    engine = load("semseg")
    first = engine(want.golden.pixels[0])["semseg"].raw
    keep = first.copy()
    engine(want.golden.pixels[1])
    np.testing.assert_array_equal(engine(want.golden.pixels[0])["semseg"].raw, keep)
    engine.close()
    np.testing.assert_array_equal(first, keep)  # the caller's own, also once the board's memory is gone
    first[:] = 0


def frames_of_any_size(load: Load, want: Want) -> None:
    engine = load(*TASKS)
    for size in ((1, 1), (31, 65), (240, 480)):
        frame = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
        out = engine(frame)
        assert {t.map.shape[:2] for t in out.values()} == {size}
        bgr = engine(np.ascontiguousarray(frame[..., ::-1]), color="bgr")
        np.testing.assert_array_equal(bgr["depth"].map, out["depth"].map)
        np.testing.assert_array_equal(engine(np.asfortranarray(frame))["edge"].map, out["edge"].map)


def errors_leave_it_working(load: Load, want: Want) -> None:
    engine = load("depth")
    for bad in (None, np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        try:
            engine(bad)
        except FrameError:
            continue
        raise AssertionError("a bad frame passed")
    try:
        engine.activate("sky")
    except TaskError:
        np.testing.assert_array_equal(engine(want.golden.pixels[0])["depth"].raw, want.raw("depth", 0))
    else:
        raise AssertionError("a task that is none passed")


def engines_side_by_side(load: Load, want: Want) -> None:
    """Two engines, by turns and from two threads, on one board where the door leads to one."""
    a, b = load("depth"), load("semseg", "edge")
    for i in (0, 1, 0):
        np.testing.assert_array_equal(a(want.golden.pixels[i])["depth"].raw, want.raw("depth", i))
        np.testing.assert_array_equal(b(want.golden.pixels[i])["edge"].raw, want.raw("edge", i))
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend(b(want.golden.pixels[1])["semseg"].raw for _ in range(5)))
    thread.start()
    for _ in range(5):
        np.testing.assert_array_equal(a(want.golden.pixels[0])["depth"].raw, want.raw("depth", 0))
    thread.join()
    assert len(seen) == 5
    for raw in seen:
        np.testing.assert_array_equal(raw, want.raw("semseg", 1))
    b.close()
    np.testing.assert_array_equal(a(want.golden.pixels[1])["depth"].raw, want.raw("depth", 1))


def a_stream(load: Load, want: Want) -> None:
    driver = load("depth")._runner.driver
    frames = [want.golden.pixels[i] for i in (0, 1, 1, 0)]
    for i, raw in zip((0, 1, 1, 0), driver.stream(iter(frames), "depth"), strict=True):
        np.testing.assert_array_equal(raw, want.golden.maps["depth"][i])
    assert list(driver.stream([], "depth")) == []


def counters_of_each_frame(load: Load, want: Want) -> None:
    """Bytes are exact, cycles are not measured, and no simulation passes for a board."""
    out = load("depth", "edge")(want.golden.pixels[0])
    for task, count in out.timing.counts.items():
        rows, columns = want.golden.maps[task].shape[1:3]
        assert count.units["linear"].written_bytes == count.written_bytes == 2 * rows * columns
        assert count.units["program"].read_bytes == want.program.words.nbytes
        assert count.read_bytes > want.program.task_bytes[want.program.task(task)]
        assert (count.origin, count.cycles_origin, count.cycles) == ("csim", "not measured", None)
    assert set(out.timing.counts) == {"depth", "edge"}


CASES: tuple[Callable[[Load, Want], None], ...] = (
    goldens, several_tasks, switches, same_bits, frames_of_any_size, errors_leave_it_working, engines_side_by_side,
    a_stream, counters_of_each_frame,
)  # fmt: skip


def run(case: Callable[[Load, Want], None], bundle: Path, backend: str) -> None:
    """One case, its engines closed afterwards."""
    made: list[Any] = []

    def load(*tasks: str) -> Any:
        made.append(edgemtl.load(bundle, backend, tasks=tasks))
        return made[-1]

    try:
        case(load, Want(bundle))
    finally:
        for engine in made:
            engine.close()
