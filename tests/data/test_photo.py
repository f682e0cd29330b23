"""A camera's flaws as augmentation: each step against the optics or arithmetic it stands for; labels stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgemtl.data.dataset import NyudMT
from edgemtl.data.photo import CHANCES, Shot, draw_shot, take
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import ConfigError

TASKS = ("semseg", "depth", "normals", "edge")


def light(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB bytes (IEC 61966-2-1)."""
    v = value / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def flat(value: int, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def point() -> np.ndarray:
    picture = np.zeros((21, 31, 3), np.uint8)
    picture[10, 15] = 255
    return picture


def test_nothing_happens_without_a_flaw() -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert take(every, Shot(seed=5)) is every
    np.testing.assert_array_equal(take(every, Shot(vignette=1e-9)), every)  # to light and back


def test_exposure_and_balance_are_gains_of_light() -> None:
    for value, gain, want in ((188, 0.5, 137), (100, 2.0, 138), (200, 2.0, 255)):  # 188 is 0.503 of full light
        assert take(flat(value), Shot(gain=(gain,) * 3))[0, 0].tolist() == pytest.approx([want] * 3, abs=1)
    red = take(flat(100), Shot(gain=(2.0, 1.0, 0.5)))[0, 0].tolist()
    assert red[1] == 100
    assert light(np.array(red)) == pytest.approx(light(np.array([100])) * [2, 1, 0.5], rel=0.03)
    assert take(flat(100), Shot(gamma=0.8))[0, 0, 0] == round(255 * (100 / 255) ** 0.8)


@pytest.mark.parametrize(("value", "shot", "read"), [(188, 0.004, 0.0), (60, 0.004, 0.01), (120, 0.0, 0.02)])
def test_noise_has_the_variance_of_the_model(value: int, shot: float, read: float) -> None:
    noisy = light(take(flat(value, (150, 150)), Shot(shot=shot, read=read, seed=3)))
    level = float(light(np.array(value)))
    assert noisy.mean() == pytest.approx(level, rel=0.02)
    assert noisy.std() == pytest.approx(np.sqrt(shot * level + read**2), rel=0.05)
    other = take(flat(value), Shot(shot=shot, read=read, seed=4))
    assert not np.array_equal(other, take(flat(value), Shot(shot=shot, read=read, seed=3)))


@pytest.mark.parametrize("how", [Shot(sigma=1.1), Shot(motion=5.0, angle=0.0), Shot(motion=4.2, angle=67.0)])
def test_blur_moves_nothing(how: Shot) -> None:
    """A point's light stays as much and centred where it was, so labels still fit."""
    seen = light(take(point(), how))[..., 0]
    y, x = np.mgrid[:21, :31]
    assert seen.sum() == pytest.approx(1, abs=0.02)
    assert (seen * y).sum() / seen.sum() == pytest.approx(10, abs=0.02)
    assert (seen * x).sum() / seen.sum() == pytest.approx(15, abs=0.02)
    assert seen.max() < 0.6


def test_motion_has_a_direction() -> None:
    along = take(point(), Shot(motion=5.0, angle=0.0))[..., 0]
    assert set(np.nonzero(along)[0]) == {10}
    assert np.flatnonzero(along[10]).tolist() == [13, 14, 15, 16, 17]
    np.testing.assert_array_equal(take(point().transpose(1, 0, 2), Shot(motion=5.0, angle=90.0))[..., 0], along.T)


def test_corners_are_darker() -> None:
    seen = light(take(flat(200, (21, 31)), Shot(vignette=0.5))[..., 1])
    full = float(light(np.array(200)))
    assert seen[10, 15] == pytest.approx(full, rel=0.02)
    for corner in (seen[0, 0], seen[0, -1], seen[-1, 0], seen[-1, -1]):
        assert corner == pytest.approx(full / 2, rel=0.02)


def test_compression_keeps_place_and_colour() -> None:
    y, x = np.mgrid[:64, :64]
    picture = np.stack([200 + 0 * x, 30 + x, 20 + y], -1).astype(np.uint8)
    error = [np.abs(take(picture, Shot(quality=q)).astype(int) - picture).mean() for q in (95, 20)]
    assert error[0] < 1 < error[1] < 8
    assert take(picture, Shot(quality=95)).shape == picture.shape


def test_how_often() -> None:
    assert {draw_shot(0.0, 0, 0, i).linear or draw_shot(0.0, 0, 0, i).quality for i in range(50)} == {0}
    for photo in (0.4, 1.0):
        shots = [draw_shot(photo, 1, 2, i) for i in range(800)]
        share = {
            "tone": np.mean([s.gamma != 1 for s in shots]),
            "noise": np.mean([s.shot > 0 for s in shots]),
            "blur": np.mean([s.sigma > 0 or s.motion > 0 for s in shots]),
            "vignette": np.mean([s.vignette > 0 for s in shots]),
            "jpeg": np.mean([s.quality > 0 for s in shots]),
            "exposure": np.mean([s.gain[1] != 1 for s in shots]),
            "balance": np.mean([s.gain[0] != s.gain[1] for s in shots]),
        }
        assert share == pytest.approx({name: photo * chance for name, chance in CHANCES.items()}, abs=0.05)
    assert draw_shot(1.0, 1, 2, 3) == draw_shot(1.0, 1, 2, 3)
    assert len({draw_shot(1.0, *place) for place in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}) == 4


def test_only_pictures_of_a_training_change(tmp_path: Path) -> None:
    generate(RoomSet(seed=6, count=8, height=32, width=64, val_share=0), tmp_path / "rooms")
    root, some = tmp_path / "rooms", [0, 3, 5, 6]

    def batch(epoch: int = 2, **options: object) -> dict[str, torch.Tensor]:
        data = NyudMT(root, "train", TASKS, **{"train": True, "seed": 3, **options})
        data.set_epoch(epoch)
        return data.batch(some)

    plain, photo = batch(), batch(photo=1.0)
    for name, value in plain.items():
        same = torch.equal(value.nan_to_num(), photo[name].nan_to_num())
        assert same == (name != "image"), name
    assert torch.equal(photo["image"], batch(photo=1.0, cache=True)["image"])
    assert not torch.equal(photo["image"], batch(photo=1.0, epoch=3)["image"])
    assert torch.equal(plain["image"], batch(photo=0.0)["image"])
    assert torch.equal(batch(train=False)["image"], batch(train=False, photo=1.0)["image"])
    with pytest.raises(ConfigError, match="photo is 1.5; give a number from 0 to 1"):
        batch(photo=1.5)
