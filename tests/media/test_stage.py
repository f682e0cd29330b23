"""What a demo shows: tiles, choices, figures. On the micro bundle, with whatever backend works here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemtl
from edgemtl.errors import FrameError, TaskError
from edgemtl.media.feed import Frame
from edgemtl.media.stage import WIDEST, Stage, Tile, compose

IMAGE = np.random.default_rng(2).integers(0, 256, (48, 80, 3), np.uint8)


def frame(image: Any = IMAGE, age: float = 0.0) -> Frame:
    return Frame(image, 0.0, "0", time.monotonic() - age)


@pytest.fixture
def stage(bundle: Path) -> Iterator[Stage]:
    with edgemtl.load(bundle) as engine:
        yield Stage(engine, engine.tasks)


class TestPictures:
    @pytest.mark.parametrize("task", ["semseg", "depth", "normals", "edge"])
    def test_blend(self, stage: Stage, task: str) -> None:
        stage.select(task)
        stage.blend = 0.0
        (camera,) = stage.show(frame())
        np.testing.assert_array_equal(camera.picture, IMAGE)
        stage.blend = 1.0
        (first,) = stage.show(frame())
        stage.show(frame(255 - IMAGE))
        assert first.title == task
        assert first.strip.shape[1] == IMAGE.shape[1]
        grey = (first.picture == first.picture[..., :1]).all()
        assert grey == (task == "edge"), "all but edges are in colour"

    def test_two_tasks_and_their_experts(self, stage: Stage) -> None:
        stage.select("depth", "normals")
        assert [t.title for t in stage.show(frame())] == ["depth", "normals"]
        if stage.no_experts:
            pytest.skip(f"no map of the experts: {stage.no_experts}")
        block = stage.engine.manifest.model.moe_blocks[-1]
        stage.apply(None, block)
        tiles = stage.show(frame())
        assert [t.title for t in tiles[2:]] == [f"{t}: experts of block {block}" for t in ("depth", "normals")]
        assert (tiles[2].picture != tiles[3].picture).any(), "the tasks' paths differ"
        assert compose(tiles).shape[0] > 2 * IMAGE.shape[0]
        stage.apply(None, -1)
        assert len(stage.show(frame())) == 2

    def test_the_map_of_experts_lies_where_the_patches_are(self, stage: Stage) -> None:
        """A change in the picture's left half must not be drawn beside it: sizes other than the network's, too."""
        if stage.no_experts:
            pytest.skip(f"no map of the experts: {stage.no_experts}")
        stage.apply(1.0, stage.engine.manifest.model.moe_blocks[0])
        for shape in ((48, 80), (31, 211), (200, 40)):
            (_, experts) = stage.show(frame(np.zeros((*shape, 3), np.uint8)))
            assert experts.picture.shape == (*shape, 3)

    def test_the_camera_beside(self, stage: Stage) -> None:
        stage.camera = True
        camera, task = stage.show(frame())
        np.testing.assert_array_equal(camera.picture, IMAGE)
        assert compose([camera, task], titles=False, strips=False).shape == (48, 160, 3)

    def test_wide_frames_are_shown_smaller(self, stage: Stage) -> None:
        (tile,) = stage.show(frame(np.zeros((300, 2 * WIDEST, 3), np.uint8)))
        assert tile.picture.shape == (150, WIDEST, 3)

    @pytest.mark.parametrize("size", [(1, 4096), (4096, 1), (1, 1), (2, 16384)])
    def test_extreme_sizes(self, stage: Stage, size: tuple[int, int]) -> None:
        stage.camera = True
        for task in stage.tasks:
            stage.select(task)
            tiles = stage.show(frame(np.zeros((*size, 3), np.uint8)))
            assert all(side > 0 for tile in tiles for side in tile.picture.shape)
            assert compose(tiles).shape[1] <= 2 * WIDEST

    def test_fixed_and_following_depths(self, bundle: Path, stage: Stage) -> None:
        stage.select("depth")
        stage.show(frame())
        assert stage.limits["depth"][0] < stage.limits["depth"][1]
        with edgemtl.load(bundle) as engine:
            fixed = Stage(engine, ["depth"], depth_limits=(0, 8))
            fixed.show(frame())
            assert fixed.figures()["limits"] == {"depth": [0, 8]}

    def test_an_unknown_colour_map_is_refused_at_once(self, bundle: Path) -> None:
        with edgemtl.load(bundle) as engine, pytest.raises(FrameError, match="no colour map 'jet'"):
            Stage(engine, engine.tasks, colormap="jet")


def test_tiles_of_different_heights_stand_beside_each_other() -> None:
    tiles = [
        Tile(n, np.full((20, 30, 3), 9, np.uint8), np.full((h, 30, 3), 7, np.uint8)) for n, h in (("a", 0), ("b", 36))
    ]
    assert compose(tiles).shape == (18 + 20 + 36, 60, 3)
    assert compose(tiles[:1], titles=False, strips=False).shape == (20, 30, 3)


class TestChoices:
    @pytest.mark.parametrize("tasks", [(), ("dept",), ("depth", "edge", "normals")])
    def test_impossible_ones_change_nothing(self, stage: Stage, tasks: tuple[str, ...]) -> None:
        before = stage.engine.active
        with pytest.raises(TaskError, match="one or two of semseg, depth, normals, edge can be shown"):
            stage.select(*tasks)
        assert stage.engine.active == before

    def test_only_what_is_on_offer(self, bundle: Path) -> None:
        with edgemtl.load(bundle) as engine:
            stage = Stage(engine, ["depth", "edge"])
            assert engine.active == ("depth",)
            with pytest.raises(TaskError, match="one or two of depth, edge can"):
                stage.select("semseg")

    def test_a_block_without_experts(self, stage: Stage) -> None:
        with pytest.raises(TaskError, match="there is no map of the experts"):
            stage.apply(0.5, 4000)
        assert stage.experts is None


class TestFigures:
    def test_they_are_plain_data_that_moves(self, stage: Stage) -> None:
        json.dumps(stage.about())
        json.dumps(stage.figures())  # before the first frame, too
        for _ in range(5):
            stage.show(frame(age=0.5))
        found = json.loads(json.dumps(stage.figures()))
        assert found["frames"] == 5
        assert 0 < found["p50_ms"] <= found["p95_ms"]
        assert found["age_ms"] > 500
        assert found["active"] == ["semseg"]
        assert set(found["costs"]) == {"depth", "normals", "edge"}
        assert set(found["beside"]) == {"depth", "normals", "edge"}
        assert found["weights"]["origin"] in ("smaps", "not measured")

    def test_a_switch_is_told_and_was_foretold(self, stage: Stage) -> None:
        said = stage.figures()["costs"]["depth"]
        stage.select("depth")
        found = stage.figures()
        assert (found["switch"]["from"], found["switch"]["to"]) == (["semseg"], ["depth"])
        if found["switch"]["bytes_mapped"] is not None:
            assert (found["switch"]["bytes_mapped"], found["switch"]["bytes_dropped"]) == (said["map"], said["drop"])
        assert "depth" not in found["costs"]

    def test_a_second_task_beside_the_first_costs_what_was_foretold(self, stage: Stage) -> None:
        said = stage.figures()["beside"]["depth"]
        stage.select("semseg", "depth")
        found = stage.figures()
        assert said["map"] > said["drop"] == 0
        if found["switch"]["bytes_mapped"] is not None:
            assert (found["switch"]["bytes_mapped"], found["switch"]["bytes_dropped"]) == (said["map"], said["drop"])
        assert set(found["beside"]) == {"", "normals", "edge"}, "leaving the second one is a switch too"

    def test_the_rate_falls_when_frames_stop(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr("edgemtl.media.stage.time.monotonic", lambda: now[0])
        for _ in range(31):
            now[0] += 0.1
            stage.show(Frame(IMAGE, 0.0, "0", 0.0))
        assert stage.figures()["fps"] == pytest.approx(10, rel=0.05)
        now[0] += 10
        assert stage.figures()["fps"] == 0

    def test_classes_present(self, stage: Stage) -> None:
        stage.show(frame())
        present = stage.figures()["present"]["semseg"]
        assert present == sorted(set(present))
        assert present
        assert max(present) < len(stage.about()["tasks"]["semseg"]["colours"])
