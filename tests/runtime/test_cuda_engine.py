"""The backend tvm-cuda over an emulated GPU: device memory that follows the tasks, frames as graphs, and errors that
say what to do. Tensors that lie on the device are test_cuda_tensors.py's, the cases that every backend shares
tests/suite's.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.tvm_cuda import runs_on
from edgemtl.runtime.cuda import driver
from edgemtl.runtime.mapping import segments, sizes

TOLERANCE = 3e-3  # halves multiplied, float32 summed


def weights_of(path: Path, *tasks: str) -> int:
    with Bundle.open(path) as bundle:
        return sum(sizes(bundle, segments(bundle.manifest.model, tasks)).values())


def near(got: Any, want: Any) -> bool:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max()) < TOLERANCE


def test_it_says_which_program_and_why(load: Any) -> None:
    engine = load("depth")
    assert engine.program.target == "sm_90"
    assert engine.why == "tvm-cuda was asked for: sm_90, for this GPU, which is sm_90"


def test_every_golden(load: Any, cuda_bundle: Any) -> None:
    engine = load("semseg", "depth", "normals", "edge")
    with Bundle.open(cuda_bundle[1]) as bundle:
        inputs, outputs = bundle.golden()
    for name, image in inputs.items():
        got = engine.raw(image)
        assert all(near(got[task], outputs[task][name]) for task in outputs)


def test_device_memory_follows_the_tasks(load: Any, gpu16: Any, cuda_bundle: Any) -> None:
    path, engine = cuda_bundle[1], load("depth")
    one = engine.residency()
    assert (one.origin, one.exact) == ("device", True)
    assert one.resident == one.mapped == weights_of(path, "depth")
    engine.activate("depth", "semseg")
    before = gpu16.bytes
    engine.activate("depth")
    dropped = engine.switches[-1].dropped
    assert dropped == weights_of(path, "depth", "semseg") - weights_of(path, "depth") > 0
    assert gpu16.bytes > before - dropped  # a switch waits for nothing
    engine(np.zeros((32, 64, 3), np.uint8))
    after = gpu16.bytes
    assert dropped <= before - after <= dropped + 256  # and semseg's table of experts
    assert engine.residency().resident == weights_of(path, "depth")
    assert "(device)" in str(engine.residency())


def test_a_switch_uploads_only_what_is_missing(load: Any, cuda_bundle: Any) -> None:
    path, engine = cuda_bundle[1], load("depth")
    engine.raw(np.zeros((1, 3, 32, 64), np.float32))
    engine.activate("depth", "normals")
    switch = engine.switches[-1]
    assert switch.mapped == weights_of(path, "depth", "normals") - weights_of(path, "depth")
    assert switch.upload_ms is None  # nobody has waited for it yet
    engine(np.zeros((32, 64, 3), np.uint8))
    assert switch.upload_ms is not None
    assert switch.as_dict()["upload_ms"] > 0
    engine.activate("depth")
    engine(np.zeros((32, 64, 3), np.uint8))
    assert engine.switches[-1].upload_ms is None  # there was nothing to upload


def test_a_prepared_switch_uploads_nothing(load: Any, gpu16: Any, cuda_bundle: Any) -> None:
    path, engine = cuda_bundle[1], load("depth")
    engine.raw(np.zeros((1, 3, 32, 64), np.float32))
    engine.prepare("semseg")
    assert engine.residency().resident == weights_of(path, "depth", "semseg")
    engine.activate("semseg")
    engine(np.zeros((32, 64, 3), np.uint8))
    assert (engine.switches[-1].mapped, engine.switches[-1].upload_ms) == (0, None)
    assert engine.residency().resident == weights_of(path, "semseg")


def test_a_frame_is_one_graph_and_launches_never_depend_on_it(load: Any, gpu16: Any) -> None:
    engine = load("depth")
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 64)).astype(np.float32)

    def launches() -> list[int]:
        return [gpu16.launches(name) for name in ("norm_linear", "expert_up", "expert_down", "dispatch", "to_map")]

    counts = [launches()]
    for given in (image, 100 * image, np.zeros_like(image)):
        engine.raw(given)
        counts.append(launches())
    steps = [[b - a for a, b in zip(x, y, strict=True)] for x, y in itertools.pairwise(counts)]
    assert steps == [[4, 2, 2, 2, 1]] * 3
    assert len(engine._runner._frames._graphs) == 1


def test_the_graph_of_a_set_that_stayed_bound_is_used_again(load: Any) -> None:
    engine, image = load("depth"), np.ones((1, 3, 32, 64), np.float32)
    want = engine.raw(image)["depth"]
    frames = engine._runner._frames
    (first,) = frames._graphs.values()
    engine.activate("depth", "edge")
    both = engine.raw(image)
    engine.activate("depth")
    np.testing.assert_array_equal(engine.raw(image)["depth"], want)
    np.testing.assert_array_equal(both["depth"], want)
    assert list(frames._graphs.values()) == [first]  # edge's went with edge


def test_no_room_for_another_task(load: Any, gpu16: Any, cuda_bundle: Any) -> None:
    engine, image = load("depth"), np.ones((1, 3, 32, 64), np.float32)
    want, held = engine.raw(image)["depth"], gpu16.bytes
    gpu16.limit(held + 3000)
    try:
        with pytest.raises(BackendError, match=r"the GPU refuses \d+ bytes of GPU memory: out of memory"):
            engine.activate("depth", "semseg")
    finally:
        gpu16.limit(8 << 30)
    assert (engine.active, gpu16.bytes) == (("depth",), held)
    np.testing.assert_array_equal(engine.raw(image)["depth"], want)


def test_the_first_frame_after_a_switch_makes_no_graph(load: Any) -> None:
    engine, image = load("depth"), np.ones((1, 3, 32, 64), np.float32)
    frames = engine._runner._frames
    before = set(frames._graphs)
    engine.raw(image)
    assert set(frames._graphs) == before
    engine.activate("edge", "depth")
    before = set(frames._graphs)
    engine.raw(image)
    assert set(frames._graphs) == before


def test_a_callers_context_is_as_it_was(gpu16: Any, cuda_bundle: Any) -> None:
    """An application may be on another GPU."""
    lib, current, mine = driver.library(gpu16.path), ctypes.c_void_p(), ctypes.c_void_p(0x1234)
    lib.cuCtxPushCurrent_v2(mine)
    try:
        with edgemtl.load(cuda_bundle[1], "tvm-cuda", tasks=("depth",)) as engine:
            engine.raw(np.ones((1, 3, 32, 64), np.float32))
            engine.activate("edge")
            held = engine.raw(np.ones((1, 3, 32, 64), np.float32), on_device=True)
            engine.residency()
        del held
        lib.cuCtxGetCurrent(ctypes.byref(current))
        assert current.value == mine.value
    finally:
        lib.cuCtxPopCurrent_v2(ctypes.byref(current))
    lib.cuCtxGetCurrent(ctypes.byref(current))
    assert current.value is None or current.value != mine.value


def test_after_a_fault_the_rest_is_still_given_back(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load("depth")

    def fault(stream: int) -> None:
        raise BackendError("the GPU refuses cuStreamSynchronize: an illegal address (CUDA error 700)")

    closed: list[str] = []
    runner = engine._runner
    with monkeypatch.context() as m:
        m.setattr(runner._driver, "synchronize", fault)
        m.setattr(runner._driver, "close", lambda: closed.append("driver"))
        with pytest.raises(BackendError, match="illegal address"):
            engine.close()
    assert closed == ["driver"]
    runner._closed = False  # what it could not give back, for the count of the fixture
    runner.close()


def test_a_program_for_another_gpu_asked_for_by_name(
    cuda_bundle: Any, gpu16: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "architecture", lambda *_: "sm_120")
    with pytest.raises(BackendError, match="cannot run here: this GPU is sm_120"):
        edgemtl.load(cuda_bundle[1], "tvm-cuda", program="sm_90")


def test_from_several_threads(load: Any) -> None:
    engine, image, maps = load("depth"), np.ones((1, 3, 32, 64), np.float32), []
    threads = [threading.Thread(target=lambda: maps.append(engine.raw(image)["depth"])) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(np.array_equal(m, engine.raw(image)["depth"]) for m in maps)
    assert len(maps) == 3


def test_a_forgotten_engine_gives_its_memory_back(gpu16: Any, cuda_bundle: Any) -> None:
    before = gpu16.bytes
    engine = edgemtl.load(cuda_bundle[1], "tvm-cuda", tasks="depth")
    engine.raw(np.zeros((1, 3, 32, 64), np.float32))
    assert gpu16.bytes > before
    del engine
    gc.collect()
    assert gpu16.bytes == before


def test_no_driver(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnowhere.so")
    with pytest.raises(BackendError, match=r"'tvm-cuda' cannot be used here: there is no NVIDIA driver .* install the"):
        edgemtl.load(plain, "tvm-cuda")


def test_a_bundle_without_a_program(plain: Path, gpu16: Any) -> None:
    with pytest.raises(BackendError, match="holds no program for backend 'tvm-cuda'"):
        edgemtl.load(plain, "tvm-cuda")


def test_a_bundle_for_other_gpus(cuda_bundle: Any, gpu16: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "architecture", lambda *_: "sm_120")
    have = "this GPU is sm_120, the bundle has programs for sm_87, sm_90"
    with pytest.raises(BackendError, match=f"{have}: edgemtl compile --target cuda --arch sm_120"):
        edgemtl.load(cuda_bundle[1], "tvm-cuda")


@pytest.mark.parametrize(
    ("target", "here", "good"),
    [
        ("sm_90", "sm_90", True),
        ("sm_80", "sm_89", True),
        ("sm_89", "sm_80", False),  # newer than the GPU
        ("sm_80", "sm_90", False),  # another major version
        ("sm_87", "sm_89", False),  # a Jetson's
        ("sm_80", "sm_87", False),
        ("sm_87", "sm_87", True),
        ("sm_100", "sm_100", True),
    ],
)
def test_which_code_runs_where(target: str, here: str, good: bool) -> None:
    assert runs_on(target, here) == good


def test_the_command_verify_uses_the_wider_tolerance(cli: Any, cuda_bundle: Any, gpu16: Any) -> None:
    said = cli("verify", cuda_bundle[1], "--backend", "tvm-cuda")
    assert said.code == 0
    assert "at most 0.0001 (tvm-cuda: 0.05)" in said.out
    assert "WRONG" not in said.out
