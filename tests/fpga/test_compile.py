"""`edgemtl compile --target zcu104`: from a checkpoint and a folder of pictures to a bundle for the accelerator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgemtl.bundle.reader import Bundle
from edgemtl.fpga import program
from edgemtl.model.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def files(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and a folder of 34 pictures."""
    folder = tmp_path_factory.mktemp("compile")
    save_checkpoint(folder / "micro.safetensors", micro.model)
    (folder / "pictures").mkdir()
    height, width = micro.config.image_size
    rng = np.random.default_rng(2)
    for i in range(34):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{i:02}.png"), coarse.repeat(8, 0).repeat(8, 1))
    return folder / "micro.safetensors", folder / "pictures"


@pytest.fixture
def compiled(cli: Callable[..., Any], files: tuple[Path, Path], tmp_path: Path) -> Callable[..., Any]:
    """`compiled("a", "--calibrate", folder)` types the command and gives the path and what was said."""

    def run(name: str, *more: object) -> tuple[Path, Any]:
        path = tmp_path / f"{name}.edgemtl"
        return path, cli("compile", files[0], "-o", path, "--name", "m", "--target", "zcu104", *more)

    return run


def test_a_bundle_for_the_board(compiled: Callable[..., Any], files: tuple[Path, Path]) -> None:
    path, said = compiled("a", "--calibrate", files[1])
    assert said.code == 0, said.err
    assert "zcu104 (INT8, " in said.out
    with Bundle.open(path, check=True) as bundle:
        loaded, golden = program.load(bundle), program.golden(bundle)
        (entry,) = bundle.manifest.programs
    fpga = entry.accelerator
    assert fpga is not None
    assert fpga.calibration["images"] == 34
    assert fpga.calibration["source"] == "pictures"
    assert set(golden.maps) == set(loaded.tasks)
    other, said = compiled("b", "--calibrate", files[1], "--json")
    assert json.loads(said.out)["fpga_bytes"]["zcu104"] > loaded.banks.nbytes
    assert other.read_bytes() == path.read_bytes()


def test_some_tasks_and_fewer_pictures(compiled: Callable[..., Any], files: tuple[Path, Path]) -> None:
    path, said = compiled("some", "--calibrate", files[1], "--images", 32, "--tasks", "depth,edge")
    assert said.code == 0, said.err
    with Bundle.open(path) as bundle:
        assert program.load(bundle).tasks == ("depth", "edge")
        (entry,) = bundle.manifest.programs
    assert entry.accelerator is not None
    assert entry.accelerator.calibration["images"] == 32


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "zcu104 needs the model's ranges: store them once with `edgemtl calibrate"),
        (("--calibrate", "nowhere"), "nowhere does not exist"),
        (("--calibrate", __file__), "is no image or video"),
        (("--calibrate", "{pictures}", "--images", 8), "32"),
        (("--calibrate", "{pictures}", "--images", 0), "calibration needs pictures; given --images 0"),
    ],
)
def test_bad_calibration(
    compiled: Callable[..., Any], files: tuple[Path, Path], more: tuple[object, ...], message: str
) -> None:
    path, said = compiled("bad", *(files[1] if m == "{pictures}" else m for m in more))
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not path.exists()
