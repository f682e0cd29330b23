"""Raw maps become maps at the frame's size: right values, right place, right type."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.media.preprocess import Geometry

SEMSEG = TaskConfig(name="semseg", kind="semseg", channels=13)
DEPTH = TaskConfig(name="depth", kind="depth", channels=1)
NORMALS = TaskConfig(name="normals", kind="normals", channels=3)
EDGE = TaskConfig(name="edge", kind="edge", channels=1)
SALIENCY = TaskConfig(name="sal", kind="saliency", channels=1)
RNG = np.random.default_rng(0)


def whole(height: int, width: int) -> Geometry:
    """A frame stretched over an input of 32x64, whose raw map has 8x16 cells."""
    return Geometry((height, width), 0, 0, 32, 64)


def raw(task: TaskConfig) -> Any:
    return RNG.normal(size=(task.channels, 8, 16)).astype(np.float32)


def to_frame(task: TaskConfig, raw: Any, place: Geometry, stride: int, out: Any = None) -> Any:
    return tasks.find(task.kind).result(place.cut(raw, stride), place.frame, out)


def resized(planes: Any, height: int, width: int) -> Any:
    return np.stack([cv2.resize(p, (width, height), interpolation=cv2.INTER_LINEAR) for p in planes])


SIZES = [(8, 16), (32, 64), (37, 101), (5, 3), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_each_kind_against_a_plain_reference(size: tuple[int, int]) -> None:
    r = raw(SEMSEG)
    got = to_frame(SEMSEG, r, whole(*size), 4)
    assert (got.dtype, got.shape) == (np.uint8, size)
    np.testing.assert_array_equal(got, resized(r, *size).argmax(0))
    r = raw(DEPTH)
    got = to_frame(DEPTH, r, whole(*size), 4)
    assert (got.dtype, got.shape) == (np.float32, size)
    np.testing.assert_array_equal(got, np.maximum(resized(r, *size)[0], 0))
    r = raw(NORMALS)
    got = to_frame(NORMALS, r, whole(*size), 4)
    assert (got.dtype, got.shape) == (np.float32, (*size, 3))
    want = resized(r, *size)
    np.testing.assert_allclose(got, (want / np.linalg.norm(want, axis=0)).transpose(1, 2, 0), atol=1e-5)
    for task in (EDGE, SALIENCY):
        r = raw(task)
        got = to_frame(task, r, whole(*size), 4)
        assert (got.dtype, got.shape) == (np.float32, size)
        np.testing.assert_allclose(got, 1 / (1 + np.exp(-resized(r, *size)[0])), atol=1e-6)


def test_ties_go_to_the_lower_class() -> None:
    r = np.zeros((13, 8, 16), np.float32)
    r[3:5] = 1
    assert set(np.unique(to_frame(SEMSEG, r, whole(20, 20), 4))) == {3}


def test_classes_above_127_and_negative_logits() -> None:
    task = TaskConfig(name="s", kind="semseg", channels=256)
    r = np.full((256, 8, 16), -1e30, np.float32)
    r[255, :4], r[200, 4:] = -5, -5
    got = to_frame(task, r, whole(8, 16), 4)
    np.testing.assert_array_equal(got, np.repeat([[255], [200]], 4, 0).repeat(16, 1))


def test_one_class() -> None:
    task = TaskConfig(name="s", kind="semseg", channels=1)
    assert not to_frame(task, np.ones((1, 8, 16), np.float32), whole(5, 5), 4).any()


def test_zero_normals_point_at_the_camera() -> None:
    got = to_frame(NORMALS, np.zeros((3, 8, 16), np.float32), whole(9, 9), 4)
    np.testing.assert_array_equal(got, np.broadcast_to(np.float32([0, 0, 1]), (9, 9, 3)))


def test_extreme_logits_stay_finite() -> None:
    r = np.array([-1e30, 1e30], np.float32).repeat(64).reshape(1, 8, 16)
    with np.errstate(all="raise"):
        got = to_frame(EDGE, r, whole(8, 16), 4)
    assert got[0, 0] == pytest.approx(0, abs=1e-30)
    assert got[-1, -1] == 1


@pytest.mark.parametrize("task", [SEMSEG, DEPTH, NORMALS, EDGE])
def test_letterboxed_maps_are_cropped(task: TaskConfig) -> None:
    """What lies under the padding has no influence."""
    place = Geometry((100, 100), 0, 16, 32, 32)
    r = raw(task)
    want = to_frame(task, np.ascontiguousarray(r[:, :, 4:12]), Geometry((100, 100), 0, 0, 32, 32), 4)
    r[:, :, :4], r[:, :, 12:] = 1e6, -1e6
    np.testing.assert_array_equal(to_frame(task, r, place, 4), want)


@pytest.mark.parametrize("task", [SEMSEG, DEPTH, NORMALS, EDGE])
def test_the_raw_map_is_left_alone(task: TaskConfig) -> None:
    r = raw(task)
    before = r.copy()
    got = to_frame(task, r, whole(8, 16), 4)
    assert not np.shares_memory(got, r)
    np.testing.assert_array_equal(r, before)
