"""The deployable checkpoint: exact round trips, the shared gate's copies, and files that are not what they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from edgemtl.errors import CheckpointError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, serialise, to_multi_gate

PATHS = {"depth": ((0, 2, 3), (1, 4, 5))}


@pytest.fixture
def model() -> MultiTaskViT:
    torch.manual_seed(0)
    return MultiTaskViT(preset("micro", paths=PATHS)).eval()


def test_float32_round_trip_is_exact(tmp_path: Path, model: MultiTaskViT) -> None:
    save_checkpoint(tmp_path / "m.safetensors", model, dtype="float32", origin="a test")
    loaded, info = load_checkpoint(tmp_path / "m.safetensors")
    assert info.config == model.config
    assert (info.dtype, info.origin) == ("float32", "a test")
    assert not loaded.training
    image = torch.randn(1, 3, 32, 64)
    want, got = model(image), loaded(image)
    assert all(torch.equal(want[t], got[t]) for t in want)  # the path masks are there as well


def test_float16_round_trip_is_stable(tmp_path: Path, model: MultiTaskViT) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_checkpoint(first, model)
    loaded, info = load_checkpoint(first)
    assert info.dtype == "float16"
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    save_checkpoint(second, loaded)
    assert first.read_bytes() == second.read_bytes()


def test_a_slice_can_be_saved(tmp_path: Path, model: MultiTaskViT) -> None:
    part = model.slice("depth")
    save_checkpoint(tmp_path / "d.safetensors", part, dtype="float32")
    image = torch.randn(1, 3, 32, 64)
    assert torch.equal(load_checkpoint(tmp_path / "d.safetensors")[0](image)["depth"], part(image)["depth"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_that_wrappers_put_before_are_left_out(tmp_path: Path, model: MultiTaskViT, prefix: str) -> None:
    """As torch.compile and DistributedDataParallel name them, in a state and in a file."""
    plain, named, again = (tmp_path / f"{name}.safetensors" for name in ("plain", "named", "again"))
    save_checkpoint(plain, model)
    save_checkpoint(named, {prefix + k: v for k, v in model.state_dict().items()}, model.config)
    assert named.read_bytes() == plain.read_bytes()
    with safe_open(str(plain), "pt") as file:
        tensors, about = {prefix + k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
    again.write_bytes(serialise(tensors, about))
    loaded = load_checkpoint(again)[0].state_dict()
    assert all(torch.equal(loaded[k], v.half().float()) for k, v in model.state_dict().items())


def test_a_wrapped_model_is_saved_as_the_model(tmp_path: Path, model: MultiTaskViT) -> None:
    plain, wrapped = tmp_path / "plain.safetensors", tmp_path / "wrapped.safetensors"
    save_checkpoint(plain, model)
    compiled = torch.nn.Module()  # as torch.compile's, which warns when it is imported
    compiled._orig_mod = model
    save_checkpoint(wrapped, torch.nn.DataParallel(compiled))
    assert wrapped.read_bytes() == plain.read_bytes()
    with pytest.raises(CheckpointError, match=r"a model of edgemtl.model, .* is needed, not Linear"):
        save_checkpoint(wrapped, torch.nn.Linear(2, 2))


def test_loading_leaves_the_random_state_alone(tmp_path: Path, model: MultiTaskViT) -> None:
    save_checkpoint(tmp_path / "m.safetensors", model)
    before = torch.get_rng_state()
    load_checkpoint(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_to_multi_gate_keeps_the_outputs() -> None:
    torch.manual_seed(3)
    single = MultiTaskViT(preset("micro", gate="single")).eval()
    config, state = to_multi_gate(single.config, single.state_dict())
    assert config.gate == "multi"
    multi = MultiTaskViT(config).eval()
    multi.load_state_dict(state)
    image = torch.randn(2, 3, 32, 64)
    want = single(image)
    for task in config.task_names:
        assert torch.equal(multi(image, [task])[task], single(image, [task])[task])
    together = multi(image)  # streams stacked: other products, so other last bits
    assert all(torch.allclose(together[t], want[t], rtol=1e-4, atol=1e-5) for t in want)
    again, same = to_multi_gate(config, state)
    assert again == config
    assert same.keys() == state.keys()


def test_saving_what_does_not_fit(tmp_path: Path, model: MultiTaskViT) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match="give save_checkpoint the config"):
        save_checkpoint(path, model.state_dict())
    state = model.state_dict()
    del state["backbone.cls_token"]
    with pytest.raises(CheckpointError, match=r"lacks backbone\.cls_token"):
        save_checkpoint(path, state, model.config)
    big = {k: v * 1e6 for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"not finite in float16.*dtype='float32'"):
        save_checkpoint(path, big, model.config)
    assert not path.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, model: MultiTaskViT) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "m.safetensors", tmp_path / "folder"):
        with pytest.raises(CheckpointError, match=r"cannot be written \(.*another place"):
            save_checkpoint(place, model)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "folder"]


Change = Callable[[dict[str, torch.Tensor], dict[str, str]], Any]


def _rename(t: dict[str, torch.Tensor], m: dict[str, str]) -> None:
    t["backbone.extra"] = t.pop("backbone.cls_token")


def _reshape(t: dict[str, torch.Tensor], m: dict[str, str]) -> None:
    t["backbone.cls_token"] = t["backbone.cls_token"].reshape(-1)


def _poison(t: dict[str, torch.Tensor], m: dict[str, str]) -> None:
    t["backbone.cls_token"][0, 0, 3] = float("nan")


def _grow(t: dict[str, torch.Tensor], m: dict[str, str]) -> None:
    config = json.loads(m["config"])
    m["config"] = json.dumps({**config, "experts": 4096, "depth": 64, "dim": 4096, "heads": 4, "paths": {}})


def _config(**changes: Any) -> Change:
    return lambda t, m: m.update(config=json.dumps({**json.loads(m["config"]), **changes}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_rename, "lacks backbone.cls_token, which does not fit"),
        (lambda t, m: t.update({"backbone.extra": torch.zeros(1).half()}), "has unknown backbone.extra"),
        (_reshape, r"backbone.cls_token has shape \[32\], its configuration needs \[1, 1, 32\]"),
        (_poison, "cls_token holds values that are not finite"),
        (
            lambda t, m: t.update({"backbone.cls_token": torch.zeros(1, 1, 32)}),
            r"is float32, a float16 file has float16",
        ),
        (lambda t, m: m.update(format="other"), "no edgemtl checkpoint"),
        (lambda t, m: m.clear(), "no edgemtl checkpoint"),
        (lambda t, m: m.update(version="2"), "has version 2, this edgemtl reads 1"),
        (lambda t, m: m.update(dtype="int8"), "says dtype 'int8'"),
        (lambda t, m: m.update(config="{"), "no valid model configuration"),
        (lambda t, m: m.update(config="[" * 100_000), "no valid model configuration"),
        (lambda t, m: m.pop("config"), "no valid model configuration"),
        (_config(dim=31), "no valid model configuration"),
        (_config(surprise=1), "no valid model configuration"),
        (_config(depth=6, paths={}), "lacks backbone.blocks.4"),
        (_grow, "fewer than its configuration needs"),
    ],
)
def test_files_that_lie(tmp_path: Path, model: MultiTaskViT, change: Change, message: str) -> None:
    from safetensors import safe_open

    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model)
    with safe_open(str(path), "pt") as file:
        tensors, metadata = {k: file.get_tensor(k) for k in model.state_dict()}, dict(file.metadata())
    change(tensors, metadata)
    path.write_bytes(serialise(tensors, metadata))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_damaged_files(tmp_path: Path, model: MultiTaskViT) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, model)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    for content in (b"", whole[:7], whole[: header // 2], whole[:-1], whole + b"\0", b"\xff" * 64, b"PK\x03\x04" * 99):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_a_flipped_header_bit_never_crashes(tmp_path: Path, model: MultiTaskViT) -> None:
    """It is refused, or the file still means a whole model (a bit of the origin's text, say)."""
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, model, origin="x")
    whole = bytearray(path.read_bytes())
    length = int.from_bytes(whole[:8], "little")
    refused = 0
    for at in range(0, 8 + length, 37):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        try:
            load_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 100
