"""The same cases for every backend: what an engine promises, whoever does the arithmetic.

A case is left out for a backend only by an entry in IGNORE, with its reason. A backend that is not installed, or for
which the test bundle could not be compiled here, is skipped with that reason. Raw maps are PyTorch's within TOLERANCE;
those of an accelerator, whose arithmetic is another, are the integer reference's bits.
"""

from __future__ import annotations

import importlib.util
import itertools
import mmap
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import emulated_gpu
import numpy as np
import pytest

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BudgetError, FrameError, TaskError
from edgemtl.fpga import program
from edgemtl.runtime import backends
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.mapping import segments, sizes

INTEGERS = ("fpga-sim", *(("fpga",) if importlib.util.find_spec("pynq") else ()))
BACKENDS = ("tvm-cpu", "tvm-cuda", "torch", "onnxruntime", *INTEGERS)
IGNORE = {
    ("torch", "residency"): "it unpacks its own copies of the weights; nothing is mapped",
    ("onnxruntime", "residency"): "every session has its own copy of its weights; nothing is mapped",
    ("onnxruntime", "spoiled weights"): "its models hold weights of their own; the compiler's tests look into them",
    ("onnxruntime", "prefix"): "each task is a whole model; it has no shared prefix",
    **{
        (name, case): reason
        for name in INTEGERS
        for case, reason in {
            "residency": "its weights are in the board's memory; nothing is mapped",
            "spoiled weights": "its integers are in a weight image of their own; tests/fpga looks into it",
            "prefix": "the accelerator runs a whole frame per task",
        }.items()
    },
}
IGNORE["fpga", "process"] = "one process at a time drives a board"
if emulated_gpu.WANTED:
    IGNORE["tvm-cuda", "process"] = "the emulated GPU is in the tests' own process only"
TASKS = ("semseg", "depth", "normals", "edge")
TOLERANCE = 2e-5  # of the largest value; float32 sums in another order


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name = str(request.param)
    case = request.node.get_closest_marker("case")
    for key in case.args if case else ():
        if reason := IGNORE.get((name, key)):
            pytest.skip(f"{name}: {reason}")
    try:
        reason = backends.find(name).unusable()
    except BackendError as e:
        reason = str(e)
    if reason:
        pytest.skip(f"{name}: {reason}")
    if name == "fpga-sim":
        monkeypatch.setenv("EDGEMTL_CACHE", str(request.getfixturevalue("simulation_cache")))
    return name


@pytest.fixture
def subject(backend: str, request: pytest.FixtureRequest) -> Path:
    """The bundle that the backend runs; not to be changed."""
    path = Path(request.getfixturevalue("integer_bundle" if backend in INTEGERS else "bundle"))
    try:
        with Bundle.open(path) as opened:
            backends.usable(backend, opened)
    except BackendError as e:
        pytest.skip(str(e))
    return path


@pytest.fixture
def load(backend: str, subject: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(*tasks: str, **options: Any) -> Engine:
        made.append(edgemtl.load(subject, backend, tasks=tasks or None, **{"threads": 1, **options}))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def frame(height: int = 48, width: int = 80, seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


Right = Callable[[Any, str, str], bool]


@pytest.fixture
def right(backend: str, subject: Path, micro: Any) -> Right:
    """Whether a raw map is that of a task for one of `micro.inputs`, by name."""

    def near(got: Any, task: str, name: str) -> bool:
        want = micro.outputs[task][name]
        assert got.shape == want.shape
        assert got.dtype == np.float32
        return float(np.abs(got - want).max() / np.abs(want).max()) < TOLERANCE

    def equal(got: Any, task: str, name: str) -> bool:
        with Bundle.open(subject) as opened:
            unit = program.load(opened).units[micro.config.task_names.index(task)]
            want = program.golden(opened).maps[task][sorted(micro.inputs).index(name)]
        assert got.dtype == np.float32
        return bool(np.array_equal(got, want.transpose(2, 0, 1) * np.float32(unit)))

    return equal if backend in INTEGERS else near


@pytest.mark.parametrize("task", TASKS)
def test_goldens(load: Any, right: Right, micro: Any, task: str) -> None:
    """The slice that runs gives what PyTorch's full model gave."""
    engine = load(task)
    for name, image in micro.inputs.items():
        assert right(engine.raw(image)[task], task, name)


@pytest.mark.parametrize("pair", list(itertools.permutations(TASKS, 2)))
def test_two_tasks_equal_each_alone(load: Any, micro: Any, pair: tuple[str, str]) -> None:
    together = load(*pair).raw(micro.inputs["0"])
    assert tuple(together) == pair
    for task in pair:
        np.testing.assert_array_equal(together[task], load(task).raw(micro.inputs["0"])[task])


def test_all_tasks_at_once(load: Any, right: Right, micro: Any) -> None:
    got = load(*TASKS).raw(micro.inputs["1"])
    for task in TASKS:
        assert right(got[task], task, "1")


def test_a_switch_equals_a_fresh_load(load: Any, micro: Any) -> None:
    """Bit for bit, whatever was active before."""
    engine, image = load(), micro.inputs["0"]
    fresh = {task: load(task).raw(image)[task] for task in TASKS}
    for tasks in [("depth",), ("semseg",), ("depth", "edge"), ("edge",), ("normals", "semseg"), ("depth",)]:
        engine.activate(*tasks)
        for task, raw in engine.raw(image).items():
            np.testing.assert_array_equal(raw, fresh[task])
    kinds = [s.kind for s in engine.switches]
    assert kinds == ["cold", "cold", "cold", "warm", "cold", "warm"]


def test_the_same_frame_gives_the_same_bits(load: Any, micro: Any) -> None:
    engine = load("semseg")
    first = engine.raw(micro.inputs["0"])["semseg"]
    engine.raw(micro.inputs["1"])
    np.testing.assert_array_equal(engine.raw(micro.inputs["0"])["semseg"], first)


def test_results_are_the_callers_own(load: Any, micro: Any) -> None:
    engine = load("depth")
    first = engine.raw(micro.inputs["0"])["depth"]
    keep = first.copy()
    for name in ("1", "0", "1"):
        engine.raw(micro.inputs[name])
    np.testing.assert_array_equal(first, keep)
    engine.activate("normals")
    engine.close()
    np.testing.assert_array_equal(first, keep)
    first[:] = 0  # and writable


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (32, 64), (31, 65), (240, 480), (300, 7)])
def test_frames_of_any_size(load: Any, size: tuple[int, int]) -> None:
    out = load(*TASKS)(frame(*size))
    assert {(n, t.map.shape, t.map.dtype.name) for n, t in out.items()} == {
        ("semseg", size, "uint8"),
        ("depth", size, "float32"),
        ("normals", (*size, 3), "float32"),
        ("edge", size, "float32"),
    }
    assert out["semseg"].map.max() < 13
    assert out["depth"].map.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(out["normals"].map, axis=-1), 1, atol=1e-5)
    assert 0 <= out["edge"].map.min() <= out["edge"].map.max() <= 1
    for t in out.values():
        assert t.colour().shape == t.overlay(frame(*size)).shape == (*size, 3)


def test_rgb_and_bgr(load: Any) -> None:
    engine, f = load("depth", "normals"), frame()
    rgb, bgr = engine(f), engine(np.ascontiguousarray(f[..., ::-1]), color="bgr")
    for task in rgb:
        np.testing.assert_array_equal(rgb[task].map, bgr[task].map)
        np.testing.assert_array_equal(rgb[task].colour(), bgr[task].colour()[..., ::-1])
    assert not np.array_equal(engine(f, color="bgr")["depth"].map, rgb["depth"].map)


def test_strided_frames(load: Any) -> None:
    engine, f = load("depth"), frame()
    want = engine(f)["depth"].map
    for strange in (np.asfortranarray(f), np.repeat(f, 2, 0)[::2], np.ascontiguousarray(f[::-1])[::-1]):
        np.testing.assert_array_equal(engine(strange)["depth"].map, want)


def test_an_unaligned_input(load: Any, micro: Any) -> None:
    engine, image = load("edge"), micro.inputs["0"]
    raw = np.zeros(image.nbytes + 4, np.uint8)
    moved = raw[4:].view(np.float32).reshape(image.shape)
    moved[:] = image
    assert moved.ctypes.data % 64
    np.testing.assert_array_equal(engine.raw(moved)["edge"], engine.raw(image)["edge"])
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    np.testing.assert_array_equal(engine.raw(flipped)["edge"], engine.raw(image)["edge"])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_map_much(load: Any, right: Right, micro: Any, threads: int) -> None:
    got = load("normals", threads=threads).raw(micro.inputs["0"])["normals"]
    assert right(got, "normals", "0")


def test_timing(load: Any) -> None:
    timing = load("depth", "edge")(frame()).timing
    assert {"depth", "edge"} <= set(timing.run) <= {"prefix", "depth", "edge"}
    assert all(ms > 0 for ms in (*timing.run.values(), timing.preprocess, timing.postprocess))


@pytest.mark.case("prefix")
def test_the_prefix_runs_once(load: Any) -> None:
    assert list(load("depth", "edge")(frame()).timing.run) == ["prefix", "depth", "edge"]


def test_capabilities_are_true(load: Any, backend: str) -> None:
    """Each cell of the table against the engine itself."""
    cells = backends.find(backend).CAPABILITIES
    engine = load("depth", "edge")
    out, residency = engine(frame()), engine.residency()
    assert (cells["shared prefix"].verdict == "yes") == ("prefix" in out.timing.run)
    assert (cells["residency"].verdict == "yes") == (residency.origin in ("smaps", "device"))
    mapped = any(str(engine._bundle.path) in line for line in Path("/proc/self/maps").read_text().splitlines())
    assert (cells["mapped weights"].verdict == "yes") == mapped
    assert cells["sparse experts"].verdict == "sparse-kept"


def spoiled(bundle: Path, out: Path, keep: Callable[[str, str], bool]) -> Path:
    """A copy of the bundle in which every weight that `keep(part, tensor)` is false for is not a number."""
    data, count = bytearray(bundle.read_bytes()), 0
    with Bundle.open(bundle) as opened:
        for part, places in opened.parts.items():
            for name, place in places.items():
                if not keep(part, name):
                    data[place.offset : place.offset + place.size] = b"\xff" * place.size
                    count += 1
    assert count
    out.write_bytes(data)
    return out


@pytest.mark.case("spoiled weights")
def test_weights_of_other_tasks_are_not_read(
    load: Any, backend: str, subject: Path, micro: Any, tmp_path: Path
) -> None:
    """Whatever depth's path leaves out may be rubbish."""
    needed = segments(micro.config, ["depth"])

    def keep(part: str, tensor: str) -> bool:
        return any(s.part == part and s.tensor in ("", tensor) for s in needed)

    path = spoiled(subject, tmp_path / "spoiled.edgemtl", keep)
    with edgemtl.load(path, backend, tasks="depth", threads=1) as engine:
        got = engine.raw(micro.inputs["0"])["depth"]
    np.testing.assert_array_equal(got, load("depth").raw(micro.inputs["0"])["depth"])


@pytest.mark.case("spoiled weights")
def test_experts_that_no_token_chose_are_not_run(
    load: Any, backend: str, subject: Path, micro: Any, tmp_path: Path
) -> None:
    """On the path, but unchosen for this image: a dense evaluation would multiply rubbish by zero, and show it."""
    image, idle = micro.unchosen()
    path = spoiled(subject, tmp_path / "spoiled.edgemtl", lambda part, name: (part, name) not in idle)
    with edgemtl.load(path, backend, tasks="edge", threads=1) as engine:
        got = engine.raw(image)["edge"]
    np.testing.assert_array_equal(got, load("edge").raw(image)["edge"])


@pytest.mark.case("residency")
def test_residency_follows_the_tasks(load: Any) -> None:
    engine = load("depth", "semseg")
    engine(frame())
    both = engine.residency()
    engine.activate("depth")
    engine(frame())
    one = engine.residency()
    assert (both.origin, both.exact) == ("smaps" if backends.find(engine.backend).maps else "device", True)
    assert set(both.groups) == {"trunk", "depth", "semseg", "experts"}
    assert set(one.groups) == {"trunk", "depth", "experts"}
    assert one.resident < both.resident <= both.mapped <= both.model + 99 * mmap.PAGESIZE
    assert one.groups["experts"].resident < both.groups["experts"].resident
    assert one.groups["trunk"].resident == both.groups["trunk"].resident > 0
    engine.close()
    assert str(engine._bundle.path) not in Path("/proc/self/maps").read_text()


def test_a_prepared_switch_gives_the_same_maps(load: Any, micro: Any) -> None:
    engine, image = load("depth"), micro.inputs["0"]
    before, want = engine.raw(image)["depth"], load("semseg").raw(image)["semseg"]
    engine.prepare("semseg")
    np.testing.assert_array_equal(engine.raw(image)["depth"], before)
    engine.activate("semseg")
    np.testing.assert_array_equal(engine.raw(image)["semseg"], want)


@pytest.mark.case("residency")
def test_a_prepared_switch_finds_its_weights(load: Any) -> None:
    engine = load("depth")
    engine(frame())
    engine.prepare("semseg")
    assert set(engine.residency().groups) == {"trunk", "depth", "semseg", "experts"}
    engine.activate("semseg")
    found = engine.residency()
    assert set(found.groups) == {"trunk", "semseg", "experts"}
    assert found.resident == found.mapped  # before its first frame
    assert engine.switches[-1].mapped == 0


@pytest.mark.case("residency")
def test_switches_tell_the_bytes(load: Any, micro: Any) -> None:
    engine = load("depth")
    engine.activate("normals")
    first, second = engine.switches
    assert first.mapped == sum(sizes(engine._bundle, segments(micro.config, ["depth"])).values())
    old, new = segments(micro.config, ["depth"]), segments(micro.config, ["normals"])
    assert second.mapped == sum(sizes(engine._bundle, new - old).values())
    assert second.dropped == sum(sizes(engine._bundle, old - new).values())


def test_residency_is_never_invented(load: Any, backend: str) -> None:
    engine = load("depth")
    found = engine.residency()
    if backends.find(backend).CAPABILITIES["residency"].verdict != "yes":
        assert (found.origin, found.resident) == ("not measured", None)
        assert engine.switches[0].mapped is None
    assert found.model > 0


def test_budget(load: Any, right: Right, micro: Any) -> None:
    engine = load()
    need = sum(sizes(engine._bundle, segments(micro.config, ["depth"])).values())
    fits = load("depth", memory_budget=need)
    with pytest.raises(BudgetError, match=r"trunk .* \+ .* = .* more than the memory budget"):
        fits.activate("depth", "normals")
    assert right(fits.raw(micro.inputs["0"])["depth"], "depth", "0")
    with pytest.raises(BudgetError):
        load("depth", memory_budget=need - 1)


def test_errors_leave_the_engine_working(load: Any, right: Right, micro: Any) -> None:
    engine = load("depth")
    for bad in (None, np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(FrameError):
            engine(bad)
    with pytest.raises(TaskError):
        engine.activate("sky")
    assert right(engine.raw(micro.inputs["0"])["depth"], "depth", "0")


def test_two_engines_side_by_side(load: Any, micro: Any) -> None:
    a, b = load("depth"), load("depth", "semseg")
    want = a.raw(micro.inputs["0"])["depth"]
    np.testing.assert_array_equal(b.raw(micro.inputs["0"])["depth"], want)
    b.close()
    np.testing.assert_array_equal(a.raw(micro.inputs["0"])["depth"], want)


@pytest.mark.case("process")
def test_a_forgotten_engine_ends_quietly(load: Any, backend: str, subject: Path) -> None:
    """Collected without `close`, in the middle and at the end of a process, after calls and switches."""
    code = (
        "import edgemtl, numpy as np, gc\n"
        f"def go():\n    e = edgemtl.load({str(subject)!r}, {backend!r}, tasks='depth', threads=2)\n"
        "    e(np.zeros((9, 9, 3), np.uint8)); e.activate('edge'); e(np.zeros((9, 9, 3), np.uint8)); return e\n"
        "go(); gc.collect()\n"
        f"assert {subject.name!r} not in open('/proc/self/maps').read()\n"
        "kept = go()\nprint('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
