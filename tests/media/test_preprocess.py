"""Frames become the network's input the same way a plain reference does it, whatever their size, strides or order."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.bundle.manifest import Preprocess
from edgemtl.config import IMAGE_MEAN, IMAGE_STD
from edgemtl.errors import FrameError
from edgemtl.media.preprocess import MAX_SIDE, Preprocessor, aligned_zeros, check_frame
from edgemtl.model.presets import preset

CONFIG = preset("micro")  # input 32x64
STRETCH, BOX = Preprocess(), Preprocess(mode="letterbox", fill=10)


def frame(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def normalised(image: Any) -> Any:
    """Float64 reference for an RGB image of the input's size."""
    return ((image / 255 - IMAGE_MEAN) / IMAGE_STD).transpose(2, 0, 1)[None]


def test_native_size_is_only_normalised() -> None:
    f = frame(32, 64)
    got, place = Preprocessor(CONFIG, STRETCH)(f, "rgb")
    np.testing.assert_allclose(got, normalised(f), atol=1e-6)
    assert got.dtype == np.float32
    assert (place.frame, place.top, place.left, place.height, place.width) == ((32, 64), 0, 0, 32, 64)


def test_other_statistics() -> None:
    f = frame(32, 64)
    settings = Preprocess(mean=(0.1, 0.2, 0.3), std=(1, 2, 4))
    got, _ = Preprocessor(CONFIG, settings)(f, "rgb")
    want = ((f / 255 - (0.1, 0.2, 0.3)) / (1, 2, 4)).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("size", [(64, 128), (10, 20), (33, 64), (240, 480)])
def test_stretching(size: tuple[int, int]) -> None:
    f = frame(*size)
    shrinks = size[0] > 32 and size[1] > 64
    resized = cv2.resize(f, (64, 32), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    got, _ = Preprocessor(CONFIG, STRETCH)(f, "rgb")
    np.testing.assert_allclose(got, normalised(resized), atol=1e-6)


def test_bgr_is_rgb_turned() -> None:
    f, p = frame(50, 70), Preprocessor(CONFIG, STRETCH)
    rgb = p(f, "rgb")[0].copy()
    np.testing.assert_array_equal(p(f[..., ::-1], "bgr")[0], rgb)
    assert not np.array_equal(p(f, "bgr")[0], rgb)


@pytest.mark.parametrize(
    "view",
    [
        lambda f: np.asfortranarray(f),
        lambda f: np.repeat(np.repeat(f, 2, 0), 3, 1)[::2, ::3],
        lambda f: np.ascontiguousarray(f[::-1])[::-1],
        lambda f: np.ascontiguousarray(f[:, ::-1])[:, ::-1],
        lambda f: np.ascontiguousarray(f.transpose(2, 0, 1)).transpose(1, 2, 0),
        lambda f: np.concatenate([f, f], -1)[..., :3],
        lambda f: np.frombuffer(f.tobytes(), np.uint8).reshape(f.shape),  # read-only
    ],
)
def test_strides_do_not_matter(view: Any) -> None:
    f, p = frame(45, 81), Preprocessor(CONFIG, BOX)
    want = p(f, "rgb")[0].copy()
    strange = view(f)
    np.testing.assert_array_equal(strange, f)
    np.testing.assert_array_equal(p(strange, "rgb")[0], want)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ((32, 64), (0, 0, 32, 64)),
        ((64, 64), (0, 16, 32, 32)),
        ((10, 40), (8, 0, 16, 64)),
        ((1, 1), (0, 16, 32, 32)),
        ((1000, 1), (0, 28, 32, 4)),
        ((1, 1000), (12, 0, 4, 64)),
    ],
)
def test_letterbox(size: tuple[int, int], place: tuple[int, ...]) -> None:
    p = Preprocessor(CONFIG, BOX)
    got, g = p(np.full((*size, 3), 200, np.uint8), "rgb")
    assert (g.top, g.left, g.height, g.width) == place
    inside = np.zeros((32, 64), bool)
    inside[g.top : g.top + g.height, g.left : g.left + g.width] = True
    want = normalised(np.where(inside[..., None], np.full(3, 200), np.full(3, 10)))
    np.testing.assert_allclose(got, want, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_letterbox_lies_inside_on_whole_cells(height: int, width: int) -> None:
    g = Preprocessor(CONFIG, BOX).geometry((height, width))
    s = CONFIG.head_stride
    assert not any(v % s for v in (g.top, g.left, g.height, g.width))
    assert 0 <= g.top <= g.top + g.height <= 32
    assert 0 <= g.left <= g.left + g.width <= 64
    assert (g.height, g.width) >= (s, s)
    scale = min(32 / height, 64 / width)
    assert abs(g.height - height * scale) <= max(s / 2, s - height * scale)
    assert abs(g.width - width * scale) <= max(s / 2, s - width * scale)


def test_the_buffer_does_not_remember_the_last_frame() -> None:
    p = Preprocessor(CONFIG, BOX)
    tall, wide = frame(50, 10, 1), frame(10, 50, 2)
    want = p(tall, "rgb")[0].copy()
    p(wide, "rgb")
    np.testing.assert_array_equal(p(tall, "rgb")[0], want)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "None: did the camera or file give no frame"),
        ([[1]], "a list, but .* try numpy.asarray"),
        ("x.png", "a str"),
        (np.zeros((4, 4), np.uint8), r"grey, shape \(4, 4\).*cv2.cvtColor"),
        (np.zeros((4, 4, 1), np.uint8), r"shape \(4, 4, 1\)"),
        (np.zeros((4, 4, 4), np.uint8), r"try frame\[:, :, :3\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"try frame\[0\]"),
        (np.zeros((3, 4, 5), np.uint8), r"try frame.transpose\(1, 2, 0\)"),
        (np.zeros((), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.float32), r"float32, but .* \(frame \* 255\)"),
        (np.full((4, 4, 3), np.nan), "float64"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), object), "object"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((MAX_SIDE + 1, 1, 3), np.uint8), "at most 16384"),
    ],
)
def test_frames_that_are_none(given: Any, words: str) -> None:
    with pytest.raises(FrameError, match=words) as caught:
        Preprocessor(CONFIG, STRETCH)(given, "rgb")
    assert "uint8 array [height, width, 3]" in str(caught.value) or "at most" in str(caught.value)


def test_the_largest_frame() -> None:
    f = np.zeros((MAX_SIDE, 2, 3), np.uint8)
    assert check_frame(f) is f
    Preprocessor(CONFIG, BOX)(f, "rgb")


def test_alignment() -> None:
    for _ in range(20):
        a = aligned_zeros((1, 3, 5, 7))
        assert a.ctypes.data % 64 == 0
        assert a.shape == (1, 3, 5, 7)
        assert not a.any()
