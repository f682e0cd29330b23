"""Weights in fewer bits than float32: packed as the kernels read them, undone, refused where they do not belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.bundle import layout, packing
from edgemtl.bundle.packing import Codes
from edgemtl.bundle.reader import Bundle
from edgemtl.bundle.writer import write_bundle
from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import BundleError, CheckpointError

CONFIG = ModelConfig(
    dim=24, heads=2, depth=2, experts=3, top_k=2, image_size=(16, 32), head_dim=10,
    tasks=(TaskConfig(name="depth", kind="depth", channels=1),),
)  # fmt: skip
sizes = st.integers(1, 40)


def random_state(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    state = {}
    for entry in layout.entries(CONFIG):
        for key, shape in entry.sources:
            state[key] = rng.standard_normal((entry.bank, *shape) if entry.bank else shape).astype(np.float32)
    return state


def all_codes() -> dict[str, tuple[Codes, ...]]:
    one, two = (Codes(0.5, 0.25),), (Codes(0.5), Codes(0.125, 1.0))
    return {e.ref: two if e.kind == "expert" else one for e in layout.entries(CONFIG) if e.compact}


def packed(kind: str) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
    codes = all_codes() if kind == "panel16-i8" else None
    return layout.pack_state(CONFIG, random_state(), kind, codes)  # type: ignore[arg-type]


@settings(deadline=None)
@given(n=sizes, k=sizes, step=st.floats(1e-3, 10), centre=st.floats(-3, 3), seed=st.integers(0, 99))
def test_int8_layers_come_back_within_half_a_step(n: int, k: int, step: float, centre: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.standard_normal((n, k)).astype(np.float32), rng.standard_normal(n).astype(np.float32)
    blob = packing.pack_linear_i8(weight, bias, step, centre)
    assert blob.dtype == np.uint8
    assert blob.size == packing.linear_bytes(n, k)
    assert blob.size % 64 == 0
    back, b = packing.unpack_linear_i8(blob, n, k)
    unit = np.abs(weight).max(1, keepdims=True) / 127
    assert (np.abs(back - weight) <= 0.501 * unit).all()
    np.testing.assert_allclose(b, bias, atol=1e-5 * max(1.0, abs(centre)) * k)


def test_int8_panels_lie_as_the_kernels_read_them() -> None:
    weight = np.random.default_rng(1).integers(-127, 128, (18, 6)).astype(np.float32)
    weight[:, 0] = 127  # so that every scale is 1
    blob = packing.pack_linear_i8(weight, np.arange(18, dtype=np.float32), 0.5, 2.0)
    np.testing.assert_array_equal(blob[:8].view(np.float32), [0.5, 2.0])
    panels = blob[64 : 64 + 2 * 2 * 64].view(np.int8).reshape(2, 2, 16, 4)
    for n, k in [(0, 0), (15, 5), (16, 3), (17, 4)]:
        assert panels[n // 16, k // 4, n % 16, k % 4] == weight[n, k]
    assert not panels[1, :, 2:].any()
    assert not panels[:, 1, :, 2:].any()
    scale, bias = blob[64 + 256 : 64 + 256 + 256].view(np.float32).reshape(2, 32)
    np.testing.assert_array_equal(scale[:18], np.float32(0.5))
    np.testing.assert_array_equal(bias[:18], np.arange(18) + 2 * weight.sum(1))
    np.testing.assert_array_equal(blob[-128:].view(np.int32)[:18], 128 * weight.sum(1))


def test_a_layer_of_zeros_stays_zero() -> None:
    blob = packing.pack_linear_i8(np.zeros((3, 5), np.float32), np.ones(3, np.float32), 0.1)
    weight, bias = packing.unpack_linear_i8(blob, 3, 5)
    assert not weight.any()
    np.testing.assert_array_equal(bias, 1)


@pytest.mark.parametrize(("kind", "error"), [("panel16-f16", 1e-3), ("panel16-bf16", 4e-3), ("panel16-i8", 2e-2)])
def test_a_state_comes_back_as_float32(kind: str, error: float) -> None:
    parts, state = packed(kind), random_state()
    back = layout.unpack_state(CONFIG, lambda part, tensor: parts[part][tensor])
    assert set(back) == set(state)
    for key, value in state.items():
        assert back[key].dtype == np.float32
        assert np.abs(back[key] - value).max() <= error * np.abs(value).max(), key


@pytest.mark.parametrize(
    ("kind", "small"), [("panel16-f16", "float16"), ("panel16-bf16", "uint16"), ("panel16-i8", "uint8")]
)
def test_only_layers_and_experts_are_compact(kind: str, small: str) -> None:
    parts = packed(kind)
    for entry in layout.entries(CONFIG):
        array = parts[entry.part][entry.tensor]
        assert str(array.dtype) == (small if entry.kind in ("linear", "expert") else "float32")
        assert array.shape == (entry.length(str(array.dtype)),)
        assert array.nbytes == entry.nbytes(str(array.dtype))
        assert array.nbytes % (4096 if entry.kind == "expert" else 64) == 0


@pytest.mark.parametrize("kind", ["panel16-f32", "panel16-f16", "panel16-bf16", "panel16-i8"])
def test_a_bundle_of_each_precision(kind: str, tmp_path: Path) -> None:
    parts = packed(kind)
    write_bundle(tmp_path / "b.edgemtl", manifest_fields=fields(kind), weights=parts)
    with Bundle.open(tmp_path / "b.edgemtl", check=True) as bundle:
        assert bundle.manifest.weight_layout == kind
        for part, held in parts.items():
            for name, want in held.items():
                got = bundle.tensor(part, name)
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want)


def fields(kind: str) -> dict[str, Any]:
    return {"name": "b", "model": CONFIG, "weight_layout": kind}


@pytest.mark.parametrize(
    ("held", "said", "words"),
    [
        ("panel16-f16", "panel16-f32", "is float16; in the layout panel16-f32 it must be float32"),
        ("panel16-f32", "panel16-f16", "is float32; in the layout panel16-f16 it must be float16"),
        ("panel16-bf16", "panel16-f16", "is uint16; in the layout panel16-f16 it must be float16"),
        ("panel16-f16", "panel16-bf16", "is float16; in the layout panel16-bf16 it must be uint16"),
        ("panel16-f16", "panel16-i8", "is float16; in the layout panel16-i8 it must be uint8 or float32"),
        ("panel16-i8", "panel16-f32", "is uint8; in the layout panel16-f32"),
    ],
)
def test_a_type_that_the_layout_does_not_have(held: str, said: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=words):
        write_bundle(tmp_path / "b.edgemtl", manifest_fields=fields(said), weights=packed(held))
    assert not list(tmp_path.iterdir())


def test_float_layers_may_stay_in_an_int8_bundle(tmp_path: Path) -> None:
    codes = all_codes()
    del codes["trunk:patch_embed"], codes["experts.1:2"]
    parts = layout.pack_state(CONFIG, random_state(), "panel16-i8", codes)
    write_bundle(tmp_path / "b.edgemtl", manifest_fields=fields("panel16-i8"), weights=parts)
    with Bundle.open(tmp_path / "b.edgemtl") as bundle:
        assert str(bundle.parts["experts.1"]["2"].dtype) == "float32"
        assert str(bundle.parts["experts.1"]["1"].dtype) == "uint8"


def test_a_tensor_of_another_size(tmp_path: Path) -> None:
    parts = packed("panel16-i8")
    parts["trunk"]["patch_embed"] = np.concatenate([parts["trunk"]["patch_embed"], np.zeros(64, np.uint8)])
    with pytest.raises(BundleError, match=r"tensor 'patch_embed' has shape"):
        write_bundle(tmp_path / "b.edgemtl", manifest_fields=fields("panel16-i8"), weights=parts)


def test_values_that_float16_cannot_hold() -> None:
    state = random_state()
    state["backbone.patch_embed.proj.weight"][0, 0, 0, 0] = -70000
    with pytest.raises(CheckpointError, match=r"holds 7e\+04, more than float16 can \(65504\)"):
        layout.pack_state(CONFIG, state, "panel16-f16")


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=50))
def test_bfloat16_is_rounded_as_pytorch_rounds(bits: list[int]) -> None:
    """Any float32: subnormal, infinite, and those that are not a number, whatever their payload."""
    torch = pytest.importorskip("torch")
    values = np.array([*bits, 0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800001, 0xFFFFFFFF, 1], np.uint32)
    got = packing.to_bfloat16(values.view(np.float32))
    want = torch.from_numpy(values.view(np.float32)).bfloat16().float().numpy()
    np.testing.assert_array_equal(packing.from_bfloat16(got), want)
    again = packing.to_bfloat16(packing.from_bfloat16(got))
    np.testing.assert_array_equal(again, got)


def test_bfloat16_refuses_no_size_of_weight() -> None:
    state = random_state()
    state["backbone.patch_embed.proj.weight"][0, 0, 0, 0] = -70000
    part = layout.pack_state(CONFIG, state, "panel16-bf16")["trunk"]["patch_embed"]
    assert packing.from_bfloat16(part).min() == -70144  # the nearest
