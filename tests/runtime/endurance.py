"""Many frames with random switches of the active tasks: does memory grow, does any result change?

Each frame is one of a few images; now and then the active tasks change, to one task or several. Every raw map must
have the bits of the first map of the same task and image, whatever else is active: nothing of a frame may leak into
another. Memory is compared in equal states: the same tasks active, every image just run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemtl.bench import machine
from edgemtl.media.preprocess import Array
from edgemtl.runtime.engine import Engine, load

IMAGES = 4
STAY = 5  # frames between switches, on average
GROWTH_MB = 1.0  # allowed


@dataclass(frozen=True)
class Endurance:
    """What a run found. growth_mb: resident memory at the end less after the warm-up; None: not known.

    anonymous_mb: the part of it that no file backs. The kernel may drop and bring back pages of files and libraries as
    it likes; what a program leaks is here.
    """

    backend: str
    frames: int
    switches: int
    wrong: int
    growth_mb: float | None
    seconds: float
    anonymous_mb: float | None = None

    @property
    def good(self) -> bool:
        return self.wrong == 0 and (self.growth_mb is None or self.growth_mb <= GROWTH_MB)

    def sentence(self) -> str:
        """The figures in one line."""
        grown = "not measured" if self.growth_mb is None else f"{self.growth_mb:+.2f} MB (measured, VmRSS)"
        if self.anonymous_mb is not None:
            grown += f", of it {self.anonymous_mb:+.2f} MB anonymous"
        return (
            f"{self.frames} frames and {self.switches} switches on {self.backend} in {self.seconds:.0f} s:"
            f" {self.wrong} wrong results, resident memory {grown}: {'good' if self.good else 'NOT GOOD'}"
            f" (allowed: none, and {GROWTH_MB:g} MB)"
        )


def run(
    bundle: Path, frames: int, *, threads: int, backend: str = "tvm-cpu", warmup: int = 200, seed: int = 0
) -> Endurance:
    """Run `frames` frames of noise through `bundle` after `warmup` others that make room for all that is kept."""
    rng = np.random.default_rng(seed)
    with load(bundle, backend, threads=threads) as engine:
        config = engine.manifest.model
        images = [rng.normal(size=(1, 3, *config.image_size)).astype(np.float32) for _ in range(IMAGES)]
        places = {t.name: np.empty((t.channels, *config.map_size), np.float32) for t in config.tasks}
        first: dict[tuple[str, int], Array] = {}

        def frame(number: int) -> int:
            """Results that are wrong."""
            raw = engine.raw(images[number], out={t: places[t] for t in engine.active})
            for task, found in raw.items():
                if (task, number) not in first:
                    first[task, number] = found.copy()
            return sum(not np.array_equal(found, first[task, number]) for task, found in raw.items())

        def settle() -> dict[str, int]:
            """Bytes of memory in a state that can be come back to."""
            engine.activate(*engine.tasks)
            for number in range(IMAGES):
                frame(number)
            engine.activate(engine.tasks[0])
            frame(0)
            engine.activate(*engine.tasks[:2])
            frame(0)
            return machine.memory()

        wrong = 0
        for _ in range(warmup):
            _switch(engine, rng)
            wrong += frame(int(rng.integers(IMAGES)))
        before, switches, start = settle(), 0, time.perf_counter()
        for _ in range(frames):
            switches += _switch(engine, rng)
            wrong += frame(int(rng.integers(IMAGES)))
        seconds, after = time.perf_counter() - start, settle()
    growth = {kind: (after[kind] - before[kind]) / 1e6 for kind in before.keys() & after.keys()}
    found = growth.get("resident"), growth.get("anonymous")
    return Endurance(backend, frames, switches, wrong, found[0], seconds, found[1])


def _switch(engine: Engine, rng: np.random.Generator) -> bool:
    """Now and then, and when none is active, other tasks; whether it did."""
    if engine.active and rng.integers(STAY):
        return False
    count = int(rng.integers(1, len(engine.tasks) + 1)) if rng.integers(3) == 0 else 1
    before = engine.active
    engine.activate(*rng.choice(engine.tasks, count, replace=False))
    return set(engine.active) != set(before)
