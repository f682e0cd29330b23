"""The second renderer: what needs Blender is skipped without it, the rest runs anywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from edgemtl.data.rooms.cycles import blender, develop
from edgemtl.data.rooms.write import RoomSet, generate, make_view, prepare
from edgemtl.errors import ConfigError, DataError

WITHOUT = importlib.util.find_spec("bpy") is None
SMALL = {"seed": 3, "count": 1, "height": 32, "width": 64}


@pytest.mark.skipif(not WITHOUT, reason="bpy is installed here")
def test_without_blender_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'edgemtl\[blender\]'"):
        blender()
    with pytest.raises(ConfigError, match="bpy"):
        generate(RoomSet(**SMALL, renderer="cycles"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(WITHOUT, reason="bpy is not installed: pip install 'edgemtl[blender]'")
def test_cycles_shows_the_same_room() -> None:
    """Labels are equal; the picture is another one of the same scene."""
    ours, theirs = (make_view(RoomSet(**SMALL, renderer=r), 0) for r in ("rays", "cycles"))
    for name in ("semseg", "depth", "normals", "edge"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    a, b = (v.rgb.astype(float).mean(-1) for v in (ours, theirs))
    assert np.abs(a - b).mean() > 2
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.5
    assert theirs.rgb.std() > 10


def test_sets_of_two_renderers_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no renderer 'povray'; choose one of rays, cycles"):
        RoomSet(**SMALL, renderer="povray")  # type: ignore[arg-type]
    assert "renderer" not in RoomSet(**SMALL).describe()  # sets made before there was a choice stay valid
    prepare(RoomSet(**SMALL), tmp_path)
    with pytest.raises(DataError, match="renderer is None, not 'cycles'"):
        prepare(RoomSet(**SMALL, renderer="cycles"), tmp_path)


def test_development_exposes_dark_and_bright_scenes_alike() -> None:
    """A camera's exposure: what counts is the scene's contrast, not its level; broken pixels do no harm."""
    ramp = np.linspace(0.2, 2, 64, dtype=np.float32) * np.ones((32, 1, 1), np.float32)
    light = np.repeat(ramp.reshape(32, 64, 1), 3, -1)
    dark, bright = (develop(light * k, np.random.default_rng(0)) for k in (np.float32(0.01), np.float32(100)))
    assert dark.dtype == np.uint8
    assert np.abs(dark.astype(int) - bright).max() <= 3
    rows = dark.astype(float).mean((0, 2))
    assert rows[:8].mean() + 60 < rows[-8:].mean()
    light[3, 3] = np.nan
    assert develop(light, np.random.default_rng(0)).shape == (32, 64, 3)
