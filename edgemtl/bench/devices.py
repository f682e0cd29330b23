"""Devices other than this machine's CPU: the accelerator, modelled, simulated or on its board, and a CUDA GPU.

Nothing of this is ranked against the CPU's engines. Every figure says where it comes from: "model" is `edgemtl
estimate`, "board" was measured there; the kernels' C simulation proves results exact, and gives no times.

`python -m edgemtl.bench.devices JSON` is the child that runs frames on one device and prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgemtl.bench import stats
from edgemtl.bench.process import ProcessError, child
from edgemtl.bundle.reader import Bundle
from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError, EdgeMTLError

BOARD, CLOCK_HZ = "zcu104", 300e6
FRAMES = 50  # on a real board
NVIDIA = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Line:
    """One task on one device. ms: of a frame, by `origin`; exact: integer goldens equal bit for bit (None: not run).

    absent: why the device could not be asked; then nothing else is known, but the model's figures where there are any.
    """

    device: str
    task: str
    ms: float | None = None
    origin: str = "not measured"
    cycles: int | None = None
    ddr_mb: float | None = None
    switch_bytes: int | None = None
    switch_us: float | None = None
    exact: bool | None = None
    absent: str = ""
    energy: str = "not measured"


def measure(device: str, config: ModelConfig, bundle: Path, tasks: Sequence[str], timeout: float = 300) -> list[Line]:
    """A line per task. `bundle` should hold the accelerator's program; without it, its shape alone is modelled."""
    if device == "cuda":
        return [Line(device, "–", absent=cuda_absent())]
    lines = [_modelled(device, config, t) for t in tasks] if device == "fpga-sim" else [Line(device, t) for t in tasks]
    try:
        (said,) = child("edgemtl.bench.devices", {"device": device, "bundle": str(bundle), "tasks": [*tasks]}, timeout)
    except (ProcessError, ValueError) as e:
        return [replace(line, absent=str(e)) for line in lines]
    found = json.loads(said)
    if "absent" in found:
        return [replace(line, absent=found["absent"]) for line in lines]
    out = []
    for line in lines:
        line = replace(line, exact=found["exact"][line.task])
        if device == "fpga":
            line = replace(line, ms=stats.percentile(found["ms"][line.task], 0.5), origin="board")
        out.append(line)
    return out


def has_program(bundle: Path) -> bool:
    """Whether the bundle holds integers for the accelerator."""
    with Bundle.open(bundle) as opened:
        return bool(opened.manifest.fpga)


def cuda_absent() -> str:
    """Why this command measures no GPU."""
    if not NVIDIA.exists() and shutil.which("nvidia-smi") is None:
        return "this machine has no NVIDIA GPU (neither /dev/nvidiactl nor nvidia-smi)"
    return "a GPU has a benchmark of its own, with events and NVML: python -m edgemtl.bench.cuda BUNDLE"


def _modelled(device: str, config: ModelConfig, task: str) -> Line:
    try:
        est: Any = importlib.import_module("edgemtl_compiler.fpga.estimate")
        report = est.estimate(config, task, est.board(BOARD), clock_hz=CLOCK_HZ)
    except (ImportError, EdgeMTLError) as e:
        return Line(device, task, absent=f"the model cannot be asked: {e}")
    traffic = report.ddr.weight_bytes + report.ddr.pixel_bytes + report.ddr.output_bytes + report.ddr.program_bytes
    return Line(
        device,
        task,
        report.timing.milliseconds,
        report.origin,
        report.timing.cycles,
        traffic / 1e6,
        report.switch.bytes_written,
        report.switch.microseconds,
    )


def main(text: str) -> None:
    """The child: goldens on the device, and on a board the time of frames."""
    want = json.loads(text)
    from edgemtl.cli.verify import exact
    from edgemtl.runtime import backends

    path, device = Path(want["bundle"]), want["device"]
    try:
        with Bundle.open(path) as bundle:
            backends.usable(device, bundle)
        worst = exact(path, device)
        said: dict[str, Any] = {"exact": {t: worst[t] == 0 for t in want["tasks"]}}
        if device == "fpga":
            said["ms"] = {t: _frames(path, device, t) for t in want["tasks"]}
    except BackendError as e:
        said = {"absent": str(e).replace(str(path), path.name)}
    print(json.dumps(said))


def _frames(path: Path, device: str, task: str) -> Any:
    import numpy as np

    from edgemtl.runtime.engine import load

    with load(path, device, tasks=[task]) as engine:
        image = np.zeros((1, 3, *engine.manifest.model.image_size), np.float32)
        times = []
        for _ in range(FRAMES):
            start = time.perf_counter()
            engine.raw(image)
            times.append(1e3 * (time.perf_counter() - start))
    return times[3:]


if __name__ == "__main__":
    main(sys.argv[1])
