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
    run.data, steps = data, []
    for subject in (s for s in run.subjects if s.bundle):
        found = run.chosen[subject.name, run.settings.threads[0]]
        single = [e for e in found if ENGINES[e].precision == "fp32"][:1]
        steps += [(subject, e, found[e]) for e in found if e in single or ENGINES[e].precision == "int8"]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        try:
            list(pool.map(lambda step: _score(run, data, *step), steps))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _score(run: Comparison, data: Path, subject: Subject, engine: str, artifact: str) -> None:
    run.tell(f"accuracy of {subject.name} on {engine}")
    request = run.artifacts.request(subject, engine, artifact, 1, 0)
    request["score"] = {"data": str(data), "images": run.settings.scored}
    name = engine if ENGINES[engine].precision == "int8" else "fp32"
    try:
        lines = child("edgemtl.bench.worker", request, run.settings.build_timeout, environment(1, run.folder))
        found = Scored(**json.loads(lines[-1]))
    except (ProcessError, ValueError, IndexError) as e:
        run.notes.append(f"the accuracy of {subject.name} on {engine} is not known: {e}")
        return
    run.scores[subject.name, name] = found
    run.record("score", subject=subject.name, engine=engine, artifact=artifact, **found._asdict())


def switches(run: Comparison) -> None:
    """Switches between the tasks of the given bundle, by edgemtl and the best peer of each kind; `run.walks`."""
    mine = [s for s in run.subjects if s.bundle and s.bundle == run.subjects[0].bundle]
    if len(mine) < 2:
        return
    threads = max(run.settings.threads)
    chosen = [run.chosen[s.name, threads] for s in mine]
    for engine in _best(run, mine[0], [e for e in chosen[0] if all(e in c for c in chosen)], threads):
        models = [run.artifacts.request(s, engine, c[engine], threads, 0) for s, c in zip(mine, chosen, strict=True)]
        for policy in policies(ENGINES[engine].own):
            run.tell(f"switches of the task on {engine}, {policy}")
            want = {"engine": engine, "policy": policy, "threads": threads, "models": models}
            env = environment(threads, run.folder)
            try:
                (said,) = child("edgemtl.bench.switching", want, run.settings.timeout, env)
                done = walk(json.loads(said))
            except (ProcessError, ValueError) as e:
                done = Walk(engine, policy, threads, failure=str(e))
            run.walks.append(done)
            run.record("walk", **asdict(done))


def _best(run: Comparison, subject: Subject, engines: Sequence[str], threads: int) -> list[str]:
    """edgemtl's engines, and of each family and precision the peer that was fastest in the trials."""
    speed = {
        e: run.artifacts.trials[subject.name, e, threads][1]
        for e in engines
        if (subject.name, e, threads) in run.artifacts.trials
    }
    kept: dict[tuple[str, str], str] = {}
    for name in sorted(engines, key=lambda e: -speed.get(e, float("inf"))):
        kept[ENGINES[name].family, ENGINES[name].precision] = name
    return [e for e in engines if e in kept.values() and not ENGINES[e].family.startswith("torch")]
