"""A written bundle is whole, aligned, always the same, and readable by stock libraries; a failed one is not there."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from edgemtl.bundle import writer
from edgemtl.bundle.manifest import PAGE
from edgemtl.bundle.reader import Bundle
from edgemtl.bundle.writer import write_bundle
from edgemtl.errors import BundleError


@pytest.fixture
def contents(micro: Any) -> dict[str, Any]:
    return {
        "manifest_fields": {"name": "m", "model": micro.config},
        "weights": micro.weights,
        "files": {"notes/a.txt": b"hello", "notes/empty": b""},
        "golden": (micro.inputs, micro.outputs),
    }


def test_what_is_written_is_read(contents: dict[str, Any], micro: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.edgemtl"
    manifest = write_bundle(path, **contents)
    with Bundle.open(path, check=True) as bundle:
        assert bundle.manifest == manifest
        assert bundle.manifest.model == micro.config
        for part, arrays in contents["weights"].items():
            for name, array in arrays.items():
                np.testing.assert_array_equal(bundle.tensor(part, name), array)
        inputs, outputs = bundle.golden()
        np.testing.assert_array_equal(inputs["1"], micro.inputs["1"])
        np.testing.assert_array_equal(outputs["depth"]["0"], micro.outputs["depth"]["0"])
        assert bundle.read("notes/a.txt") == b"hello"
        assert bundle.read("notes/empty") == b""


def test_the_same_input_gives_the_same_bytes(contents: dict[str, Any], tmp_path: Path) -> None:
    for name in "ab":
        write_bundle(tmp_path / name, **contents)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_stock_libraries_read_it(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.edgemtl"
    write_bundle(path, **contents)
    with zipfile.ZipFile(path) as z:
        assert z.testzip() is None
        assert z.namelist()[0] == "manifest.json"
        assert json.loads(z.read("manifest.json"))["name"] == "m"
        assert {i.compress_type for i in z.infolist()} == {zipfile.ZIP_STORED}
        for part, arrays in contents["weights"].items():
            loaded = safetensors.numpy.load(z.read(f"weights/{part}.safetensors"))
            assert loaded.keys() == arrays.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(loaded[name], array)


def test_data_lies_on_pages(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.edgemtl"
    write_bundle(path, **contents)
    with Bundle.open(path) as bundle:
        assert all(e.offset % PAGE == 0 for e in bundle.entries.values())
        for part, places in bundle.parts.items():
            unit = PAGE if part.startswith("experts.") else 64
            assert min(p.offset for p in places.values()) % PAGE == 0
            assert all(p.offset % unit == 0 for p in places.values())


def test_an_existing_bundle_is_replaced_whole(contents: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "m.edgemtl"
    path.write_bytes(b"old")
    write_bundle(path, **contents)
    Bundle.open(path).close()
    assert [p.name for p in tmp_path.iterdir()] == ["m.edgemtl"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_failed_write_leaves_nothing(
    contents: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, where: str
) -> None:
    path = tmp_path / "m.edgemtl"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(os, where, fail)
    expected = BundleError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is BundleError else None):
        write_bundle(path, **contents)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.edgemtl", b"old")]


def test_a_disk_that_is_full_half_way(
    contents: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_store", _half_then_full)
    with pytest.raises(BundleError, match="cannot write .*No space left"):
        write_bundle(tmp_path / "m.edgemtl", **contents)
    assert not list(tmp_path.iterdir())


def _half_then_full(path: Path, image: Any) -> None:
    with open(path, "xb") as f:
        f.write(image[0])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_missing_folder(contents: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot write .*No such file"):
        write_bundle(tmp_path / "no" / "m.edgemtl", **contents)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_fields": {"name": "a b"}}, "name"),
        ({"manifest_fields": {"name": "m", "modell": 1}}, "modell"),
        ({"files": {"../up": b""}}, "pattern.*up"),
        ({"files": {"manifest.json": b""}}, "two members"),
        ({"weights": {"trunk": {"x": np.zeros(16, np.float32)}}}, "weight parts"),
        ({"weights": {"trunk": {"x": np.zeros(17, np.float32)}}}, "not a multiple of 64"),
        ({"weights": {"experts.1": {"0": np.zeros(512, np.float32)}}}, "not a multiple of 4096"),
        ({"weights": {"trunk": {"x": np.zeros(16, np.float64)}}}, "must be contiguous float32"),
    ],
)
def test_contents_that_make_no_bundle(
    contents: dict[str, Any], micro: Any, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    if "manifest_fields" in change:
        change["manifest_fields"] = {"model": micro.config, **change["manifest_fields"]}
    with pytest.raises(BundleError, match=words):
        write_bundle(tmp_path / "m.edgemtl", **{**contents, **change})
    assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_fit_its_weights_is_found_before_the_name_appears(
    contents: dict[str, Any], micro: Any, tmp_path: Path
) -> None:
    wider = micro.config.model_copy(update={"dim": 64})
    with pytest.raises(BundleError, match="the model needs"):
        write_bundle(tmp_path / "m.edgemtl", **{**contents, "manifest_fields": {"name": "m", "model": wider}})
    assert not list(tmp_path.iterdir())
