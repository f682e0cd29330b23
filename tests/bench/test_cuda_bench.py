"""The GPU benchmark without a GPU: its statistics over engines with known times, and what it refuses."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import emulated_gpu
import numpy as np
import pytest

from edgemtl.bench import cuda, cuda_engines
from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError
from edgemtl.runtime.cuda import driver

WANT = np.array([[1.0, -2.0, 4.0]], np.float32)


class Clock:
    """Events that tell the milliseconds of the engine that ran last."""

    def __init__(self) -> None:
        self.last = 0.0

    def event(self) -> int:
        return 1

    def record(self, event: int, stream: int) -> None: ...

    def arrived(self, event: int) -> None: ...

    def milliseconds(self, begin: int, end: int) -> float:
        return self.last


class Fake:
    stream = 0

    def __init__(self, clock: Clock, ms: float, result: Any = WANT) -> None:
        self.clock, self.ms, self.given, self.closed = clock, ms, result, False

    def submit(self) -> None:
        time.sleep(self.ms / 1e3)
        self.clock.last = self.ms

    def result(self) -> Any:
        return self.given

    def close(self) -> None:
        self.closed = True


class Meter:
    absent = ""

    def __init__(self) -> None:
        self.total = 0

    def millijoules(self) -> int:
        self.total += 1000
        return self.total


def fail() -> Any:
    raise RuntimeError("no kernel image\nand a long story")


def test_every_engine_has_its_turn_and_a_failing_one_does_not_stop_the_others() -> None:
    clock = Clock()
    made = {"edgemtl": Fake(clock, 1), "ort-cuda": Fake(clock, 3, 1.5 * WANT)}
    rows = [cuda.Row("rooms", 2, name) for name in ("edgemtl", "torch-eager", "ort-cuda")]
    makers: dict[str, Any] = {"torch-eager": fail, **{n: (lambda n=n: made[n]) for n in made}}
    cuda.measure(rows, makers, WANT, clock, Meter(), rounds=2, seconds=0.001)
    own, bad, peer = rows
    assert (bad.failure, bad.rounds) == ("RuntimeError: no kernel image", {})
    assert (own.error, peer.error) == (0, 0.5)
    assert set(own.rounds) == set(peer.rounds) == {0, 1}
    assert all(len(v) >= 10 and set(v) == {1} for v in own.gpu.values())
    assert all(ms >= 1 for v in own.host.values() for ms in v)
    assert own.millijoules == pytest.approx([1000 / len(own.host[n]) for n in (0, 1)])
    assert made["edgemtl"].closed
    cells = {cells[1]: cells for cells in cuda.report(rows, Meter()).rows}
    assert cells["torch-eager"][2:5] == ["RuntimeError: no kernel image", "2", "–"]
    assert cells["edgemtl"][8].startswith("0.")
    assert cells["ort-cuda"][10] == "5.0e-01"


def row(model: str, batch: int, engine: str, *ms: float) -> cuda.Row:
    times = {number: [value] * 10 for number, value in enumerate(ms)}
    return cuda.Row(model, batch, engine, gpu=times, host=times, error=1e-3, millijoules=[8.0])


def test_ratios_are_paired_by_round_and_the_best_peer_is_the_base() -> None:
    """In round 1 the GPU was three times slower for all."""
    rows = [
        row("rooms", 1, "edgemtl", 1, 3, 1),
        row("rooms", 1, "torch-eager", 4, 12, 4),
        row("rooms", 1, "torch-compile-dense", 2, 6, 2),
        row("dense", 1, "edgemtl", 0.8, 2.4, 0.8),
        row("rooms", 4, "edgemtl", 2, 2, 2),
    ]
    found = {(c[0], c[1], c[3]): c[8:] for c in cuda.report(rows, Meter()).rows}
    assert found["rooms", "edgemtl", "1"] == ["0.50", "1.25", "1.0e-03", "8.00"]
    assert found["rooms", "torch-eager", "1"][0] == "2.00"
    assert found["rooms", "edgemtl", "4"] == ["–", "–", "1.0e-03", "2.00"]  # no peer and no dense model at that batch


def test_tensorrt_multiplies_halves_and_leaves_the_rest_to_cuda() -> None:
    """Without trt_fp16_enable it refuses a model of halves; without a second provider the rest runs on the CPU."""
    first, second = cuda_engines.OnnxTensorRT.providers(7)
    assert first[0] == "TensorrtExecutionProvider"
    assert first[1].items() >= {"trt_fp16_enable": "1", "user_compute_stream": "7"}.items()
    assert second == ("CUDAExecutionProvider", {"user_compute_stream": "7"})
    assert len(cuda_engines.OnnxCuda.providers(7)) == 1


def test_energy_without_a_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    meter = cuda.Meter()
    assert meter.absent == "nvidia-ml-py is not installed"
    table = cuda.report([cuda.Row("m", 1, "edgemtl", gpu={0: [1.0]}, host={0: [1.0]}, error=0.0)], meter)
    assert table.title.endswith("; no energy: nvidia-ml-py is not installed")
    assert table.rows[0][-1] == "–"

    class NVMLError(Exception):
        pass

    def no_library() -> None:
        raise NVMLError("NVML Shared Library Not Found")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=NVMLError, nvmlInit=no_library))
    assert cuda.Meter().absent == "NVML: NVML Shared Library Not Found"


def test_the_dense_model_multiplies_as_much_for_a_token() -> None:
    from edgemtl.graph.count import count
    from edgemtl.model import preset

    sparse = preset("tiny")
    dense = cuda.dense_config(sparse)
    routing = len(sparse.moe_blocks) * sparse.tokens * sparse.dim * (sparse.experts - 1)
    assert count(sparse, "depth").total - count(dense, "depth").total == routing
    assert isinstance(dense, ModelConfig)


def test_without_a_gpu_it_measures_nothing(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "LIBRARY", "libnowhere.so")
    with pytest.raises(BackendError, match="nothing can be measured on a GPU here: there is no NVIDIA driver"):
        cuda.run(plain)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_edgemtls_own_engine_in_the_emulation(cuda_bundle: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """The whole command with a batch of three; its times mean nothing, its maps do."""
    from edgemtl_compiler.cuda import toolchain

    (tmp_path / "none").write_bytes(b"")
    monkeypatch.setattr(toolchain, "cubin", lambda *_: tmp_path / "none")
    monkeypatch.setattr(cuda_engines, "ENGINES", {"edgemtl": cuda_engines.Own})
    out = tmp_path / "rows.json"
    with emulated_gpu.installed("f16", head=16):
        cuda.run(cuda_bundle[1], "depth", [3], rounds=1, seconds=0.001, dense=False, json=out)
    (found,) = json.loads(out.read_text())
    assert (found["batch"], found["engine"], found["failure"]) == (3, "edgemtl", "")
    assert 0 < found["error"] < 3e-3
    assert "emulated on a CPU (sm_90)" in capsys.readouterr().out
