"""Models of installed packages are found by name, and a file of the same name goes first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import edgemtl
from edgemtl.bundle import models
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError


def test_by_name(installed: Path, plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(plain, installed / "second.edgemtl")
    assert models.installed().keys() == {models.DEFAULT, "second"}
    with edgemtl.load(models.DEFAULT, "torch", threads=1) as engine:
        assert engine.tasks == ("semseg", "depth", "normals", "edge")
    with Bundle.open("second") as opened:
        assert opened.path == installed / "second.edgemtl"
    (tmp_path / "second").mkdir()  # no bundle is a folder
    with Bundle.open("second") as opened:
        assert opened.path == installed / "second.edgemtl"
    (tmp_path / "second").rmdir()
    shutil.copy(plain, tmp_path / "second")
    with Bundle.open("second") as opened:
        assert opened.path == Path("second")


@pytest.mark.parametrize("name", ["second", "rooms\n", "x" * 5000, "a\0b"])
def test_a_name_that_is_none(installed: Path, name: str) -> None:
    with pytest.raises(BundleError) as e:
        Bundle.open(name)
    assert name != "second" or f"no model of this name is installed (installed: {models.DEFAULT})" in str(e.value)


def test_a_path_is_no_name(installed: Path) -> None:
    for path in (f"{models.DEFAULT}.edgemtl", f"folder/{models.DEFAULT}"):
        with pytest.raises(BundleError, match=r"there is no such file$"):
            Bundle.open(path)


@pytest.mark.parametrize("code", ["raise RuntimeError('no')", "raise SystemExit('no')"])
def test_a_package_that_fails_is_named_and_harms_no_file(installed: Path, code: str) -> None:
    (installed / "__init__.py").write_text(f"{code}\n")
    assert models.installed() == {}
    with pytest.raises(BundleError, match="the models of 'some_models:FOLDER' cannot be loaded: .*: no"):
        Bundle.open("second")
    with pytest.raises(
        BundleError, match=f"{models.DEFAULT}' is not installed .*'some_models:FOLDER' cannot be loaded"
    ):
        models.default()


def test_the_clip(installed: Path) -> None:
    checkout = Path(edgemtl.__file__).parents[1] / "demos" / "homes.mp4"
    assert models.clip() == checkout
    (installed / "homes.mp4").write_bytes(b"")
    assert models.clip() == installed / "homes.mp4"


def test_shipped_weights_have_the_default_models_name() -> None:
    assert (Path(edgemtl.__file__).parent / "model" / "weights" / f"{models.DEFAULT}.safetensors").is_file()
