"""What a change of the task costs: time, bytes and memory, frame by frame, for edgemtl and for its peers.

A peer has one model per task, and two ways to change: "swap" closes one and opens the other, "keep" opens each once and
holds them all. edgemtl has one bundle, of which the active task's weights alone are mapped. Every engine walks through
the tasks twice: the first visit of a task is cold, the second warm.

`python -m edgemtl.bench.switching JSON` is the child: one engine and policy, one JSON line.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import ProcessError, child

Policy = Literal["active", "swap", "keep"]
STAY = 12  # frames per visit


@dataclass(frozen=True)
class Walk:
    """All visits of one engine; without any, `failure` says why. A visit is one stay at a task:

    task, and kind: "cold" or "warm". switch_ms: from one task's last frame to the first of this, that frame left out.
    penalty_ms: the first frame less the median of the others. bytes: of weights mapped, or of the model's files read.
    resident: bytes of the process's memory at the end of the stay, less before anything was loaded; of files mapped,
    what is in memory counts. weights: of it mapped weights (smaps), None where the engine cannot tell.
    """

    engine: str
    policy: Policy
    visits: Sequence[Mapping[str, Any]] = ()
    failure: str | None = None

    @property
    def name(self) -> str:
        """What a reader calls it."""
        return self.engine if self.policy == "active" else f"{self.engine}, {WORDS[self.policy]}"


WORDS: Mapping[Policy, str] = {"active": "active task alone", "swap": "one model at a time", "keep": "all models open"}


def walk(run: Comparison) -> None:
    """Switches between the tasks of the given bundle, by edgemtl and the best peer of each kind; `run.walks`."""
    mine = [s for s in run.subjects if s.bundle and s.bundle == run.subjects[0].bundle]
    if len(mine) < 2:
        return
    threads = max(run.settings.threads)
    for engine in _best(run, [e for e in run.ready[mine[0].name] if all(e in run.ready[s.name] for s in mine)]):
        models = [run.artifacts.request(s, engine, threads, 0) for s in mine]
        policies: tuple[Policy, ...] = ("active",) if ENGINES[engine].own else ("swap", "keep")
        for policy in policies:
            run.tell(f"switches of the task on {engine}, {policy}")
            want = {"policy": policy, "threads": threads, "models": models}
            try:
                (said,) = child("edgemtl.bench.switching", want, run.settings.timeout, run.environment(threads))
                done = Walk(engine, policy, json.loads(said))
            except (ProcessError, ValueError) as e:
                done = Walk(engine, policy, failure=str(e))
            run.walks.append(done)
            run.record("walk", **asdict(done))


def _best(run: Comparison, engines: Sequence[str]) -> list[str]:
    """edgemtl's engines, and of each family and precision the peer that was fastest in the rounds so far."""
    speed: dict[str, float] = {}
    for s in run.samples:
        if s.right:
            speed[s.engine] = min(s.p50, speed.get(s.engine, float("inf")))
    kept: dict[tuple[str, str], str] = {}
    for name in sorted(engines, key=lambda e: -speed.get(e, float("inf"))):
        kept[ENGINES[name].family, ENGINES[name].precision] = name
    return [e for e in engines if e in kept.values()]


def main(text: str) -> None:
    """The child: request {"policy", "threads", "models": [a request of the worker per task]}."""
    want = json.loads(text)
    import numpy as np

    from edgemtl.bench import machine
    from edgemtl.bench.prepare import INPUT
    from edgemtl.bench.worker import function

    machine.pin(want["threads"])
    models = want["models"]
    image = np.load(Path(models[0]["folder"]) / INPUT)
    function(models[0]["prepare"])(models[0], image)  # imports what it needs
    gc.collect()
    before = machine.memory().get("resident", 0)
    steps = _active(models, image) if want["policy"] == "active" else _models(models, image, want["policy"])
    visits = []
    for number, model in enumerate([*models, *models]):
        start = time.perf_counter()
        call, size, weights = steps(model)
        switch = 1e3 * (time.perf_counter() - start)
        frames = []
        for _ in range(STAY):
            start = time.perf_counter()
            call()
            frames.append(1e3 * (time.perf_counter() - start))
        visits.append(
            {
                "task": model["task"],
                "kind": "cold" if number < len(models) else "warm",
                "switch_ms": switch,
                "penalty_ms": frames[0] - statistics.median(frames[1:]),
                "bytes": size,
                "resident": machine.memory().get("resident", 0) - before,
                "weights": weights(),
            }
        )
    print(json.dumps(visits))


Stay = tuple[Callable[[], Any], int, Callable[[], int | None]]  # a frame, bytes read, mapped weights in memory
Step = Callable[[dict[str, Any]], Stay]


def _active(models: Sequence[dict[str, Any]], image: Any) -> Step:
    import edgemtl

    engine: Any = None

    def step(model: dict[str, Any]) -> Stay:
        nonlocal engine
        if engine is None:
            engine = edgemtl.load(model["path"], backend="tvm-cpu", threads=model["threads"])
        task = model["task"]
        engine.activate(task)
        return lambda: engine.raw(image)[task], engine.switches[-1].mapped, lambda: engine.residency().resident

    return step


def _models(models: Sequence[dict[str, Any]], image: Any, policy: Policy) -> Step:
    from edgemtl.bench.worker import function

    held: dict[str, Callable[[], Any]] = {}

    def step(model: dict[str, Any]) -> Stay:
        task, size = model["task"], 0
        if policy == "swap":
            held.clear()
            gc.collect()
        if task not in held:
            held[task] = function(model["prepare"])(model, image)()
            size = _size(Path(model["path"]))
        return held[task], size, lambda: None

    return step


def _size(path: Path) -> int:
    """Bytes of a model's files: an OpenVINO model's weights lie beside it."""
    return sum(p.stat().st_size for p in (path, path.with_suffix(".bin")) if p.is_file())


if __name__ == "__main__":
    main(sys.argv[1])
