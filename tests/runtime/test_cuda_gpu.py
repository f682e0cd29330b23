"""The backend tvm-cuda in half precision on a real GPU (`make test-gpu`); skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emulated_gpu
import numpy as np
import pytest

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.runtime.engine import Engine

pytest.importorskip("tvm")
pytestmark = pytest.mark.skipif(bool(emulated_gpu.no_gpu()), reason=emulated_gpu.no_gpu())
TASKS = ("semseg", "depth", "normals", "edge")


@pytest.fixture(scope="module")
def bundle16(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgemtl_compiler import compile_bundle

    path = tmp_path_factory.mktemp("gpu") / "micro.edgemtl"
    images = list(np.random.default_rng(5).integers(0, 256, (2, 40, 70, 3), np.uint8))
    built = compile_bundle(micro.model, path, targets=["cuda"], precision="f16", golden_images=images)
    assert built.emulated == ()  # the compiler's own check ran on the GPU
    return path


@pytest.fixture
def engine(bundle16: Path) -> Iterator[Engine]:
    with edgemtl.load(bundle16, "tvm-cuda", tasks=TASKS) as engine:
        yield engine


def test_goldens(engine: Engine, bundle16: Path) -> None:
    with Bundle.open(bundle16) as bundle:
        inputs, outputs = bundle.golden()
    for name, image in inputs.items():
        got = engine.raw(image)
        for task in TASKS:
            want = outputs[task][name]
            assert np.abs(got[task] - want).max() < 3e-3 * np.abs(want).max()


def test_a_thousand_frames_give_the_same_bits(engine: Engine, micro: Any) -> None:
    """With switches between them, so that graphs and memory come and go."""
    first = engine.raw(micro.inputs["0"])
    for i in range(1000):
        if i % 100 == 0:
            engine.activate(TASKS[i // 100 % 4])
        task = engine.active[0]
        np.testing.assert_array_equal(engine.raw(micro.inputs["0"])[task], first[task])


def test_a_tensor_of_pytorch_is_read_where_it_lies(engine: Engine, micro: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    want = engine.raw(micro.inputs["0"])
    tensor = torch.from_numpy(micro.inputs["0"]).cuda()
    for task, raw in engine.raw(tensor).items():
        np.testing.assert_array_equal(raw, want[task])


def test_frames_and_maps_that_stay_on_the_gpu(engine: Engine) -> None:
    """In the default stream and in another, with maps kept while others are made."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    frames = np.random.default_rng(8).integers(0, 256, (20, 45, 80, 3), np.uint8)
    want = [engine.raw(frame)["depth"] for frame in frames]
    for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            held = []
            for frame in frames:
                tensor = torch.from_numpy(frame).cuda(non_blocking=True)
                held.append(torch.from_dlpack(engine.raw(tensor, on_device=True)["depth"]))
                tensor.zero_()  # it has been read
            for got, raw in zip(held, want, strict=True):
                np.testing.assert_allclose(got.cpu().numpy(), raw, rtol=1e-6)
