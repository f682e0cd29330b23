"""Beside latency: accuracy on labelled pictures, and switches of the task.

Each fills a field of the comparison as it goes, so that an interrupt keeps what was found.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from edgemtl.bench.accuracy import Scored
from edgemtl.bench.compare import Comparison
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.process import ProcessError, child, environment, stop
from edgemtl.bench.subjects import Subject
from edgemtl.bench.switching import Walk, policies, walk


def score(run: Comparison, data: Path) -> None:
    """The accuracy of every INT8 engine and of one in fp32, for subjects whose weights were trained; `run.scores`."""
    steps = []
    for subject in (s for s in run.subjects if s.bundle):
        found = run.ready[subject.name]
        single = [e for e in found if ENGINES[e].precision == "fp32"][:1]
        steps += [(subject, e) for e in found if e in single or ENGINES[e].precision == "int8"]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        try:
            list(pool.map(lambda step: _score(run, data, *step), steps))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _score(run: Comparison, data: Path, subject: Subject, engine: str) -> None:
    run.tell(f"accuracy of {subject.name} on {engine}")
    request = run.artifacts.request(subject, engine, 1, 0)
    config = subject.config.model_dump(mode="json")
    request["score"] = {"config": config, "task": subject.task, "data": str(data), "images": run.settings.scored}
    name = engine if ENGINES[engine].precision == "int8" else "fp32"
    try:
        lines = child("edgemtl.bench.worker", request, run.settings.build_timeout, environment(1))
        found = Scored(**json.loads(lines[-1]))
    except (ProcessError, ValueError, IndexError) as e:
        run.notes.append(f"the accuracy of {subject.name} on {engine} is not known: {e}")
        return
    run.scores[subject.name, name] = found
    run.record("score", subject=subject.name, engine=engine, **found._asdict())


def switches(run: Comparison) -> None:
    """Switches between the tasks of the given bundle, by edgemtl and the best peer of each kind; `run.walks`."""
    mine = [s for s in run.subjects if s.bundle and s.bundle == run.subjects[0].bundle]
    if len(mine) < 2:
        return
    threads = max(run.settings.threads)
    for engine in _best(run, [e for e in run.ready[mine[0].name] if all(e in run.ready[s.name] for s in mine)]):
        models = [run.artifacts.request(s, engine, threads, 0) for s in mine]
        for policy in policies(ENGINES[engine].own):
            run.tell(f"switches of the task on {engine}, {policy}")
            want = {"engine": engine, "policy": policy, "threads": threads, "models": models}
            env = environment(threads)
            try:
                (said,) = child("edgemtl.bench.switching", want, run.settings.timeout, env)
                done = walk(json.loads(said))
            except (ProcessError, ValueError) as e:
                done = Walk(engine, policy, threads, failure=str(e))
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
