"""Which layers become INT8 is read off the graph: folding keeps the function, and the INT8 reference stays close."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_calibrate import images, lively

from edgemtl.bundle.layout import pack_state
from edgemtl.config import ModelConfig
from edgemtl.model import preset
from edgemtl_compiler import goldens, precision
from edgemtl_compiler.quantise.accuracy import never
from edgemtl_compiler.quantise.calibrate import as_input, calibrate
from edgemtl_compiler.quantise.cpu import Quantised, quantise
from edgemtl_compiler.quantise.fake_int8 import FakeInt8

CONFIGS = {
    "light": preset("micro", gate="single", slots=((0, 1, 3), (1, 2, 4, 5))),
    "conv": preset("micro", head="conv", gate_bias=True, patch=16, head_stride=2, image_size=(32, 48), head_norm=False),
    "hybrid": preset("hybrid", image_size=(32, 48), dim=32, heads=2, head_norm=False),
}


@pytest.fixture(scope="module", params=CONFIGS)
def made(request: pytest.FixtureRequest) -> tuple[ModelConfig, dict[str, Any], Quantised]:
    config = CONFIGS[request.param]
    _, state = lively(config)
    return config, state, quantise(config, state, calibrate(config, state, images(config)))


def maps(config: ModelConfig, state: dict[str, Any]) -> goldens.Outputs:
    image = as_input(images(config)[0], config).transpose(2, 0, 1)[None]
    return goldens.outputs(config, state, {"0": image})


def error(got: Any, want: Any) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def test_folding_keeps_the_function(made: Any) -> None:
    config, state, quantised = made
    folded = maps(config, quantised.state)
    for task, want in maps(config, state).items():
        assert error(folded[task]["0"], want["0"]) < 2e-5
    moved = {key for key in state if not np.array_equal(state[key], quantised.state[key])}
    norms = {
        f"backbone.blocks.{i}.{n}.{p}"
        for i in range(config.depth)
        for n in ("norm1", "norm2")
        for p in ("weight", "bias")
    }
    assert norms <= moved
    assert any("gate" in key for key in moved)
    assert not any(key.endswith("gate.bias") or "stem" in key for key in moved)  # what others read as well stays


def test_units_are_layers_with_a_kernel(made: Any) -> None:
    config, _, quantised = made
    want = {f"blocks.{i}.attn.{layer}" for i in range(config.depth) for layer in ("qkv", "proj")}
    want |= {f"blocks.{i}.{'experts' if i in config.moe_blocks else 'mlp'}" for i in range(config.depth)}
    want |= {"embed"}
    if config.stem == "lite0":
        want |= {f"stem.blocks.{i}" for i in range(1, 11)}  # the first has no 1x1 step before
        want |= {f"{task}:head.at{n}" for task in config.task_names for n in (4, 8, 16)}
        want |= {f"{task}:head.step{n}" for task in config.task_names for n in range(3)}
    if config.head == "light":
        want |= {f"{task}:head.{n}" for task in config.task_names for n in ("proj", "step0", "step1")}
    assert {u.name for u in quantised.units} == want
    held = {f"experts.{i}:{e}" for i, ids in zip(config.moe_blocks, config.held, strict=True) for e in ids}
    codes = quantised.codes()
    assert held <= set(codes)
    assert not set(never(quantised)) & set(codes)
    assert any(ref.endswith(":head.out") or ref.endswith(":head.conv_4") for ref in never(quantised))


def test_the_reference_without_codes_is_the_float_network(made: Any) -> None:
    """And with all of them it differs a little."""
    config, state, quantised = made
    image = as_input(images(config)[0], config).transpose(2, 0, 1)[None]
    nothing = FakeInt8(config, pack_state(config, state), {})(image)
    every = FakeInt8(config, precision.pack_int8(quantised, quantised.codes()), quantised.codes())(image)
    for task, want in maps(config, state).items():
        np.testing.assert_allclose(nothing[task][0], want["0"], rtol=1e-5, atol=1e-6)
        assert 1e-4 < error(every[task][0], want["0"]) < 0.1
