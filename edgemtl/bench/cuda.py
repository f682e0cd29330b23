"""`python -m edgemtl.bench.cuda BUNDLE`: one task on this machine's GPU, by edgemtl and by peers, side by side.

All engines have the same weights, run in one process and take turns; a frame is timed by events in the engine's own
stream, and by the host's clock from submitting to the result being there. Energy is the board's own counter (NVML)
over a second of frames back to back, divided by them. A second model, a dense ViT of equal arithmetic with random
weights, tells what routing costs on a GPU. Without a GPU nothing is measured, and it says so.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgemtl.bench import stats
from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError, EdgeMTLError

Make = Callable[[], Any]  # of an engine of cuda_engines.py
BATCHES = (1, 4, 16, 64)
OWN = "edgemtl"


@dataclass
class Row:
    """One engine on one model and batch. `gpu` and `host`: milliseconds of every frame, by round; `failure`: why there
    are none. error: of the maps against PyTorch in float32, relative to the largest value.
    """

    model: str
    batch: int
    engine: str
    gpu: dict[int, list[float]] = field(default_factory=dict)
    host: dict[int, list[float]] = field(default_factory=dict)
    error: float | None = None
    millijoules: float | None = None
    failure: str = ""

    @property
    def rounds(self) -> dict[int, float]:
        """{round: median milliseconds} by the host's clock, which holds every wait."""
        return {r: stats.percentile(v, 0.5) for r, v in self.host.items() if v}

    def summary(self, which: str) -> stats.Summary | None:
        values = [v for part in getattr(self, which).values() for v in part]
        return stats.summary(values) if values else None


def frames(engine: Any, clock: Any, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds by events, and by the host's clock, of frames one after the other for so long; at least 10.

    clock: `edgemtl.runtime.cuda.driver.Driver`, or what has its events.
    """
    begin, end = clock.event(), clock.event()
    gpu: list[float] = []
    host: list[float] = []
    until = time.perf_counter() + seconds
    while len(gpu) < 10 or time.perf_counter() < until:
        start = time.perf_counter()
        clock.record(begin, engine.stream)
        engine.submit()
        clock.record(end, engine.stream)
        clock.arrived(end)
        host.append(1e3 * (time.perf_counter() - start))
        gpu.append(clock.milliseconds(begin, end))
    return gpu, host


class Meter:
    """The energy counter of the first GPU (NVML, package nvidia-ml-py). `absent` says why there is none."""

    def __init__(self) -> None:
        self.absent = ""
        try:
            self._nvml: Any = importlib.import_module("pynvml")
            self._nvml.nvmlInit()
            self._device = self._nvml.nvmlDeviceGetHandleByIndex(0)
            self.millijoules()
        except ImportError:
            self.absent = "nvidia-ml-py is not installed"
        except self._nvml.NVMLError as e:
            self.absent = f"NVML: {e}"

    def millijoules(self) -> int:
        """Since the driver was loaded; it grows about every 20 ms to 100 ms, so measure over a second or more."""
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device))


def energy(engine: Any, meter: Any, clock: Any, seconds: float = 1.0) -> float | None:
    """Millijoules of a frame, over frames back to back for so long; None where there is no counter."""
    if meter.absent:
        return None
    before, done, start = meter.millijoules(), clock.event(), time.perf_counter()
    count = 0
    while count < 10 or time.perf_counter() - start < seconds:
        engine.submit()
        clock.record(done, engine.stream)
        clock.arrived(done)
        count += 1
    return float(meter.millijoules() - before) / count


def measure(
    rows: Sequence[Row], makers: Mapping[str, Make], want: Any, clock: Any, meter: Any, rounds: int, seconds: float
) -> None:
    """Fill `rows`, one per engine of `makers`, in rounds in which every engine has its turn."""
    engines: dict[str, Any] = {}
    for row in rows:
        try:
            engine = makers[row.engine]()
            engine.submit()
            got = engine.result()
        except Exception as e:  # a peer may fail in any way; the others go on
            row.failure = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no reason given'}"[:200]
            continue
        engines[row.engine] = engine
        row.error = float(np.abs(got - want).max() / np.abs(want).max()) if np.isfinite(got).all() else float("inf")
        frames(engine, clock, min(seconds, 0.3))  # warm
    for number in range(rounds):
        for row in rows:
            if row.engine in engines:
                row.gpu[number], row.host[number] = frames(engines[row.engine], clock, seconds)
    for row in rows:
        if row.engine in engines:
            row.millijoules = energy(engines[row.engine], meter, clock)
    if OWN in engines:
        engines[OWN].close()


def dense_config(config: ModelConfig) -> ModelConfig:
    """A ViT without routing whose layers multiply as much for a token: one expert as wide as the chosen ones."""
    wide = {"experts": 1, "top_k": 1, "expert_ratio": config.expert_ratio * config.top_k}
    return ModelConfig(**{**dict(config), **wide, "paths": {}, "slots": None, "renormalise": False})


def report(rows: Sequence[Row], device: str, meter: Any) -> str:
    """A table per model and batch, and the goals that it can answer."""
    lines = [f"{device}; milliseconds by the host's clock (p50, p95, p99) and by events (p50); one process, in turns"]
    for model, batch in dict.fromkeys((r.model, r.batch) for r in rows):
        these = [r for r in rows if (r.model, r.batch) == (model, batch)]
        peers = {r.engine: r.rounds for r in these if r.rounds and r.engine != OWN}
        fastest = stats.best(peers)
        lines.append(f"{model}, batch {batch}")
        for row in these:
            host, gpu = row.summary("host"), row.summary("gpu")
            if host is None or gpu is None:
                lines.append(f"  {row.engine:20} not measured: {row.failure}")
                continue
            known = row.millijoules is not None
            joules = f"{(row.millijoules or 0) / batch:.2f} mJ/image (NVML)" if known else "energy not measured"
            times = f"{host.p50:8.3f} {host.p95:8.3f} {host.p99:8.3f} | {gpu.p50:8.3f}"
            lines.append(f"  {row.engine:20} {times} | error {row.error:.1e} | {joules}")
        own = next((r.rounds for r in these if r.engine == OWN), {})
        ratio = stats.paired(own, peers[fastest]) if fastest and own else None
        if ratio is not None:
            lines.append(f"  edgemtl / {fastest} = {ratio:.2f}" + (" (goal at batch 1: 0.70)" if batch == 1 else ""))
    by = {(r.model, r.batch): r.rounds for r in rows if r.engine == OWN and r.rounds}
    for model, batch in by:
        dense = by.get(("dense", batch))
        if model != "dense" and dense and (ratio := stats.paired(by[model, batch], dense)) is not None:
            lines.append(f"edgemtl, experts / dense of equal arithmetic, batch {batch} = {ratio:.2f} (goal: 1.30)")
    if meter.absent:
        lines.append(f"energy: {meter.absent}")
    return "\n".join(lines)


def run(
    bundle: Annotated[Path, typer.Argument(help="A compiled model.")],
    task: Annotated[str, typer.Option(help="Default: the bundle's first.")] = "",
    batch: Annotated[list[int], typer.Option(min=1, max=1024, help="May be given more than once.")] = [*BATCHES],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=0.0, help="Per engine and round.")] = 1.0,
    dense: Annotated[bool, typer.Option(help="Also a dense ViT of equal arithmetic.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write every measured frame there, too.")] = None,
) -> None:
    """Raises BackendError without a GPU, TaskError, BundleError."""
    from edgemtl.runtime.cuda import driver

    if reason := driver.unusable():
        raise BackendError(f"nothing can be measured on a GPU here: {reason}")
    import torch

    from edgemtl.bench.cuda_engines import ENGINES
    from edgemtl.bench.prepare import bundle_model
    from edgemtl.model import MultiTaskViT

    gpu, meter, rows = driver.Driver(), Meter(), []
    trained = bundle_model(bundle)
    task = task or trained.config.task_names[0]
    models = {bundle.name: trained}
    if dense:
        torch.manual_seed(0)
        models["dense"] = MultiTaskViT(dense_config(trained.config)).eval()
    for name, model in models.items():
        model.slice(task)  # a task that is none is told before anything runs
        for size in batch:
            print(f"{name}, batch {size}", file=sys.stderr)
            images = np.random.default_rng(size).normal(size=(size, 3, *model.config.image_size)).astype(np.float32)
            with torch.inference_mode():
                want = model(torch.from_numpy(images), [task])[task].numpy()
            these = [Row(name, size, e) for e in ENGINES]
            makers = {e: partial(kind, model, task, images) for e, kind in ENGINES.items()}
            measure(these, makers, want, gpu, meter, rounds, seconds)
            rows += these
    print(report(rows, f"{gpu.name} ({gpu.arch})", meter))
    if json:
        json.write_text(dumps([asdict(r) for r in rows]))


if __name__ == "__main__":
    try:
        typer.run(run)
    except EdgeMTLError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
