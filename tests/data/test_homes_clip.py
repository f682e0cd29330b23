"""The clip: a smooth closed path that touches nothing, and what is written of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from test_homes_catalogue import write_catalogue

from edgemtl.data.homes import clip as clips
from edgemtl.data.homes.clip import CLEARANCE, Clip, Path3D, find_path, room_to_spare, write_clip
from edgemtl.data.homes.write import home
from edgemtl.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return (str(write_catalogue(tmp_path_factory.mktemp("furniture") / "tiny.sh3f")),)


@pytest.fixture(scope="module")
def tiny(furniture: tuple[str, ...]) -> Clip:
    return Clip(furniture, seed=1, seconds=0.5, fps=8, height=32, width=64)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_path_keeps_clear(furniture: tuple[str, ...], seed: int) -> None:
    made, world = home(furniture, seed, 0)
    path = find_path(made, world, np.random.default_rng(0))
    assert room_to_spare(world, path, points=100) > CLEARANCE - 0.05
    eyes = np.array([path.camera(k / 50).eye for k in range(51)])
    np.testing.assert_allclose(eyes[0], eyes[-1], atol=1e-6)  # closed
    assert np.linalg.norm(np.diff(eyes, axis=0), axis=1).max() < 0.4  # and without jumps


def test_a_path_through_a_wall_has_no_room(furniture: tuple[str, ...]) -> None:
    made, world = home(furniture, 1, 0)
    room = made.rooms[0]
    assert room_to_spare(world, Path3D((room.x1, (room.y0 + room.y1) / 2, 1.5), 0.8, 0.3, 0, 0, 0)) == 0.0


def test_video(tiny: Clip, tmp_path: Path) -> None:
    ticks: list[int] = []
    out = write_clip(tiny, tmp_path / "a.mp4", report=ticks.append)
    assert out.suffix in (".mp4", ".avi")
    assert sum(ticks) == 4
    video = cv2.VideoCapture(str(out))
    frames = 0
    while True:
        ok, frame = video.read()
        if not ok:
            break
        assert frame.shape == (32, 64, 3)
        assert frame.std() > 10
        frames += 1
    assert frames == 4
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_frames_and_workers_agree(tiny: Clip, tmp_path: Path) -> None:
    write_clip(tiny, tmp_path / "one")
    write_clip(tiny, tmp_path / "two", workers=2)
    names = [f"{i:05d}.png" for i in range(4)]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == names
    data = [(tmp_path / "one" / n).read_bytes() for n in names]
    assert data == [(tmp_path / "two" / n).read_bytes() for n in names]
    assert len(set(data)) == 4  # the camera moves


def test_motion_jpeg_where_there_is_no_mpeg4(tiny: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(clips.VIDEO_CODES, ".mp4", "zzzz")
    assert write_clip(tiny, tmp_path / "a.mp4") == tmp_path / "a.avi"
    assert (tmp_path / "a.avi").stat().st_size > 1000


def test_bad_requests(tiny: Clip, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in '\.gif'"):
        write_clip(tiny, tmp_path / "a.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        write_clip(tiny, tmp_path / "file")
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        write_clip(tiny, tmp_path / "b.mp4")
    for bad in (
        {"seconds": 0},
        {"fps": 0},
        {"fps": float("nan")},
        {"seconds": 0.1, "fps": 5},
        {"seed": -1},
        {"height": 1},
    ):
        with pytest.raises(ConfigError):
            Clip((), **bad)  # type: ignore[arg-type]
