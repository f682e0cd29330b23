"""Many frames: memory stays, results stay, and a frame whose outputs have a place allocates nothing."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import endurance
import numpy as np
import pytest

import edgemtl
from edgemtl.errors import BackendError, FrameError, TaskError

COUNTER = r"""
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
static atomic_long large;
enum { kLarge = 1024 };  /* bytes: Python's own small objects stay below, every tensor of the test is above */
long large_allocations(void) { return large; }
#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define COUNT(size) if ((size) >= kLarge) ++large
void *malloc(size_t n) { NEXT(malloc); COUNT(n); return next(n); }
void *realloc(void *p, size_t n) { NEXT(realloc); COUNT(n); return next(p, n); }
void *aligned_alloc(size_t a, size_t n) { NEXT(aligned_alloc); COUNT(n); return next(a, n); }
int posix_memalign(void **p, size_t a, size_t n) { NEXT(posix_memalign); COUNT(n); return next(p, a, n); }
void *mmap(void *p, size_t n, int a, int b, int c, off_t d) { NEXT(mmap); COUNT(n); return next(p, n, a, b, c, d); }
"""

CHILD = """
import ctypes, sys, numpy as np, edgemtl
count = ctypes.CDLL(None).large_allocations
with edgemtl.load(sys.argv[1], "tvm-cpu", tasks=["depth", "edge"], threads=2) as engine:
    config = engine.manifest.model
    image = np.zeros((1, 3, *config.image_size), np.float32)
    out = {t: np.empty((config.task(t).channels, *config.map_size), np.float32) for t in engine.active}
    for _ in range(20):
        engine.raw(image, out=out)
    before = count()
    for _ in range(100):
        engine.raw(image, out=out)
    print(count() - before)
    before, wide = count(), [np.empty(2000, np.uint8) for _ in range(10)]
    print(count() - before)
"""


@pytest.fixture
def programs(bundle: Path) -> Path:
    """The micro bundle, where it has native programs."""
    pytest.importorskip("tvm")
    if not shutil.which("g++"):
        pytest.skip("needs: apt-get install g++")
    return bundle


def test_a_frame_with_a_place_for_its_maps_allocates_nothing(programs: Path, tmp_path: Path) -> None:
    """Counted by an interposed allocator, in a process of its own, which also shows that it does count."""
    (tmp_path / "count.c").write_text(COUNTER)
    library = tmp_path / "count.so"
    command = ["gcc", "-O1", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "count.c"), "-ldl"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(programs)],
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "10"]


def test_a_thousand_frames_with_random_switches(programs: Path) -> None:
    found = endurance.run(programs, 1000, threads=2, warmup=300)
    assert found.wrong == 0
    assert found.switches > 100
    assert found.good, found.sentence()
    assert "1000 frames" in found.sentence()


def test_a_wrong_result_and_growth_are_seen(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, number = edgemtl.Engine.raw, iter(range(10**6))
    kept: list[mmap.mmap] = []

    def leaky(self: edgemtl.Engine, image: Any, **more: Any) -> Any:
        kept.append(mmap.mmap(-1, 1 << 18))  # not from a heap, which may have room for it
        kept[-1].write(bytes([1]) * len(kept[-1]))
        maps = raw(self, image, **more)
        if next(number) == 70:
            maps[self.active[0]][0, 0, 0] += 1
        return maps

    monkeypatch.setattr(edgemtl.Engine, "raw", leaky)
    found = endurance.run(programs, 50, threads=1, warmup=40)
    assert not found.good
    assert found.wrong >= 1
    assert found.growth_mb is not None
    assert found.growth_mb > 10
    assert "NOT GOOD" in found.sentence()


@pytest.mark.slow
def test_ten_thousand_frames(programs: Path) -> None:
    found = endurance.run(programs, 10_000, threads=2)
    assert found.good, found.sentence()


@pytest.mark.parametrize("backend", ["tvm-cpu", "torch", "onnxruntime"])
def test_maps_go_where_the_caller_says(bundle: Path, backend: str) -> None:
    try:
        engine = edgemtl.load(bundle, backend)
    except BackendError as e:
        pytest.skip(str(e))
    with engine:
        config, frame = engine.manifest.model, np.random.default_rng(1).integers(0, 256, (30, 50, 3), np.uint8)
        image = np.random.default_rng(0).normal(size=(1, 3, *config.image_size)).astype(np.float32)
        engine.activate(*engine.tasks)
        raw, maps = engine.raw(image), engine(frame)
        place = {t: np.full_like(m, 7) for t, m in raw.items() if t != "edge"}
        got = engine.raw(image, out=place)
        for task in engine.tasks:
            assert (task == "edge") or got[task] is place[task]
            np.testing.assert_array_equal(got[task], raw[task])
        spots = {t: np.full_like(o.map, 7) for t, o in maps.items() if t != "edge"}
        again = engine(frame, out=spots)
        for task in engine.tasks:
            assert (task == "edge") or again[task].map is spots[task]
            np.testing.assert_array_equal(again[task].map, maps[task].map)


def test_maps_that_are_kept_do_not_change(bundle: Path) -> None:
    """Without a place every frame has arrays of its own."""
    with edgemtl.load(bundle, tasks="depth") as engine:
        shape, rng = (1, 3, *engine.manifest.model.image_size), np.random.default_rng(0)
        images = [rng.normal(size=shape).astype(np.float32) for _ in range(3)]
        kept = [engine.raw(image)["depth"] for image in images]
        copies = [m.copy() for m in kept]
        for image in images[::-1]:
            engine.raw(image)
        for a, b in zip(kept, copies, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_place_that_does_not_fit_is_refused(bundle: Path) -> None:
    with edgemtl.load(bundle, tasks="depth") as engine:
        config, frame = engine.manifest.model, np.zeros((20, 30, 3), np.uint8)
        image, shape = np.zeros((1, 3, *config.image_size), np.float32), (1, *config.map_size)
        need = r"it must be like numpy\.empty\(\(1, 8, 16\), numpy\.float32\)"
        wrongs: list[tuple[Any, str]] = [
            (np.empty((2, *config.map_size), np.float32), r"is float32 \(2, 8, 16\); "),
            (np.empty(shape), r"is float64 \(1, 8, 16\); "),
            (
                np.empty((1, 8, 32), np.float32)[:, :, ::2],
                r"is float32 \(1, 8, 16\), masked, not contiguous or not writable; ",
            ),
            ([1.0], "is list; "),
        ]
        for wrong, said in wrongs:
            with pytest.raises(FrameError, match=rf"out\['depth'\] {said}{need}"):
                engine.raw(image, out={"depth": wrong})
        with pytest.raises(FrameError, match=r"like numpy\.empty\(\(20, 30\), numpy\.float32\)"):
            engine(frame, out={"depth": np.empty((30, 20), np.float32)})
        with pytest.raises(TaskError, match="out names 'semseg', which is not active; active: depth"):
            engine.raw(image, out={"semseg": np.empty(shape, np.float32)})
