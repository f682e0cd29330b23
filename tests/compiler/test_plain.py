"""What TVM compiles itself, where no kernel fits: equal to the graph's reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.bundle.layout import Entry
from edgemtl.graph import Graph, run
from edgemtl.graph.builder import Builder
from edgemtl_compiler.cpu import program, targets


def odd() -> Graph:
    """A prefix of shapes that no kernel takes: 20 channels, groups, gaps, uneven padding, a map read twice."""
    b = Builder({"image": (9, 14, 3)})
    usual = {"kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
    x = b("wide", "convolution", "image", **usual, outputs=20, groups=1, activation="relu6", bias=True)
    x = b("block", "inverted_residual", x, **usual, middle=20, outputs=20, expand=True, shortcut=True)
    down = {"kernel": (5, 3), "stride": (2, 1), "padding": ((1, 2), (0, 1))}
    x = b("down", "inverted_residual", x, **down, middle=20, outputs=20, expand=False, shortcut=False)
    x = b("mixed", "convolution", x, **down, outputs=20, groups=5, activation="gelu", bias=True)
    x = b("step", "separable_step", x, kernel=(5, 3))
    y = b("bare", "convolution", x, x, **usual, outputs=20, groups=1, activation="relu", bias=False)
    x = b("both", "concat", x, y)
    x = b("double", "upsample", x)
    b("sum", "add", x, x)
    return b.graph("prefix", "sum", "down")


def test_odd_shapes(tmp_path: Path) -> None:
    graph, rng = odd(), np.random.default_rng(3)
    values: dict[str, list[np.ndarray[Any, Any]]] = {}
    for w in graph.weights:
        values[w.ref] = [rng.normal(size=s).astype(np.float32) * np.float32(0.3) for _, s in w.sources]
    built = program.build(graph, targets.resolve("cpu"), tmp_path / "odd.so")
    assert set(built.function.fallback) >= {"block", "down", "mixed", "step", "bare", "both", "double", "sum"}
    packed = {w.ref: Entry(**vars(w)).pack(values[w.ref]) for w in graph.weights}
    image = rng.normal(size=(9, 14, 3)).astype(np.float32)
    given = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    got = program.load_function(built.path)([given, *(packed[ref] for ref in built.function.params)])
    want = run(graph, {"image": image}, lambda w: values[w.ref])
    for name, value in zip(graph.outputs, got, strict=True):
        np.testing.assert_allclose(value[0], want[name], rtol=0, atol=1e-5 * float(np.abs(want[name]).max()))
