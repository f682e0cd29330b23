"""Ranges stored beside a checkpoint: what is written is read again, fits its weights alone, and INT8 needs no more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_rooms import write_rooms

import edgemtl
from edgemtl.bundle.checkpoint import read_checkpoint
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import CompileError
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl_compiler import compile_bundle
from edgemtl_compiler.quantise import ranges
from edgemtl_compiler.quantise.calibrate import Range


@pytest.fixture(scope="module")
def stored(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with ranges beside it."""
    folder = tmp_path_factory.mktemp("stored")
    rooms = write_rooms(folder / "rooms")
    save_checkpoint(folder / "m.safetensors", micro.model, dtype="float32", origin="a test")
    path, _ = ranges.store(folder / "m.safetensors", rooms, 32)
    assert path == folder / "m.ranges.safetensors"
    return folder / "m.safetensors"


def test_what_is_stored_is_what_was_measured(stored: Path) -> None:
    info, state = read_checkpoint(stored)
    want = ranges.measure(info.config, state, stored.parent / "rooms", 32)
    got = ranges.read(ranges.beside(stored), info.config, state)
    assert (got.images, got.source, got.stored) == (32, "synthetic rooms", True)
    assert got.ranges.keys() == want.ranges.keys()
    for name, r in want.ranges.items():
        np.testing.assert_allclose(got.ranges[name].low, r.low, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(got.ranges[name].high, r.high, rtol=1e-3, atol=1e-6)
    for name in ("blocks.1.norm2", "blocks.2.attn.heads", "depth:head.step1"):
        rows, every = got.ranges[name].sample, want.ranges[name].sample
        assert len(rows) == 64
        assert all(np.isclose(every, row, rtol=1e-3, atol=1e-6).all(1).any() for row in rows)
    for name in ("blocks.0.mlp.fc1.inner", "blocks.1.experts.fc1.3", "edge:head.proj.inner"):  # made again
        rows, r = got.ranges[name].sample, want.ranges[name]
        assert len(rows) == 64
        assert ((r.low - rows) <= 0.1 * (r.high - r.low)).all()
        assert ((rows - r.high) <= 0.1 * (r.high - r.low)).all()


def test_the_command_writes_the_same_bytes(stored: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    again = tmp_path / "again.safetensors"
    said = cli("calibrate", stored, stored.parent / "rooms", "--images", 32, "-o", again)
    assert said.code == 0, said.err
    assert "ranges over 32 images of synthetic rooms" in said.out
    assert again.read_bytes() == ranges.beside(stored).read_bytes()


def test_values_beyond_float16_are_kept() -> None:
    rows = np.array([[1e6, 1], [-2e6, 2]], np.float32)
    kept = ranges._narrow(Range(rows.min(0).astype(float), rows.max(0).astype(float), [rows], 2), 100)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(ranges._range(kept).low, [-2e6, 1])


def test_int8_without_pictures(stored: Path, tmp_path: Path) -> None:
    """For a bundle and the accelerator at once, and for fewer tasks than the ranges have."""
    out = tmp_path / "m.edgemtl"
    built = compile_bundle(stored, out, targets=("torch", "zcu104"), precision="int8", tasks=("depth", "semseg"))
    assert built.ranges == "32 images of synthetic rooms, ranges stored with the weights"
    assert built.quantisation is not None
    assert built.quantisation.calibrated_on == "synthetic rooms, ranges stored with the weights"
    assert {a.metric for a in built.quantisation.accuracy.values()} == {"agreement"}
    assert all(0.8 < a.int8 <= 1 for a in built.quantisation.accuracy.values())
    with Bundle.open(out) as opened:
        accelerator = next(p.accelerator for p in opened.manifest.programs if p.accelerator)
    assert accelerator.calibration["source"] == built.quantisation.calibrated_on


def test_stored_ranges_need_no_torch(stored: Path, tmp_path: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
from edgemtl_compiler import compile_bundle
compile_bundle(sys.argv[1], sys.argv[2], targets=("torch", "zcu104"), precision="int8", tasks=("depth",))
"""
    subprocess.run([sys.executable, "-c", code, str(stored), str(tmp_path / "m.edgemtl")], check=True)


def test_the_shipped_ranges_are_of_the_shipped_weights() -> None:
    checkpoint = Path(edgemtl.__file__).parent / "model" / "weights" / "rooms-tiny.safetensors"
    info, state = read_checkpoint(checkpoint)
    found = ranges.read(ranges.beside(checkpoint), info.config, state)
    assert (found.images, found.source) == (256, "synthetic rooms")
    assert ranges.beside(checkpoint).stat().st_size < 1e6


class TestErrors:
    @pytest.fixture
    def refuses(self, stored: Path, tmp_path: Path) -> Callable[..., str]:
        def call(
            change: Callable[[dict[str, Any]], Any] = lambda tensors: None,
            about: Callable[[dict[str, Any]], Any] = lambda facts: None,
        ) -> str:
            """What is said of the file after changes to its tensors and to what it says of itself."""
            info, state = read_checkpoint(stored)
            tensors = load_file(ranges.beside(stored))
            facts = {"version": 1, "weights": ranges._sha256(state), "images": 32, "source": "x"}
            change(tensors)
            about(facts)
            path = tmp_path / "bad.safetensors"
            save_file(tensors, path, {"edgemtl-ranges": json.dumps(facts)})
            with pytest.raises(CompileError) as caught:
                ranges.read(path, info.config, state)
            assert "edgemtl calibrate" in str(caught.value)
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return call

    def test_other_weights(self, refuses: Any) -> None:
        assert "holds the ranges of other weights" in refuses(about=lambda f: f.update(weights="0"))

    def test_another_version(self, refuses: Any) -> None:
        assert "holds no ranges that this edgemtl reads" in refuses(about=lambda f: f.update(version=2))
        for images in ("many", float("inf")):
            assert "is damaged or no file of ranges" in refuses(about=lambda f, n=images: f.update(images=n))

    def test_names(self, refuses: Any) -> None:
        assert "has not the ranges of this model (embed is" in refuses(lambda t: t.pop("embed"))
        assert "has not the ranges of this model (nose is" in refuses(lambda t: t.update(nose=t["embed"]))

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x[:, 1:].copy(),
            lambda x: x[:2].copy(),
            lambda x: x.astype(np.int32),
            lambda x: x * np.float16(np.nan),
            lambda x: np.sign(x).astype(np.float32) * np.float32(3e38),
            lambda x: np.concatenate([x[:2], np.full_like(x[2:], 3e38, np.float32)]),
            lambda x: x[::-1].copy() - np.float16([[0]] + [[9]] * (len(x) - 1)),
        ],
    )
    def test_shapes_and_values(self, refuses: Any, change: Any) -> None:
        said = refuses(lambda t: t.update(embed=change(t["embed"])))
        assert "embed is no range of 32 channels" in said

    def test_no_file_of_tensors(self, stored: Path, tmp_path: Path) -> None:
        info, state = read_checkpoint(stored)
        (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 40)
        with pytest.raises(CompileError, match="is damaged or no file of ranges"):
            ranges.read(tmp_path / "bad.safetensors", info.config, state)

    def test_none_at_all(self, micro: Any, tmp_path: Path, cli: Callable[..., Any]) -> None:
        save_checkpoint(tmp_path / "m.safetensors", micro.model, origin="a test")
        said = cli("compile", tmp_path / "m.safetensors", "-o", tmp_path / "m.edgemtl", "--precision", "int8")
        assert said.code == 2
        assert "store them once with `edgemtl calibrate CHECKPOINT PICTURES`, or add --calibrate PICTURES" in said.err

    def test_no_place(self, stored: Path, cli: Callable[..., Any]) -> None:
        out = stored.parent / "none" / "x.safetensors"
        said = cli("calibrate", stored, stored.parent / "rooms", "--images", 32, "-o", out)
        assert (said.code, "cannot be written" in said.err) == (2, True)
