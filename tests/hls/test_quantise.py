"""Float model to integer network: how close it is, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hls_models import integers, lively, pictures, state
from numpy.typing import NDArray

from edgemtl.errors import CompileError
from edgemtl.graph import Node, from_state, run
from edgemtl.graph import ops as graph_ops
from edgemtl.graph.integer import NUMPY
from edgemtl.graph.network import IMAGE
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler.fpga import limits, ops
from edgemtl_compiler.fpga.network import IntegerNetwork, graph_of
from edgemtl_compiler.fpga.report import compare
from edgemtl_compiler.quantise import factors
from edgemtl_compiler.quantise.calibrate import Range, as_input, calibrate
from edgemtl_compiler.quantise.fpga import quantise

Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]


@pytest.mark.parametrize("task", ["semseg", "depth", "normals", "edge"])
def test_micro_stays_close_to_float(quantised: Quantised, task: str) -> None:
    model, network, images = quantised
    report = compare(model, network, images, task)
    assert report.raw < 0.04
    assert report.cosine > 0.9992
    layers = [f"blocks.{i}.{part}" for i in range(4) for part in ("attn.proj", ("mlp.fc2", "experts")[i % 2])]
    assert list(report.layers) == ["embed", *layers, "head.proj", "head.step0", "head.step1"]
    assert report.layers["embed"] < 0.006
    assert max(report.layers.values()) < 0.04
    assert report.worst in report.layers


def test_the_worst_layer_is_found(quantised: Quantised) -> None:
    _, network, images = quantised
    spoilt = lively("micro")
    with torch.no_grad():
        spoilt.backbone.blocks[2].mlp.fc2.weight.mul_(1.3)
    assert compare(spoilt, network, images[:2], "depth").worst == "blocks.2.mlp.fc2"


def test_a_slice_equals_its_task(quantised: Quantised) -> None:
    """Calibrated on one task alone, the slice's network is as close to float as the whole model's."""
    paths = dict.fromkeys(("semseg", "depth", "normals", "edge"), ((0, 2, 4), (1, 2, 5)))
    model = lively("micro", paths=paths)
    images = pictures(34, 32, 64, seed=3)
    sliced = model.slice("depth")
    network = integers(sliced, images[:32])
    assert [network.params[f"depth:blocks.{i}.gate"].experts for i in (1, 3)] == [(0, 1, 2)] * 2
    assert compare(sliced, network, images[32:], "depth").raw < 0.04
    whole = integers(model, images[:32])
    assert [whole.params[f"depth:blocks.{i}.gate"].experts for i in (1, 3)] == [(0, 2, 4), (1, 2, 5)]
    got = whole.run(images[32].transpose(1, 2, 0), "depth") * whole.unit("depth")
    alone = network.run(images[32].transpose(1, 2, 0), "depth") * network.unit("depth")
    assert np.sqrt(np.square(got - alone).sum() / np.square(alone).sum()) < 0.06


def test_refusals() -> None:
    model, images = MultiTaskViT(preset("micro")), pictures(32, 32, 64)
    with pytest.raises(CompileError, match="32 images or more; given 31"):
        integers(model, images[:31])
    with pytest.raises(CompileError, match=r"uint8 images \[n, 3, 32, 64\]; given float32"):
        integers(model, images.astype(np.float32))
    with pytest.raises(CompileError, match=r"given uint8 \[32, 32, 64, 3\]"):
        integers(model, images.transpose(0, 2, 3, 1))
    with pytest.raises(CompileError, match=r"would saturate at percentile 90; the limit is 0.10%"):
        integers(model, images, percentile=90)
    with pytest.raises(CompileError, match="percentile lies"):
        integers(model, images, percentile=0)
    model = MultiTaskViT(preset("micro", depth=4, tasks=model.config.tasks[:1]))
    with torch.no_grad():
        model.backbone.blocks[2].attn.proj.weight[0, 0] = torch.nan
    with pytest.raises(CompileError, match=r"not finite, at blocks.2.attn.proj of task 'semseg'"):
        integers(model, images)
    with torch.no_grad():
        model.backbone.blocks[2].attn.proj.weight[0, 0] = 0
        model.backbone.pos_embed[0, 3, 5] = 1e6
    with pytest.raises(CompileError, match="does not fit INT16"):
        integers(model, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 768, "heads": 12}, "384 dim at most; this model has 768"),
        ({"mlp_ratio": 8.5}, "1536 hidden width of the MLP at most; this model has 1632"),
        ({"image_size": (528, 512)}, "1025 tokens at most; this model has 1057"),
        ({"experts": 32}, "16 experts at most; this model has 32"),
        ({"top_k": 5}, "4 top_k at most; this model has 5"),
        ({"heads": 24}, "8 attention heads at most; this model has 24"),
        ({"heads": 1}, "64 width of an attention head at most; this model has 192"),
        ({"head_stride": 1}, "1536 outputs of the head's projection at most; this model has 8192"),
        ({"patch": 32, "head_stride": 8}, "patches of 16 pixels; this model's have 32"),
        ({"dim": 120}, "the dim, 120, is no multiple"),
        ({"head_dim": 24}, "width of the light head, 24, is no multiple"),
    ],
)
def test_models_outside_the_maxima_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        limits.check(preset("tiny", **changes))


@pytest.mark.parametrize("name", ["tiny", "edge-moe", "micro"])
def test_presets_are_within_the_maxima(name: str) -> None:
    limits.check(preset(name))
    limits.check(preset("tiny", image_size=(512, 512)))  # 1,025 tokens
    limits.check(preset("tiny", dim=384, heads=6, image_size=(416, 416)))  # 677 tokens


def test_the_wide_model_with_every_token_is_refused() -> None:
    """1,025 tokens of 384 channels do not fit the memory for rows; a head that is left out may have any shape."""
    with pytest.raises(CompileError, match="memory for normalised rows holds 262144 bytes; 1025 tokens of this model"):
        limits.check(preset("tiny", dim=384, heads=6, image_size=(512, 512)))
    coarse = preset("tiny", head_stride=1)
    limits.check(coarse, host_heads=True)
    with pytest.raises(CompileError, match="outputs of the head's projection"):
        limits.check(coarse)


def test_an_op_of_the_accelerator_says_what_it_gives_on_integers() -> None:
    """The two files of an op agree on whether there is one; the graph's says so for those that it lacks."""
    have = {name for name in graph_ops.names() if type(graph_ops.find(name)).integer is not graph_ops.Op.integer}
    assert have == set(ops.names())
    node = Node("head.double0", "upsample", ("x",))
    with pytest.raises(CompileError, match="head.double0: the accelerator has no op upsample"):
        graph_ops.find("upsample").integer(node, [np.zeros((2, 2, 16), np.int16)], None, NUMPY)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("blocks.0.mlp.fc1", {"activation": "relu"}, "no linear for blocks.0.mlp.fc1, which is no part of attention"),
        ("head.step1", {"kernel": (5, 5)}, "no separable_step for head.step1, whose kernel is not 3x3"),
        ("head.out", {"kernel": (3, 3)}, "no convolution for head.out, which is not the last product of a light head"),
        ("blocks.1.gate", {"bias": True}, "no route for blocks.1.gate, which adds a bias"),
    ],
)
def test_a_node_that_no_descriptor_runs_is_named(name: str, changes: dict[str, object], message: str) -> None:
    graph = graph_of(preset("micro"), "depth")
    node = replace(graph[name], attributes={**graph[name].attributes, **changes})
    with pytest.raises(CompileError, match=message):
        ops.find(node).check(node, graph)


def test_a_value_that_was_not_calibrated_is_named(quantised: Quantised) -> None:
    model, _, images = quantised
    ranges = calibrate(model.config, state(model), np.concatenate([images] * 4))
    for missing in ("embed", "edge:head.step0.depthwise"):
        with pytest.raises(CompileError, match=f"there is no range of {missing}: calibrate this model again"):
            quantise(model.config, state(model), {k: r for k, r in ranges.items() if k != missing})


def test_an_outlier_does_not_coarsen_the_hidden_codes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20000, 16)).astype(np.float32)
    spiky = rows.copy()
    spiky[7, 3] = 12.0
    weight = rng.normal(size=(16, 16))
    ranges = [Range(x.min(0).astype(np.float64), x.max(0).astype(np.float64), [x], len(x)) for x in (rows, spiky)]
    calm, cut = (factors.gelu_int8(r, weight, 0.001)[1].scale[0] for r in ranges)
    kept = factors.gelu_int8(ranges[1], weight, 0.0)[1].scale[0]
    assert calm <= cut < 0.75 * kept
    assert kept == pytest.approx((12 + 0.17) / 255, rel=1e-3)


def test_dead_channels_do_not_break_the_scales() -> None:
    """Channels, heads and experts that are zero or constant still get factors within their range."""
    model, images = lively("micro"), pictures(34, 32, 64)
    with torch.no_grad():
        block = model.backbone.blocks[0]
        block.norm1.weight[:4] = 0
        block.attn.qkv.weight[:16] = 0  # a whole head of queries
        block.attn.qkv.bias[:16] = 0
        block.attn.qkv.weight[70:75] = 0
        block.mlp.fc1.weight[3] = 0
        block.mlp.fc1.bias[3] = 40.0
        model.backbone.blocks[1].mlp.experts.htoh4.weight[2] = 0
        model.heads["depth"].out.weight.zero_()
    network = integers(model, images[:32])
    assert compare(model, network, images[32:], "depth").layers["blocks.3.experts"] < 0.05


def test_ranges_cover_what_was_seen(quantised: Quantised) -> None:
    model, network, images = quantised
    ranges = calibrate(model.config, state(model), np.concatenate([images] * 4))
    seen: dict[str, Any] = {}
    pixels = {IMAGE: as_input(images[0], model.config)}
    run(network.graph("depth"), pixels, from_state(state(model)), seen.__setitem__)
    for name in ("embed", "blocks.1.norm2", "blocks.3.attn.heads", "head.norm"):
        key, flat = f"depth:{name}" if name == "head.norm" else name, seen[name].reshape(-1, seen[name].shape[-1])
        assert (flat.min(0) >= ranges[key].low).all()
        assert (flat.max(0) <= ranges[key].high).all()
