"""Augmentation as geometry: a scene rendered, changed, and compared with the changed camera's view of the scene."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl import tasks
from edgemtl.data.augment import Change, draw, move, resize
from edgemtl.data.form import Augmentation, Label

LABELS = {
    "semseg": Label("semseg", "", 5),
    "depth": Label("depth", ""),
    "near": Label("depth", "", variant="inverse"),
    "normals": Label("normals", ""),
    "down": Label("normals", "", variant="y_down"),
    "edge": Label("edge", ""),
    "saliency": Label("saliency", ""),
}


def change(flip: bool = False, zoom: float = 1.0, left: float = 0.5, top: float = 0.5, degrees: float = 0.0) -> Change:
    return Change(flip, zoom, left, top, np.eye(3, 4, dtype=np.float32), degrees)


def item(seed: int = 0, size: tuple[int, int] = (32, 64)) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    normals = rng.standard_normal((*size, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    depth = rng.uniform(0.5, 9, size)
    return {
        "image": cv2.GaussianBlur(rng.integers(0, 256, (*size, 3)).astype(np.uint8), (9, 9), 3),
        "semseg": rng.integers(0, 6, size).astype(np.uint8),
        "depth": depth.astype(np.float16),
        "near": (1 / depth).astype(np.float16),
        "normals": normals.astype(np.float16),
        "down": (normals * [1, -1, 1]).astype(np.float16),
        "edge": (rng.random(size) < 0.1).astype(np.uint8),
        "saliency": (rng.random(size) < 0.4).astype(np.uint8),
    }


def plane_depth(normal: np.ndarray, offset: float, focal: float, size: tuple[int, int]) -> Any:
    """Depth along the axis of the plane n·p = offset, for a pinhole in the middle; axes x right, y up, z back."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    u, v = (x - (size[1] - 1) / 2) / focal, -(y - (size[0] - 1) / 2) / focal
    return offset / (normal[0] * u + normal[1] * v - normal[2])


def test_mirror() -> None:
    before = item()
    after = move(before, LABELS, change(flip=True))
    for name, value in before.items():
        expected = value[:, ::-1].copy()
        if name in ("normals", "down"):
            expected[..., 0] *= -1
        np.testing.assert_array_equal(after[name], expected)


@pytest.mark.parametrize(("left", "top", "x", "y"), [(0.0, 0.0, 0, 0), (0.999, 0.999, 21, 11)])
def test_zoom_cuts_and_enlarges(left: float, top: float, x: int, y: int) -> None:
    before = item()
    after = move(before, LABELS, change(zoom=1.5, left=left, top=top))
    rows, columns = (y + (np.arange(32) * 2 + 1) * 21 // 64), (x + (np.arange(64) * 2 + 1) * 43 // 128)
    part = (rows[:, None], columns)
    np.testing.assert_array_equal(after["semseg"], before["semseg"][part])
    np.testing.assert_allclose(after["depth"], before["depth"][part] / 1.5, rtol=2e-3)
    np.testing.assert_allclose(after["near"], before["near"][part] * 1.5, rtol=2e-3)
    np.testing.assert_array_equal(after["normals"], before["normals"][part])
    cut = before["image"][y : y + 21, x : x + 43]
    assert after["image"].shape == (32, 64, 3)
    assert abs(cut.mean() - after["image"].mean()) < 4


@settings(max_examples=25, deadline=None)
@given(
    zoom=st.floats(1.05, 1.5),
    tilt=st.floats(-0.6, 0.6),
    pan=st.floats(-0.6, 0.6),
)
def test_a_zoomed_plane_is_a_nearer_plane(zoom: float, tilt: float, pan: float) -> None:
    """What a zoom by z gives is the same camera's view of the scene pressed z times nearer along its axis."""
    size, focal = (40, 60), 70.0
    normal = np.array([pan, tilt, 1.0]) / np.linalg.norm([pan, tilt, 1.0])
    before = {"image": np.zeros((*size, 3), np.uint8), "depth": plane_depth(normal, -4, focal, size).astype(np.float16)}
    after = move(before, {"depth": LABELS["depth"]}, change(zoom=zoom))["depth"].astype(float)
    want = plane_depth(normal * [1, 1, zoom], -4, focal, size)
    inside = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(after[inside], want[inside], rtol=0.03)  # pixels are moved by up to one


@settings(max_examples=25, deadline=None)
@given(degrees=st.floats(-20, 20), tilt=st.floats(-0.6, 0.6), pan=st.floats(-0.6, 0.6))
def test_a_rotated_plane_has_rotated_normals(degrees: float, tilt: float, pan: float) -> None:
    """Depth moves with the pixels; the normals after the change are those of the plane that the depth then shows."""
    size, focal = (40, 60), 70.0
    normal = np.array([pan, tilt, 1.0]) / np.linalg.norm([pan, tilt, 1.0])
    everywhere = np.broadcast_to(normal, (*size, 3)).astype(np.float16)
    before = {
        "image": np.zeros((*size, 3), np.uint8),
        "depth": plane_depth(normal, -4, focal, size).astype(np.float16),
        "normals": everywhere,
        "down": everywhere * np.array([1, -1, 1], np.float16),
    }
    labels = {name: LABELS[name] for name in ("depth", "normals", "down")}
    after = move(before, labels, change(degrees=degrees))
    middle = after["normals"][20, 30].astype(float)
    seen = after["depth"].astype(float) > 0
    want = plane_depth(middle, -4, focal, size)
    np.testing.assert_allclose(after["depth"].astype(float)[seen], want[seen], rtol=0.03)
    np.testing.assert_array_equal(after["down"] * np.array([1, -1, 1], np.float16), after["normals"])
    assert np.linalg.norm(middle) == pytest.approx(1, abs=2e-3)


def test_rotation_turns_as_the_picture_does() -> None:
    """A counter-clockwise quarter turn takes a normal that points right to one that points up."""
    right = np.zeros((1, 1, 3), np.float16)
    right[..., 0] = 1
    np.testing.assert_allclose(tasks.find("normals").turned(right, 90, "")[0, 0], [0, 1, 0], atol=1e-3)
    before = item(size=(33, 33))
    before["image"][:] = 0
    before["image"][16, 28] = 255  # right of the middle
    after = move(before, LABELS, change(degrees=90))
    assert np.unravel_index(after["image"][..., 0].argmax(), (33, 33)) == (4, 16)  # above it
    assert after["semseg"][4, 16] == before["semseg"][16, 28]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), degrees=st.floats(-20, 20), zoom=st.floats(0.75, 1.5), flip=st.booleans())
def test_labels_stay_labels(seed: int, degrees: float, zoom: float, flip: bool) -> None:
    """No change invents a class, mixes two labels, or leaves a normal that is not unit; shapes and types stay."""
    before = item(seed)
    after = move(before, LABELS, change(flip=flip, zoom=zoom, degrees=degrees))
    for name, value in before.items():
        assert after[name].shape == value.shape
        assert after[name].dtype == value.dtype
    assert set(np.unique(after["semseg"])) <= set(np.unique(before["semseg"])) | {0}
    assert set(np.unique(after["edge"])) <= {0, 1, 255}
    length = np.linalg.norm(after["normals"].astype(float), axis=-1)
    assert np.all((np.abs(length - 1) < 5e-3) | (length == 0))


def test_what_comes_in_from_outside_has_no_label() -> None:
    before = item()
    before["semseg"][:], before["edge"][:] = 3, 1
    after = move(before, LABELS, change(zoom=0.75))
    corner = {name: value[0, 0].tolist() for name, value in after.items()}
    assert (corner["semseg"], corner["depth"], corner["edge"], corner["saliency"]) == (0, 0, 255, 255)
    assert corner["normals"] == [0, 0, 0]
    assert corner["image"] == [124, 116, 104]  # the mean picture, which is 0 to the network
    assert after["semseg"][16, 32] == 3
    other = move(before, LABELS, change(zoom=0.75), (10, 20, 30))
    assert other["image"][0, 0].tolist() == [10, 20, 30]


def test_policies() -> None:
    fixed = [draw(Augmentation(), 0, 0, i) for i in range(300)]
    assert {d.zoom for d in fixed} == {1.0, 1.2, 1.5}
    assert {d.degrees for d in fixed} == {0.0}
    assert 100 < sum(d.flip for d in fixed) < 200
    grey = np.array([d.colour @ [0.45, 0.45, 0.45, 1] for d in fixed])
    assert 0.25 < grey.min() < grey.max() < 0.8
    assert grey.std() > 0.03
    free = [draw(Augmentation((0.75, 1.25), True, 20), 0, 0, i) for i in range(300)]
    assert 0.75 <= min(d.zoom for d in free) < 0.8 < 1.2 < max(d.zoom for d in free) <= 1.25
    assert -20 <= min(d.degrees for d in free) < -15 < 15 < max(d.degrees for d in free) <= 20


def test_thin_lines_survive_a_smaller_size() -> None:
    edge = np.zeros((32, 64), np.uint8)
    edge[:, 33] = 1
    edge[:4] = 255
    small = resize(edge, LABELS["edge"], (16, 32))
    assert small[2:, 16].all()
    assert not small[2:, 17:].any()
    assert (small[:2] == 255).all()
