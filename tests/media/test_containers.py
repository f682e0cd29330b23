"""Video files that end before their end, as their own headers say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgemtl.errors import FrameError
from edgemtl.media.containers import cut_off
from edgemtl.media.sources import open_source


@pytest.fixture(params=["mkv", "mp4"])
def video(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"v.{request.param}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for i in range(30):
        writer.write(np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


def test_by_the_header(video: Path) -> None:
    data = video.read_bytes()
    assert not cut_off(video)
    for end in (len(data) - 1, len(data) // 2):
        video.write_bytes(data[:end])
        assert cut_off(video)
    video.write_bytes(data + b"\0\0\0\x08free")
    assert not cut_off(video)


def test_a_live_recording_states_no_size(tmp_path: Path) -> None:
    path = tmp_path / "v.webm"
    path.write_bytes(b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x01" + b"\xff" * 7 + bytes(99))
    assert not cut_off(path)
    path.write_bytes(b"\x1a\x45\xdf\xa3\x81\0\x18\x53\x80\x67\x01" + bytes(6) + b"\x64" + bytes(99))
    assert cut_off(path)


def test_a_long_box(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    long = b"\0\0\0\x08ftyp" + b"\0\0\0\x01mdat" + (116).to_bytes(8, "big")
    path.write_bytes(long + bytes(100))
    assert not cut_off(path)
    path.write_bytes(long + bytes(99))
    assert cut_off(path)


@pytest.mark.parametrize("head", [b"", b"\x1a\x45\xdf\xa3", b"\0\0\0\0ftyp", b"\0\0\0\x01mdat", b"RIFF0000AVI "])
def test_damage_is_no_cut(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "v").write_bytes(head)
    assert not cut_off(tmp_path / "v")


def test_a_cut_recording_is_told(video: Path) -> None:
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    if video.suffix == ".mp4":  # OpenCV writes its index at the end
        with pytest.raises(FrameError, match="is no image or video that can be decoded, or it is damaged"):
            open_source(video)
        return
    with open_source(video) as source:
        read = len(list(source))
    assert 0 < read < 30
    assert source.left_out.count == 30 - read
    assert "v.mkv is cut off: after frame" in source.left_out.lines()[0]
