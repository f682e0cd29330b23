"""Pictures to calibrate on, from a video: evenly spaced, in RGB, at the model's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl.errors import DataError
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


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"])
def test_a_folder_of_what_run_takes(micro: Any, tmp_path: Path, capsys: Any, suffix: str) -> None:
    for i in range(6):
        data = cv2.imencode(suffix, np.full((9, 7, 3), (255 - 20 * i, 128, 20 * i), np.uint8))[1].tobytes()
        (tmp_path / f"{i}{suffix if i % 2 else ''}").write_bytes(data)
    (tmp_path / "._1.jpg").write_bytes(bytes(60))
    found = pictures(tmp_path, micro.config, 3)
    assert [round(float(image[0].mean()) / 20) for image in found.images] == [0, 2, 4]
    assert capsys.readouterr().err == ""
    (tmp_path / "6.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    assert len(pictures(tmp_path, micro.config, 99).images) == 6
    assert "6.heic is a HEIC file, which is not read" in capsys.readouterr().err


def test_what_gives_no_pictures(micro: Any, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.txt"):
        (tmp_path / name).write_text("nothing")
        with pytest.raises(DataError, match="no (image or video|frame) that can be decoded"):
            pictures(tmp_path / name, micro.config, 32)
    with pytest.raises(DataError, match="does not exist; give a folder of images"):
        pictures(tmp_path / "no", micro.config, 32)
