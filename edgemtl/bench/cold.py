"""Cold start of a bundle: interpreter, imports, load with activation, first frame; and the whole `edgemtl run` command.

`python -m edgemtl.bench.cold JSON` is the child: a fresh process that prints one JSON line with seconds of each part.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgemtl.errors import BackendError

PARTS = ("start_s", "import_s", "load_s", "first_frame_s")


def measure(
    bundle: Path, backend: str, task: str, *, threads: int, size: tuple[int, int] = (240, 480)
) -> dict[str, Any]:
    """Seconds of each part in one fresh process, on a frame of noise. Raises BackendError with its last line."""
    request = {"bundle": str(bundle), "backend": backend, "task": task, "threads": threads, "size": list(size)}
    request["spawned"] = time.monotonic()
    command = [sys.executable, "-m", "edgemtl.bench.cold", json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise BackendError(f"the measurement of {backend} on {bundle.name} failed: {last}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def cold(bundle: Path, backend: str, task: str, threads: int, runs: int) -> dict[str, float]:
    """Median seconds of each part over `runs` fresh processes."""
    found = [measure(bundle, backend, task, threads=threads) for _ in range(runs)]
    return {part: statistics.median(f[part] for f in found) for part in PARTS}


def command_line(bundle: Path, task: str, runs: int) -> float:
    """Median wall seconds of the whole `edgemtl run` command on one image, its process start and writing included."""
    import cv2
    import numpy as np

    times = []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "frame.png"
        cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 256, (240, 480, 3), np.uint8))
        command = [sys.executable, "-m", "edgemtl", "run", str(bundle), "--task", task, str(image)]
        for i in range(runs):
            began = time.perf_counter()
            done = subprocess.run([*command, "-o", str(Path(folder) / f"{i}.png")], capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
                raise BackendError(f"`edgemtl run` failed: {last}")
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main(request: str) -> None:
    """The child."""
    began = time.monotonic()
    want = json.loads(request)
    import numpy as np

    import edgemtl

    load = edgemtl.load  # naming it imports the runtime
    imported = time.monotonic()
    frame = np.random.default_rng(0).integers(0, 256, (*want["size"], 3), np.uint8)
    with load(want["bundle"], backend=want["backend"], threads=want["threads"]) as engine:
        engine.activate(want["task"])
        loaded = time.monotonic()
        engine(frame)
        first = time.monotonic()
        result = {
            "start_s": began - want["spawned"],
            "import_s": imported - began,
            "load_s": loaded - imported,
            "first_frame_s": first - loaded,
            "backend": engine.backend,
            "pid": os.getpid(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
