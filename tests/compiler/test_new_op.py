"""An op from outside: one file for the graph and one per target, and it is counted, packed, compiled and exported."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgemtl.bundle.layout import Entry
from edgemtl.errors import CompileError
from edgemtl.graph import Graph, ops, run
from edgemtl.graph.builder import Builder
from edgemtl_compiler.cpu import ops as cpu_ops
from edgemtl_compiler.cpu import program, targets
from edgemtl_compiler.cuda import ops as cuda_ops
from edgemtl_compiler.onnx import export
from edgemtl_compiler.onnx import ops as onnx_ops

FILES = {
    ops: '''
from edgemtl.graph.node import Tensor
from edgemtl.graph.ops import Op


class Swirl(Op):
    """x times a gain per channel, negated."""

    def shape(self, inputs, attributes):
        return inputs[0]

    def tensors(self, inputs, attributes):
        return (Tensor("vector", (("gain", inputs[0][-1:]),)),)

    def macs(self, node, inputs):
        return 7

    def run(self, node, inputs, weights, see):
        return -inputs[0] * weights[0][0]


OP = Swirl()
''',
    cpu_ops: """
from edgemtl_compiler.cpu.emitter import Value
from edgemtl_compiler.cpu.ops import Op
from edgemtl_compiler.cpu.plain import vectors
from edgemtl_compiler.cpu.tvm_adapter import relax


class Swirl(Op):
    def plain(self, to, node):
        (gain,) = vectors(to, node.weights[0])
        scaled = to.builder.emit(relax.op.multiply(to.value(node.inputs[0]), gain))
        return Value(to.builder.emit(relax.op.negative(scaled)))


OP = Swirl()
""",
    onnx_ops: """
def emit(w, node, x):
    (gain,) = w.weight(node.weights[0])
    return w("Neg", w("Mul", x, w("Reshape", gain, w.integers(1, -1, 1, 1))))
""",
}


@pytest.fixture
def swirl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """A network with the new op, whose files lie in folders of their own."""
    for number, (package, text) in enumerate(FILES.items()):
        assert isinstance(package, ModuleType)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "swirl.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    _forget()
    b = Builder({"image": (4, 6, 3)}, "depth")
    usual = {"kernel": (1, 1), "stride": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}
    x = b("first", "convolution", "image", **usual, outputs=16, activation="none", bias=True)
    b("swirled", "swirl", x)
    b("head.out", "convolution", "swirled", **usual, outputs=2, activation="none", bias=True)
    yield b.graph("depth", "head.out")
    _forget()


def _forget() -> None:
    for cached in (ops.names, ops.find, cpu_ops.find):
        cached.cache_clear()
    importlib.invalidate_caches()


def test_two_files_are_all(swirl: Graph, tmp_path: Path) -> None:
    assert "swirl" in ops.names()
    assert swirl.macs(swirl["swirled"]) == 7
    rng = np.random.default_rng(0)
    arrays = {w.ref: [rng.normal(size=s).astype(np.float32) for _, s in w.sources] for w in swirl.weights}
    image = rng.normal(size=(4, 6, 3)).astype(np.float32)
    want = run(swirl, {"image": image}, lambda w: arrays[w.ref])["head.out"].transpose(2, 0, 1)
    given = np.ascontiguousarray(image.transpose(2, 0, 1))[None]

    built = program.build(swirl, targets.resolve("cpu"), tmp_path / "swirl.so")
    assert built.function.fallback == {"swirled": 7}
    packed = [Entry(**vars(w)).pack(arrays[w.ref]) for w in swirl.weights]
    by_ref = dict(zip((w.ref for w in swirl.weights), packed, strict=True))
    (got,) = program.load_function(built.path)([given, *(by_ref[ref] for ref in built.function.params)])
    np.testing.assert_allclose(got[0], want, rtol=0, atol=1e-5)

    file = export.export(swirl, lambda w: arrays[w.ref], tmp_path / "swirl.onnx")
    (got,) = export.OnnxRunner(file.path)([given])
    np.testing.assert_allclose(got[0], want, rtol=0, atol=1e-5)

    with pytest.raises(CompileError, match="target cuda has no kernel for the op swirl, which swirled is"):
        cuda_ops.find(swirl["swirled"])
