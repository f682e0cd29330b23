"""One measurement in a fresh process: `python -m edgemtl.bench.worker JSON` prints one JSON line.

The network alone is timed, one image at a time, on an input that is already preprocessed; its output is compared with
PyTorch's. The request names the function that opens an engine (`Engine.prepare`) and what it shall open, or is {"peak":
a source of `edgemtl.bench.peak`, "threads": ..., "seconds": ...}. The process is pinned to as many cores as threads.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(request: str) -> None:
    """Measure what `request` asks for."""
    want: dict[str, Any] = json.loads(request)
    from edgemtl.bench import machine, peak

    machine.pin(want["threads"])
    if "peak" in want:
        rate = peak.measure(want["peak"], want["threads"], want["seconds"], want.get("target", "cpu"))
        print(json.dumps({"rate": rate}))
        return
    import numpy as np

    from edgemtl.bench.prepare import EXPECTED, INPUT

    folder = Path(want["folder"])
    image, expected = np.load(folder / INPUT), np.load(folder / EXPECTED)
    began = time.perf_counter()
    load = function(want["prepare"])(want, image)
    imported = time.perf_counter()
    before = machine.memory()
    call = load()
    loaded = time.perf_counter()
    got = np.asarray(call(), np.float32)
    first = time.perf_counter()
    int8 = want.get("precision") == "int8"
    error = _over_pictures(call, image, folder) if int8 else relative(got, expected)
    times = [] if want["seconds"] <= 0 else _frames(call, want)
    print(
        json.dumps(
            {
                "import_s": imported - began,
                "load_s": loaded - imported,
                "first_s": first - loaded,
                "ms": times,
                "error": error,
                "precision": want.get("precision", "fp32"),
                "memory": {"before": before, "after": machine.memory()},
                "weights": engine.residency().resident if (engine := want.get("engine_object")) else None,
            }
        )
    )


def function(name: str) -> Callable[..., Any]:
    """The function "MODULE:NAME"."""
    module, _, what = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), what)
    return found


def relative(got: Any, expected: Any) -> float:
    """max |got - expected| / max |expected|; infinite where shapes differ or a value is not finite."""
    import numpy as np

    if got.ndim == expected.ndim - 1:  # the engine's maps have no batch axis
        expected = expected[0]
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def _over_pictures(call: Any, image: Any, folder: Path) -> float:
    """Root mean square error over pictures that no engine was calibrated on, by that of the float maps about their
    mean; infinite where a value is not finite. `image` is what `call` reads.
    """
    import numpy as np

    from edgemtl.bench import quantise

    pictures, expected = np.load(folder / quantise.CHECK), np.load(folder / quantise.CHECK_EXPECTED)
    kept, got = image.copy(), []
    for picture in pictures:
        image[...] = picture[None]
        got.append(np.array(call(), np.float32).reshape(expected.shape[1:]))
    image[...] = kept
    found = np.stack(got)
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())


def _frames(call: Any, want: dict[str, Any]) -> list[float]:
    """Milliseconds of each frame: warmed up, then at least `frames` of them and for `seconds`, at most 200."""
    end, runs = time.perf_counter() + want["warmup_s"], 0
    while runs < want["warmup"] or time.perf_counter() < end:
        call()
        runs += 1
    times: list[float] = []
    end = time.perf_counter() + want["seconds"]
    while len(times) < want["frames"] or (time.perf_counter() < end and len(times) < 200):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


if __name__ == "__main__":
    main(sys.argv[1])
