"""The expert map is the routing that ran: the same as PyTorch's on the same image, and gone when nobody asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import edgemtl
from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.errors import BackendError, FrameError
from edgemtl.runtime import expert_map

RNG = np.random.default_rng(11)


def needs_programs(bundle: Path) -> None:
    with edgemtl.load(bundle) as engine:
        if engine.backend != "tvm-cpu":
            pytest.skip('no tvm-cpu program here: it needs apache-tvm (pip install "edgemtl[cpu]") and g++')


@pytest.mark.parametrize("tasks", [("depth",), ("edge",), ("semseg", "normals")])
def test_it_is_pytorchs_routing(bundle: Path, micro: Any, tasks: tuple[str, ...]) -> None:
    needs_programs(bundle)
    height, width = micro.config.image_size
    frame = RNG.integers(0, 256, (height, width, 3), np.uint8)
    image = (frame.astype(np.float32) / 255 - np.float32(IMAGE_MEAN)) / np.float32(IMAGE_STD)
    with torch.inference_mode():
        _, noted = micro.model.trace(torch.from_numpy(image.transpose(2, 0, 1).copy()[None]), tasks)
    with edgemtl.load(bundle, tasks=tasks, threads=2) as engine:
        out, maps = expert_map.trace(engine, frame)
    assert tuple(out) == tuple(maps) == tasks
    for task, found in maps.items():
        assert found.blocks == micro.config.moe_blocks
        assert found.experts.shape == (len(found.blocks), *micro.config.grid, micro.config.top_k)
        for block, experts, path in zip(found.blocks, found.experts, micro.config.path(task), strict=True):
            wanted = noted.routings[task, block].expert[1:].numpy().reshape(experts.shape)
            assert (experts == wanted).mean() > 0.99, "equal but for near ties"
            assert set(np.unique(experts)) <= set(path)
            assert len(np.unique(experts)) > 1, "a map of one expert shows nothing"


def test_asking_changes_nothing(bundle: Path) -> None:
    needs_programs(bundle)
    frame = RNG.integers(0, 256, (40, 70, 3), np.uint8)
    with edgemtl.load(bundle, tasks="depth") as engine:
        plain = engine(frame)["depth"].map
        first, maps = expert_map.trace(engine, frame)
        kept = maps["depth"].experts.copy()
        engine(255 - frame)
        np.testing.assert_array_equal(maps["depth"].experts, kept)
        np.testing.assert_array_equal(first["depth"].map, plain)
        np.testing.assert_array_equal(engine(frame)["depth"].map, plain)


def test_a_frame_that_is_refused_leaves_no_tap_behind(bundle: Path) -> None:
    needs_programs(bundle)
    with edgemtl.load(bundle, tasks="depth") as engine:
        with pytest.raises(FrameError):
            expert_map.trace(engine, np.zeros((4, 4), np.uint8))
        tap = (engine.taps() or {})["depth"]
        assert tap is not None
        assert tap(np.empty(0, np.int64)) == 0


def test_backends_that_cannot_tell_say_so(bundle: Path) -> None:
    with edgemtl.load(bundle, backend="torch", tasks="depth") as engine:
        assert "backend 'torch' does not tell its routing" in (expert_map.obstacle(engine) or "")
        with pytest.raises(BackendError, match="there is no map of the experts: backend 'torch'"):
            expert_map.trace(engine, np.zeros((8, 8, 3), np.uint8))


def test_bundles_from_before_say_what_to_do(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_programs(bundle)
    with edgemtl.load(bundle, tasks="depth") as engine:
        monkeypatch.setattr(engine._runner, "_tap", lambda task: None)
        with pytest.raises(BackendError, match="compile it again"):
            expert_map.trace(engine, np.zeros((8, 8, 3), np.uint8))
