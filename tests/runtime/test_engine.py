"""The engine's promises that hold for every backend: switching, undoing, records, errors. Backends here are doubles."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from double import Double

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BudgetError, BundleError, EdgeMTLError, FrameError, TaskError
from edgemtl.runtime.backends.base import Ran
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.mapping import segments, sizes
from edgemtl.runtime.switches import Switch

FRAME = np.zeros((24, 40, 3), np.uint8)


def runner(engine: Engine) -> Double:
    assert isinstance(engine._runner, Double)
    return engine._runner


class TestActivate:
    def test_it_replaces_the_set(self, make: Any) -> None:
        engine = make()
        assert engine.tasks == ("semseg", "depth", "normals", "edge")
        engine.activate("depth", "semseg")
        assert engine.active == ("depth", "semseg")
        engine.activate("semseg", "edge", "semseg")
        assert engine.active == ("semseg", "edge")
        assert runner(engine).log == ["+depth", "+semseg", "+edge", "-depth"]
        assert list(engine(FRAME)) == ["semseg", "edge"]

    def test_the_same_set_again_costs_nothing(self, make: Any) -> None:
        engine = make()
        engine.activate("depth", "semseg")
        engine.activate("semseg", "depth")
        assert runner(engine).log == ["+depth", "+semseg"]
        assert len(engine.switches) == 1
        assert engine.active == ("semseg", "depth")

    def test_records_of_switches(self, make: Any) -> None:
        engine = make()
        config, bundle = engine.manifest.model, engine._bundle

        def bytes_of(segs: Any) -> int:
            return sum(sizes(bundle, segs).values())

        depth, normals = segments(config, ["depth"]), segments(config, ["normals"])
        for task in ("depth", "normals", "depth"):
            engine.activate(task)
        first, second, third = engine.switches
        assert (first.before, first.after, first.kind) == ((), ("depth",), "cold")
        assert (first.mapped, first.dropped) == (bytes_of(depth), 0)
        assert (second.before, second.after, second.kind) == (("depth",), ("normals",), "cold")
        assert (second.mapped, second.dropped) == (bytes_of(normals - depth), bytes_of(depth - normals))
        assert (third.kind, third.mapped, third.dropped) == ("warm", second.dropped, second.mapped)
        assert all(s.seconds > 0 for s in engine.switches)

    def test_leaving_a_task_unmaps_it(self, make: Any) -> None:
        engine = make()
        engine.activate("depth", "semseg")
        engine.activate("depth")
        assert engine._selection.weights.held == segments(engine.manifest.model, ["depth"])
        assert engine._selection.weights._leaving == []
        assert set(engine.residency().groups) == {"trunk", "depth", "experts"}

    @pytest.mark.parametrize("tasks", [("edge",), ("depth", "edge"), ("normals", "edge")])
    def test_a_failure_leaves_the_old_set_working(
        self, make: Any, tasks: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make()
        engine.activate("depth")
        held, before = engine._selection.weights.held, engine(FRAME)["depth"].map
        monkeypatch.setattr(Double, "fail_on", "edge")
        with pytest.raises(BackendError, match="no edge today"):
            engine.activate(*tasks)
        assert engine.active == ("depth",)
        assert engine._selection.weights.held == held
        assert len(engine.switches) == 1
        np.testing.assert_array_equal(engine(FRAME)["depth"].map, before)
        monkeypatch.setattr(Double, "fail_on", None)
        engine.activate(*tasks)
        assert engine._selection.weights._leaving == []

    def test_a_refused_budget_maps_nothing(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        need = engine.residency().mapped
        small = make(need)
        small.activate("depth")
        with pytest.raises(BudgetError, match="trunk .* = .* more than the memory budget"):
            small.activate("depth", "semseg")
        assert small.active == ("depth",)
        assert small._selection.weights.held == segments(small.manifest.model, ["depth"])

    @pytest.mark.parametrize(
        ("tasks", "words"),
        [
            (("dept",), r"no task 'dept' \(did you mean 'depth'\?\); it has semseg, depth, normals, edge"),
            (("xyz",), "no task 'xyz'; it has"),
            ((), "activate needs a task: semseg"),
            ((3,), "no task 3"),
            ((["depth"],), "no task"),
        ],
    )
    def test_tasks_that_are_none(self, make: Any, tasks: Any, words: str) -> None:
        with pytest.raises(TaskError, match=words):
            make().activate(*tasks)


class TestCall:
    def test_no_active_task(self, make: Any) -> None:
        with pytest.raises(TaskError, match="no task is active; call engine.activate with one of semseg"):
            make()(FRAME)

    def test_colour_order_by_engine_and_by_call(self, make: Any) -> None:
        engine, frame = make(), np.arange(24 * 40 * 3, dtype=np.uint8).reshape(24, 40, 3)
        engine.activate("depth")
        assert engine(frame)["depth"].color == "rgb"
        assert engine(frame[..., ::-1], color="bgr")["depth"].color == "bgr"
        rgb, bgr = runner(engine).inputs
        np.testing.assert_array_equal(rgb, bgr)
        with pytest.raises(FrameError, match="'rgb' or 'bgr', not 'grb'"):
            engine(frame, color="grb")

    def test_output(self, make: Any) -> None:
        engine = make()
        engine.activate("depth", "normals")
        out = engine(FRAME)
        assert len(out) == 2
        assert "depth" in out
        assert "semseg" not in out
        assert "ms>" in repr(out)
        with pytest.raises(TaskError, match="'semseg' was not active for this frame; active: depth, normals"):
            out["semseg"]
        assert out.timing.run == {"depth": 1.0, "normals": 1.0}
        assert out.timing.total == pytest.approx(2 + out.timing.preprocess + out.timing.postprocess)

    def test_results_are_the_callers_own(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        first = engine(FRAME)["depth"]
        keep = first.map.copy()
        engine(FRAME)["depth"].map[:] = -1
        np.testing.assert_array_equal(first.map, keep)

    @pytest.mark.parametrize(
        "image", [None, [1], np.zeros((3, 32, 64), np.float32), np.zeros((1, 3, 32, 64)), np.zeros((1, 3, 9, 9), "f4")]
    )
    def test_raw_refuses(self, make: Any, image: Any) -> None:
        engine = make()
        engine.activate("depth")
        with pytest.raises(FrameError, match=r"raw needs a float32 array of shape \(1, 3, 32, 64\)"):
            engine.raw(image)

    def test_a_mask_is_not_ignored(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        image = np.ma.masked_array(np.zeros((1, 3, 32, 64), np.float32), False)
        uses = [
            lambda: engine(np.ma.masked_equal(FRAME, 0)),
            lambda: engine.raw(np.ma.masked_equal(FRAME, 0)),
            lambda: engine.raw(image),
            lambda: engine(FRAME, out={"depth": np.ma.zeros((24, 40), np.float32)}),
        ]
        for use in uses:
            with pytest.raises(FrameError, match="masked"):
                use()

    def test_raw_takes_a_frame_too(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        for order in ("rgb", "bgr"):
            want = engine(FRAME, color=order)["depth"].raw
            np.testing.assert_array_equal(engine.raw(FRAME, color=order)["depth"], want)

    def test_no_map_can_stay_on_a_device_that_is_none(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        with pytest.raises(
            BackendError, match="has no GPU memory for maps to stay in: load the bundle with backend='tvm-"
        ):
            engine.raw(FRAME, on_device=True)

    def test_a_map_of_another_shape(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make()
        engine.activate("depth")
        monkeypatch.setattr(Double, "run", lambda *_: Ran({"depth": np.zeros((3, 8, 16), np.float32)}, {}))
        with pytest.raises(
            BackendError, match=r"'double' gave a map of shape \(3, 8, 16\) for 'depth', not \(1, 8, 16\)"
        ):
            engine(FRAME)

    def test_the_input_is_aligned(self, make: Any) -> None:
        engine = make()
        assert engine._preprocess.input.ctypes.data % 64 == 0

    def test_a_switch_waits_for_a_running_frame(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine, inside, go = make(), threading.Event(), threading.Event()
        engine.activate("depth")
        real = Double.run

        def slow(self: Double, image: Any, tasks: Sequence[str]) -> Ran:
            inside.set()
            assert go.wait(5)
            return real(self, image, tasks)

        monkeypatch.setattr(Double, "run", slow)
        caller = threading.Thread(target=engine, args=(FRAME,))
        caller.start()
        assert inside.wait(5)
        others = [threading.Thread(target=f) for f in (lambda: engine.activate("edge"), engine.residency)]
        for t in others:
            t.start()
        others[0].join(0.05)
        assert all(t.is_alive() for t in others)
        assert runner(engine).log == ["+depth"]
        go.set()
        for t in (caller, *others):
            t.join(5)
            assert not t.is_alive()

    def test_one_at_a_time(self, make: Any) -> None:
        """Switching while other threads call: every result belongs to a whole set."""
        engine = make()
        engine.activate("depth", "semseg")
        seen, stop = [], threading.Event()

        def calls() -> None:
            while not stop.is_set():
                seen.append(tuple(engine(FRAME)))

        threads = [threading.Thread(target=calls) for _ in range(2)]
        for t in threads:
            t.start()
        for i in range(40):
            engine.activate(*(("normals",) if i % 2 else ("depth", "semseg")))
        stop.set()
        for t in threads:
            t.join()
        assert set(seen) <= {("depth", "semseg"), ("normals",)}
        assert seen


class TestFile:
    """Damage to the file, and changes of it, while an engine has it open."""

    @pytest.mark.parametrize("how", ["activate", "prepare", "mend"])
    def test_written_to(self, make: Any, plain: Path, how: str) -> None:
        engine = make()
        engine.activate("depth")
        with open(plain, "r+b") as f:
            f.write(b"P")
        os.utime(plain, ns=(0, 0))
        engine._selection.whole = how != "mend"
        with pytest.raises(BundleError, match="has been written to while it was in use"):
            getattr(engine, how if how != "mend" else "activate")("semseg")
        assert engine.active == ("depth",)

    def test_replaced_by_renaming(self, make: Any, plain: Path, tmp_path: Path) -> None:
        engine = make()
        engine.activate("depth")
        (tmp_path / "new").write_bytes(b"another")
        os.replace(tmp_path / "new", plain)
        engine.activate("semseg")
        assert list(engine(FRAME)) == ["semseg"]

    def test_a_flipped_bit_is_found_when_its_part_is_mapped(self, make: Any, plain: Path) -> None:
        with Bundle.open(plain) as bundle:
            place = bundle.parts["task.semseg"]["head.out"]
        data = bytearray(plain.read_bytes())
        data[place.offset] ^= 16
        plain.write_bytes(data)
        careless, engine = make(), make()
        careless.activate("semseg")  # without a word
        engine._bundle.verify_when_used()
        engine.activate("depth")
        held = engine._selection.weights.held
        for switch in (engine.activate, engine.prepare):
            with pytest.raises(BundleError, match=r"weights 'task.semseg' are damaged, they differ from their SHA-256"):
                switch("semseg")
        assert engine._selection.weights.held == held
        engine.activate("normals")
        assert list(engine(FRAME)) == ["normals"]
        for verify, words in (("mapped", "'task.semseg' are damaged"), ("all", 'verify is "mapped" or None')):
            with pytest.raises(EdgeMTLError, match=words):
                edgemtl.load(plain, "torch", tasks="semseg", verify=verify)  # type: ignore[arg-type]


class TestEnd:
    def test_close_unmaps_and_can_be_repeated(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        out = engine(FRAME)
        engine.close()
        engine.close()
        assert engine._selection.weights.ranges() == []
        assert out["depth"].map.shape == (24, 40)
        assert "closed" in repr(engine)
        for use in (lambda: engine(FRAME), lambda: engine.activate("depth"), engine.residency):
            with pytest.raises(EdgeMTLError, match="this engine has been closed"):
                use()

    def test_context_manager(self, make: Any) -> None:
        with make() as engine:
            engine.activate("depth")
        with pytest.raises(EdgeMTLError, match="closed"):
            engine(FRAME)


class TestLoad:
    @pytest.mark.parametrize(
        ("options", "kind", "words"),
        [
            ({"threads": 0}, EdgeMTLError, "threads must be"),
            ({"threads": "2"}, EdgeMTLError, "threads must be"),
            ({"memory_budget": "lots"}, BudgetError, "write it like 48MB"),
            ({"memory_budget": "1kB", "tasks": "depth"}, BudgetError, "more than the memory budget"),
            ({"color": "grb"}, FrameError, "'rgb' or 'bgr'"),
            ({"tasks": ["sky"]}, TaskError, "no task 'sky'"),
            ({"backend": "torhc"}, BackendError, r"did you mean 'torch'\?\); this edgemtl has tvm-cpu"),
        ],
    )
    def test_refused(self, plain: Path, options: dict[str, Any], kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            edgemtl.load(plain, **{"backend": "torch", **options})

    def test_nothing_stays_open_after_a_failure(self, plain: Path) -> None:
        fds = Path("/proc/self/fd")
        before = len(list(fds.iterdir()))
        for options in ({"backend": "nope"}, {"backend": "torch", "tasks": ["sky"]}):
            with pytest.raises(EdgeMTLError):
                edgemtl.load(plain, **options)
        assert len(list(fds.iterdir())) == before

    def test_not_a_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="there is no such file"):
            edgemtl.load(tmp_path / "x.edgemtl")

    def test_tasks_as_one_string(self, plain: Path) -> None:
        with edgemtl.load(plain, "torch", tasks="depth", threads=1) as engine:
            assert engine.active == ("depth",)
            assert engine.threads == 1
            assert engine.backend == "torch"
            assert engine.program is None
            assert "was asked for" in engine.why


class TestSwitchRecord:
    def test_penalty_is_known_after_three_later_frames(self) -> None:
        switch = Switch((), ("depth",), "cold")
        for ms in (50.0, 10.0, 12.0):
            switch.frame(ms)
            assert switch.first_frame_penalty_ms is None
        switch.frame(11.0)
        assert switch.first_frame_penalty_ms == 39.0
        assert switch.as_dict()["first_frame_penalty_ms"] == 39.0

    def test_frames_count_for_the_latest_switch(self, make: Any) -> None:
        engine = make()
        engine.activate("depth")
        for _ in range(5):
            engine(FRAME)
        engine.activate("normals")
        first, second = engine.switches
        assert first.first_frame_penalty_ms is not None
        assert second.first_frame_ms is None
        engine(FRAME)
        assert second.first_frame_ms is not None


def test_old_switches_are_forgotten(bundle: Path) -> None:
    """An engine that runs for months keeps the last ones only."""
    from edgemtl.runtime.selection import KEPT_SWITCHES

    with edgemtl.load(bundle, tasks="depth") as engine:
        for _ in range(KEPT_SWITCHES):
            engine.activate("edge")
            engine.activate("depth")
        assert len(engine.switches) == KEPT_SWITCHES
