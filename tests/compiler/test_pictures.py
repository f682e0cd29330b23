"""Pictures to calibrate on, from a video: evenly spaced, in RGB, at the model's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl.errors import DataError, FrameError
from edgemtl_compiler.quantise.pictures import pictures


@pytest.fixture
def clip(micro: Any, tmp_path: Path) -> Path:
    """Ten frames of one colour each: frame i is red 20 * i, green 128, blue 255 - 20 * i."""
    height, width = micro.config.image_size
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (2 * width, 2 * height))
    for i in range(10):
        writer.write(np.full((2 * height, 2 * width, 3), (255 - 20 * i, 128, 20 * i), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("count", "frames"), [(10, range(10)), (99, range(10)), (5, range(0, 10, 2)), (1, [0])])
def test_frames_of_a_video(micro: Any, clip: Path, count: int, frames: Any) -> None:
    found = pictures(clip, micro.config, count)
    assert not found.labelled
    assert found.images.shape == (len(frames), 3, *micro.config.image_size)
    for image, i in zip(found.images, frames, strict=True):
        np.testing.assert_allclose(image.mean((1, 2)), (20 * i, 128, 255 - 20 * i), atol=4)


def test_what_is_no_video(micro: Any, tmp_path: Path) -> None:
    for name, kind, text in (
        ("a.mp4", FrameError, "no image or video that can be decoded"),
        ("a.txt", DataError, "is no folder and no video; give a folder of images"),
    ):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(kind, match=text):
            pictures(tmp_path / name, micro.config, 32)
