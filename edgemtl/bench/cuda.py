"""`python -m edgemtl.bench.cuda BUNDLE`: one task on this machine's GPU, by edgemtl and by peers, side by side.

All engines have the same weights, run in one process and take turns; a frame is timed by events in the engine's own
stream, and by the host's clock from submitting to the result being there. Energy is the board's own counter (NVML)
over a round's frames, divided by them. A second model, a dense ViT of equal arithmetic with random
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
from rich.console import Console

from edgemtl.bench import stats
from edgemtl.bench.report import Table, show
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
    millijoules: list[float] = field(default_factory=list)  # of a frame, by round
    failure: str = ""

    @property
    def rounds(self) -> dict[int, float]:
        """{round: median milliseconds} by the host's clock, which holds every wait."""
        return {r: stats.percentile(v, 0.5) for r, v in self.host.items() if v}


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
        for row in (r for r in rows if r.engine in engines):
            before = None if meter.absent else meter.millijoules()
            row.gpu[number], row.host[number] = frames(engines[row.engine], clock, seconds)
            if before is not None:
                row.millijoules.append((meter.millijoules() - before) / len(row.host[number]))
    if OWN in engines:
        engines[OWN].close()


def dense_config(config: ModelConfig) -> ModelConfig:
    """A ViT without routing whose layers multiply as much for a token: one expert as wide as the chosen ones."""
    wide = {"experts": 1, "top_k": 1, "expert_ratio": config.expert_ratio * config.top_k}
    return ModelConfig(**{**dict(config), **wide, "paths": {}, "widths": (), "slots": None, "renormalise": False})


def report(rows: Sequence[Row], meter: Any) -> Table:
    """A row per model, batch and engine. Ratios are paired: to the best peer, and of edgemtl to the dense ViT."""
    cells = []
    dense = {r.batch: r.rounds for r in rows if (r.model, r.engine) == ("dense", OWN)}
    for row in rows:
        peers = {r.engine: r.rounds for r in rows if (r.model, r.batch) == (row.model, row.batch) and r.engine != OWN}
        fastest = stats.best({name: rounds for name, rounds in peers.items() if rounds})
        sparse = row.engine == OWN and row.model != "dense"
        base = (peers.get(fastest or "", {}), dense.get(row.batch, {}) if sparse else {})
        host, gpu = ([v for part in each.values() for v in part] for each in (row.host, row.gpu))
        times = [*(stats.percentile(host, q) for q in stats.TOLD), stats.percentile(gpu, 0.5)] if host else [None] * 4
        joules = stats.percentile(row.millijoules, 0.5) / row.batch if row.millijoules else None
        figures = [*(show(v, ".3f") for v in times), *(show(stats.paired(row.rounds, b)) for b in base)]
        figures += [show(row.error, ".1e"), show(joules)]
        cells.append([row.model, row.engine, row.failure, f"{row.batch}", *figures])
    head = ("batch", "p50 ms", "p95", "p99", "p50 by events", "to best peer", "to dense", "error", "mJ/image")
    energy = f"; no energy: {meter.absent}" if meter.absent else "; energy by NVML"
    title = f"milliseconds by the host's clock, one process, in turns{energy}"
    return Table(title, ("model", "engine", ""), head, cells)


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
    Console(width=None if sys.stdout.isatty() else 190).print(f"{gpu.name} ({gpu.arch})", report(rows, meter).printed())
    if json:
        json.write_text(dumps([asdict(r) for r in rows]))


if __name__ == "__main__":
    try:
        typer.run(run)
    except EdgeMTLError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
