"""An exception at any line leaves an engine that works, or one that says it is closed; and engines across a fork."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from double import Double
from interrupts import interrupted_at

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, EdgeMTLError
from edgemtl.runtime import backends, forks
from edgemtl.runtime.backends.base import Ran
from edgemtl.runtime.engine import Engine

FRAME = np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8)
BACKENDS = ("tvm-cpu", "tvm-cuda", "torch", "onnxruntime", "fpga-sim")
Make = Callable[[], Engine]


def maps(engine: Engine) -> dict[str, Any]:
    """What a call gives; also that no other thread would wait for the lock."""
    got: dict[str, Any] = {}
    thread = threading.Thread(target=lambda: got.update({t: o.raw.copy() for t, o in engine(FRAME).items()}))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    return got


def every_line(make: Make) -> int:
    """Raise at each line of activate, prepare, a call and close, one after the other; how many there were."""
    engine, count = make(), 0
    engine.activate(*engine.tasks)
    want = maps(engine)
    engine.activate("depth")

    def check(*sets: tuple[str, ...]) -> None:
        assert engine.active in sets
        got = maps(engine)
        assert tuple(got) == engine.active == engine.switches[-1].after
        for task, raw in got.items():
            np.testing.assert_array_equal(raw, want[task])

    for line in itertools.count(1):
        done = interrupted_at(line, lambda: engine.activate("semseg", "edge"))
        check(("depth",), ("semseg", "edge"))
        count += 1
        if done:
            break
        engine.activate("depth")
        check(("depth",))
    calls: list[Callable[[], object]] = [lambda: engine(FRAME), lambda: engine.prepare("normals")]
    for call in calls:
        for line in itertools.count(1):
            done = interrupted_at(line, call)
            check(("semseg", "edge"))
            count += 1
            if done:
                break
    first = make()
    for line in itertools.count(1):  # the very first activation: no switch before it
        done = interrupted_at(line, partial(first.activate, "depth"))
        if first.active:
            np.testing.assert_array_equal(maps(first)["depth"], want["depth"])
            if done:
                break
            first.close()
            first = make()
        count += 1
    for line in itertools.count(1):
        one = make()
        one.activate("depth")
        done = interrupted_at(line, one.close)
        if not one._closed:
            np.testing.assert_array_equal(maps(one)["depth"], want["depth"])
        one.close()
        assert one._bundle._file.closed
        with pytest.raises(EdgeMTLError, match="has been closed"):
            one(FRAME)
        count += 1
        if done:
            break
    return count


@pytest.fixture
def no_leak() -> Iterator[None]:
    """Descriptors of this process, before and after."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_an_exception_at_every_line(make: Any, no_leak: None) -> None:
    made: list[Engine] = []

    def fresh() -> Engine:
        made.append(make())
        return made[-1]

    assert every_line(fresh) > 300
    for engine in made:
        engine.close()
        assert engine._selection.weights.ranges() == []  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", BACKENDS)
def test_an_exception_at_every_line_with(
    name: str, request: pytest.FixtureRequest, no_leak: None, simulation_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(simulation_cache))
    if name == "tvm-cuda":
        request.getfixturevalue("gpu16")
        path = request.getfixturevalue("cuda_bundle")[1]
    else:
        path = request.getfixturevalue("integer_bundle" if name == "fpga-sim" else "bundle")
    with Bundle.open(path) as opened:
        try:
            backends.usable(name, opened)
        except BackendError as e:
            pytest.skip(str(e))
    every_line(lambda: edgemtl.load(path, name, threads=1))


class Stubborn(Double):
    """A backend of another package, with exceptions of its own."""

    fail, closes = False, False

    def run(self, image: Any, tasks: Sequence[str]) -> Ran:
        if self.fail:
            raise ZeroDivisionError("no\nframe")
        return super().run(image, tasks)

    def close(self) -> None:
        super().close()
        if not self.closes:
            raise ValueError("I will not")


def test_a_backends_own_exception_is_a_sentence(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(kind=Stubborn)
    engine.activate("depth")
    want = engine(FRAME)["depth"].raw
    first = engine._runner
    for fail, use in (("fail", lambda: engine(FRAME)), ("bind", lambda: engine.activate("edge"))):
        with monkeypatch.context() as patch:
            patch.setattr(Stubborn, fail, True)
            with pytest.raises(BackendError, match=r"^backend 'double' failed: \w+Error: [^\n]+$") as caught:
                use()
        assert isinstance(caught.value.__cause__, (ZeroDivisionError, TypeError))
        np.testing.assert_array_equal(engine(FRAME)["depth"].raw, want)
    assert engine._runner is not first
    engine._runner.closes = True  # type: ignore[attr-defined]
    engine.close()


def test_a_backend_that_cannot_be_made_again_is_tried_at_each_call(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()
    engine.activate("depth")
    want = engine(FRAME)["depth"].raw
    engine._selection.whole = False
    with monkeypatch.context() as patch:
        patch.setattr(Double, "fail_on", "depth")
        for _ in range(2):
            with pytest.raises(BackendError, match="no depth today"):
                engine(FRAME)
    np.testing.assert_array_equal(engine(FRAME)["depth"].raw, want)


def child(work: Callable[[], object]) -> int:
    """The exit code of a child process that does `work`; negative: the signal that ended it."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            signal.alarm(20)
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Slow(Double):
    """Holds the engine's lock until `go`."""

    inside, go = threading.Event(), threading.Event()

    def run(self, image: Any, tasks: Sequence[str]) -> Ran:
        self.inside.set()
        self.go.wait(20)
        return super().run(image, tasks)


class TestFork:
    @pytest.mark.parametrize("waits", [True, False])
    def test_while_another_thread_is_in_a_call(self, make: Any, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Slow, "inside", threading.Event())
        monkeypatch.setattr(Slow, "go", threading.Event())
        engine = make(kind=Slow)
        engine.activate("depth")
        before = engine._runner
        caller = threading.Thread(target=lambda: engine(FRAME))
        caller.start()
        assert Slow.inside.wait(20)
        if waits:
            threading.Timer(0.1, Slow.go.set).start()
        else:
            monkeypatch.setattr(forks, "WAIT_S", 0.05)

        def work() -> bool:
            Slow.go.set()
            return list(engine(FRAME)) == ["depth"] and (engine._runner is before) is waits

        assert child(work) == 0
        Slow.go.set()
        caller.join(20)
        assert list(engine(FRAME)) == ["depth"]  # the parent's lock is free again
        assert engine._runner is before

    def test_a_backend_that_does_not_fork_says_so(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Double, "forks", False)
        engine = make()
        engine.activate("depth")

        def work() -> bool:
            for use in (lambda: engine(FRAME), lambda: engine.activate("edge"), engine.residency):
                with pytest.raises(BackendError, match=r"does not work in a child: call edgemtl.load\('.*plain"):
                    use()
            engine.close()
            return not engine._runner.log.count("-depth")  # type: ignore[attr-defined]

        assert child(work) == 0
        assert list(engine(FRAME)) == ["depth"]

    @pytest.mark.parametrize("name", ["tvm-cpu", "torch", "onnxruntime"])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_in_a_child_it_works_or_says_so(self, bundle: Path, name: str, threads: int) -> None:
        with Bundle.open(bundle) as opened:
            try:
                backends.usable(name, opened)
            except BackendError as e:
                pytest.skip(str(e))
        with edgemtl.load(bundle, name, tasks="depth", threads=threads) as engine:
            want = engine(FRAME)["depth"].raw.copy()

            def work() -> bool:
                try:
                    return bool(np.allclose(engine(FRAME)["depth"].raw, want))
                except BackendError as e:
                    return "does not work in a child" in str(e)
                finally:
                    engine.close()

            assert child(work) == 0


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_engine_is_not_copied(make: Any, take: Callable[[object], object]) -> None:
    engine = make()
    engine.activate("depth")
    how = r"call edgemtl.load\('.*plain.edgemtl', 'double', tasks=\['depth'\], threads=1, color='rgb'\)"
    with pytest.raises(EdgeMTLError, match=how):
        take(engine)
