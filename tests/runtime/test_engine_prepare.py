"""`Engine.prepare`: the next path's pages are there before its first frame, and nothing of it stays behind."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from double import Double
from interrupts import interrupted_at

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BudgetError, EdgeMTLError, TaskError
from edgemtl.runtime import prefault
from edgemtl.runtime.backends.base import Choice
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.mapping import WeightMap, segments
from edgemtl.runtime.prefault import Prefault
from edgemtl.runtime.residency import present_bytes

FRAME = np.zeros((24, 40, 3), np.uint8)
SOURCES = ("selection.py", "mapping.py", "prefault.py")


class Gate:
    """In the place of ctypes.memmove: every copy waits until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened, self.copies = threading.Event(), threading.Event(), 0

    def __call__(self, to: Any, start: int, size: int) -> None:
        self.copies += 1
        self.reached.set()
        assert self.opened.wait(20)
        ctypes.string_at(start, size)  # the mapping must still be there


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate()
    monkeypatch.setattr(prefault.ctypes, "memmove", made)
    yield made
    made.opened.set()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[mmap.mmap]:
    path = tmp_path / "pages"
    path.write_bytes(bytes(300) * mmap.PAGESIZE)
    with path.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        yield mapped


def needs(engine: Engine, *tasks: str) -> set[Any]:
    return set(segments(engine.manifest.model, tasks))


def held(engine: Engine) -> set[Any]:
    return set(engine._selection.weights.held)


def readers() -> list[threading.Thread]:
    """Threads that are there still after a moment: one that has been stopped reads no more, but may be ending."""
    found = [t for t in threading.enumerate() if t.name == "edgemtl-prepare"]
    for thread in found:
        thread.join(5)
    return [t for t in found if t.is_alive()]


def faults(engine: Engine) -> int:
    """Page faults of this thread while it reads all that is mapped."""
    weights = engine._selection.weights
    assert isinstance(weights, WeightMap)
    ranges = weights.ranges()
    scrap = ctypes.create_string_buffer(b"x" * max(end - start for _, start, end in ranges))
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _, start, end in ranges:
        ctypes.memmove(scrap, start, end - start)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


class TestPrefault:
    def test_every_page_is_there(self, file: mmap.mmap) -> None:
        start = prefault.address(file)
        assert present_bytes(start, start + len(file)) == 0
        reading = Prefault([file])
        reading.start()
        reading.wait()
        assert present_bytes(start, start + len(file)) == len(file)
        file.close()  # no view is left

    def test_stopping_waits_for_one_chunk_at_most(self, file: mmap.mmap, gate: Gate) -> None:
        reading = Prefault([file])
        reading.start()
        assert gate.reached.wait(20)
        stopping = threading.Thread(target=reading.stop)
        stopping.start()
        stopping.join(0.1)
        assert stopping.is_alive()  # it reads still
        gate.opened.set()
        stopping.join(20)
        assert (gate.copies, len(file) > 2 * prefault.CHUNK) == (1, True)
        assert not stopping.is_alive()
        assert not readers()

    def test_stopped_before_it_began(self, file: mmap.mmap, gate: Gate) -> None:
        reading = Prefault([file])
        reading.stop()
        file.close()
        reading.start()
        reading.wait()
        assert gate.copies == 0


class TestPrepared:
    def test_the_first_frame_faults_on_no_page(self, make: Any) -> None:
        counts = {}
        for ahead in (False, True):
            engine = make()
            engine.activate("depth")
            faults(engine)
            if ahead:
                engine.prepare("semseg")
            engine.activate("semseg")
            found = engine.residency()
            assert (found.resident == found.mapped) is ahead
            counts[ahead] = faults(engine)
        assert counts[True] == 0 < counts[False]

    def test_both_are_shown_until_the_switch(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg", "semseg")
        assert (engine.active, engine.prepared) == (("depth",), ("semseg",))
        assert set(engine.residency().groups) == {"trunk", "depth", "semseg", "experts"}
        assert list(engine(FRAME)) == ["depth"]
        engine.activate("semseg")
        assert (engine.active, engine.prepared) == (("semseg",), ())
        assert engine.switches[-1].mapped == 0
        assert held(engine) == needs(engine, "semseg")
        assert set(engine.residency().groups) == {"trunk", "semseg", "experts"}

    def test_before_any_task_is_active(self, make: Any) -> None:
        engine = make()
        engine.prepare("depth")
        assert held(engine) == needs(engine, "depth")
        engine.activate("depth")
        assert engine.residency().resident == engine.residency().mapped

    def test_activation_waits_for_the_reading(self, make: Any, gate: Gate) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg")
        assert gate.reached.wait(20)
        switching = threading.Thread(target=engine.activate, args=("semseg",))
        switching.start()
        switching.join(0.1)
        assert engine.active == ("depth",)
        gate.opened.set()
        switching.join(20)
        assert engine.active == ("semseg",)
        assert gate.copies >= len(needs(engine, "semseg") - needs(engine, "depth"))

    @pytest.mark.parametrize("undo", ["activate", "another", "none", "close"])
    def test_what_undoes_it(self, make: Any, gate: Gate, undo: str) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg")
        assert gate.reached.wait(20)
        threading.Timer(0.05, gate.opened.set).start()
        if undo == "activate":
            engine.activate("normals")
            assert held(engine) == needs(engine, "normals")
        elif undo == "another":
            engine.prepare("normals")
            assert held(engine) == needs(engine, "depth", "normals")
            assert engine.prepared == ("normals",)
            engine.prepare()
        elif undo == "none":
            engine.prepare()
            assert held(engine) == needs(engine, "depth")
        else:
            engine.close()
            assert not held(engine)
        assert engine.prepared == ()
        assert not readers()

    def test_the_same_again_reads_nothing_twice(self, make: Any, gate: Gate) -> None:
        engine = make()
        engine.activate("depth")
        gate.opened.set()
        engine.prepare("semseg")
        engine._selection.weights.settle(needs(engine, "semseg"))
        copies = gate.copies
        engine.prepare("semseg")
        engine.prepare("semseg", "depth")
        assert gate.copies == copies

    def test_the_budget_counts_both(self, make: Any) -> None:
        engine = make()
        both = engine.size(needs(engine, "depth", "semseg"))
        small = make(both - 1)
        small.activate("depth")
        with pytest.raises(BudgetError, match=r"depth \(active\) and semseg \(to be prepared\) would need trunk .* = "):
            small.prepare("semseg")
        assert (held(small), small.prepared) == (needs(small, "depth"), ())
        small.activate("semseg")
        enough = make(both)
        enough.activate("depth")
        enough.prepare("semseg")

    def test_errors(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg")
        with pytest.raises(TaskError, match="did you mean 'edge'"):
            engine.prepare("edg")
        assert engine.prepared == ("semseg",)
        engine.close()
        with pytest.raises(EdgeMTLError, match="closed"):
            engine.prepare("semseg")

    def test_nothing_to_do_for_a_backend_with_copies(self, make: Any) -> None:
        class Copies(Double):
            maps = False

        engine = make(kind=Copies)
        engine.activate("depth")
        engine.prepare("semseg")
        assert (engine.prepared, held(engine)) == ((), set())

    def test_a_forgotten_engine_keeps_what_is_being_read(self, plain: Path, gate: Gate) -> None:
        engine = Engine(Bundle.open(plain), Double, Choice(None, ""), "test", 1, None, "rgb")
        engine.prepare("depth")
        assert gate.reached.wait(20)
        del engine
        gc.collect()
        assert str(plain) in Path("/proc/self/maps").read_text()
        gate.opened.set()  # reads on, through the last page
        assert not readers()
        assert str(plain) not in Path("/proc/self/maps").read_text()


class TestFailure:
    def test_a_failed_activation_keeps_what_was_prepared(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg")
        monkeypatch.setattr(Double, "fail_on", "semseg")
        with pytest.raises(BackendError, match="no semseg today"):
            engine.activate("semseg")
        assert engine.prepared == ("semseg",)
        assert held(engine) == needs(engine, "depth", "semseg")
        assert list(engine(FRAME)) == ["depth"]

    def test_no_thread_to_be_had(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        engine = make()
        engine.activate("depth")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(BackendError, match="failed: RuntimeError: can't start new thread"):
                engine.prepare("semseg")
        assert (held(engine), engine.prepared) == (needs(engine, "depth"), ())
        engine.prepare("semseg")
        engine.activate("semseg")

    def test_interrupted_while_the_thread_starts(self, make: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
        start = threading.Thread.start

        def interrupted(thread: threading.Thread) -> None:
            start(thread)
            assert gate.reached.wait(20)
            gate.opened.set()
            raise KeyboardInterrupt

        engine = make()
        engine.activate("depth")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                engine.prepare("semseg")
        assert held(engine) == needs(engine, "depth")
        assert not readers()

    def test_an_exception_at_any_line(self, make: Any) -> None:
        """Of those that run in the caller's thread, one after the other; each time on the same engine."""
        engine = make()
        engine.activate("depth")
        want = engine(FRAME)["depth"].map
        line, done = 0, False
        while not done:
            line += 1
            done = interrupted_at(line, lambda: engine.prepare("semseg", "edge"), SOURCES)
            assert engine.active == ("depth",)
            np.testing.assert_array_equal(engine(FRAME)["depth"].map, want)
            assert (engine.prepared == ()) is not done
            engine.prepare()
            assert held(engine) == needs(engine, "depth")
        assert line > 30
        engine.prepare("edge")
        engine.activate("edge")
        assert engine._selection.weights._leaving == []


class TestProcess:
    def test_a_child_can_go_on_while_the_parent_reads(self, make: Any, gate: Gate) -> None:
        engine = make()
        engine.activate("depth")
        engine.prepare("semseg")
        assert gate.reached.wait(20)
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(20)
                gate.opened.set()
                engine.activate("semseg")
                engine.prepare("depth")
                engine.activate("normals")
                engine.close()
                code = 0 if not engine._selection.weights.ranges() else 2  # type: ignore[attr-defined]
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        gate.opened.set()
        assert status == 0
        engine.activate("semseg")
        assert list(engine(FRAME)) == ["semseg"]

    def test_ctrl_c_waits_for_no_disk(self, plain: Path, tmp_path: Path) -> None:
        script = (
            "import os, signal, sys, threading\n"
            f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
            "from double import Double\n"
            "from edgemtl.bundle.reader import Bundle\n"
            "from edgemtl.runtime import prefault\n"
            "from edgemtl.runtime.backends.base import Choice\n"
            "from edgemtl.runtime.engine import Engine\n"
            "reading = threading.Event()\n"
            "def stuck(*_): reading.set(); threading.Event().wait(500)\n"
            "prefault.ctypes.memmove = stuck\n"
            f"engine = Engine(Bundle.open({str(plain)!r}), Double, Choice(None, ''), 'test', 1, None, 'rgb')\n"
            "engine.prepare('depth'); reading.wait()\n"
            "os.kill(os.getpid(), signal.SIGINT); threading.Event().wait(500)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == -signal.SIGINT, done.stderr
        assert done.stderr.strip().endswith("KeyboardInterrupt")
