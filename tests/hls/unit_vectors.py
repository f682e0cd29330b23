"""Vectors of every unit: seeded small shapes through the C simulation, held to the NumPy reference as they are made.

`Recorder` is the C simulation with a pen: it keeps the memories on chip before and after each call, as the tops of
hls/vitis/units.cpp move them.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from csim_units import CSim
from numpy.typing import NDArray
from vector_file import file

from edgemtl.graph import integer as ref
from edgemtl.graph.integer.params import Attention, Gate, Gelu, Linear, Mlp, Norm, Scaling, Taps
from edgemtl.graph.ops.separable_step import filtered
from edgemtl_compiler.fpga.csim import build
from edgemtl_compiler.fpga.image import ImageBuilder

SOURCES = Path(__file__).resolve().parents[2] / "hls"
FIELDS = 16  # of a call: five sizes, then arguments


class Recorder(CSim):
    """`files` collects every call of a unit as UNIT-NUMBER; the memories begin empty each time."""

    def __init__(self, library: Path) -> None:
        super().__init__(library)
        self.files: dict[str, bytes] = {}

    def clear(self) -> None:
        for memory in self._memory.values():
            memory[...] = 0

    def _call(self, unit: str, tables: bytes | Sequence[NDArray[np.uint8]], rest: list[Any]) -> None:
        if not isinstance(tables, bytes):
            super()._call(unit, tables, rest)
            return
        before = {name: memory.copy() for name, memory in self._memory.items()}
        super()._call(unit, tables, rest)
        arguments, output = [int(v) for v in rest if isinstance(v, int | np.integer)], b""
        if unit == "linear" and rest[0] is not None:
            rows, outputs = arguments[1], arguments[3]
            size = outputs // 16 * rows * 2 + -(-(outputs % 16) * rows // 8)
            output = ctypes.string_at(rest[0].value, 16 * size)
        used = self._used(before)
        header = np.array([*used, len(output) // 16, *arguments] + [0] * (FIELDS - 5 - len(arguments)), "<i4")
        builder = ImageBuilder()
        builder.add(tables)
        number = sum(name.startswith(f"{unit}-") for name in self.files)
        self.files[f"{unit}-{number}"] = file(
            builder.banks(), header.tobytes() + dump(before, used), b"", output + dump(self._memory, used)
        )

    def _used(self, before: dict[str, NDArray[Any]]) -> tuple[int, int, int, int]:
        """Groups, words per bank, words per bank and words per expert that hold anything, before or after."""

        def last(name: str, axis: int, group: int) -> int:
            touched = (before[name] != 0) | (self._memory[name] != 0)
            flat = touched.any(axis=tuple(i for i in range(touched.ndim) if i != axis))
            return -(-(int(np.flatnonzero(flat)[-1]) + 1) // group) if flat.any() else 0

        queue = max(last("token", 1, 8), last("score", 1, 8))
        return last("stream", 0, 16), last("rows", 1, 1), last("pool", 1, 1), queue


def dump(memory: dict[str, NDArray[Any]], used: tuple[int, int, int, int]) -> bytes:
    """The used part of every memory in the order of hls/vitis/units.cpp."""
    stream, rows, pool, queue = used
    parts = [memory["stream"][: 16 * stream], memory["rows"][:, :rows], memory["pool"][:, :pool]]
    for e in range(len(memory["length"])):
        parts += [memory["token"][e, : 8 * queue], memory["score"][e, : 8 * queue]]
    return b"".join(np.ascontiguousarray(p).tobytes() for p in [*parts, memory["length"]])


def every_unit(seed: int = 0) -> dict[str, bytes]:
    """Two calls or more of each unit; raises CompileError without a C++ compiler, AssertionError if the two differ."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-vectors-") as folder:
        recorder = Recorder(build(SOURCES, Path(folder) / "csim.so"))
    for number in range(2):
        _record(recorder, np.random.default_rng((seed, number)))
    return recorder.files


def _int8(rng: np.random.Generator, *shape: int) -> NDArray[np.int8]:
    return rng.integers(-128, 128, shape).astype(np.int8)


def _factors(rng: np.random.Generator, n: int, low: float, high: float) -> tuple[Any, Any]:
    return ref.fixed_point(2.0 ** rng.uniform(low, high, n))


def _linear(rng: np.random.Generator, inputs: int, outputs: int, low: float = -14, high: float = -8) -> Linear:
    bias = rng.integers(-(2**15), 2**15, outputs).astype(np.int32)
    return Linear(_int8(rng, outputs, inputs), bias, *_factors(rng, outputs, low, high))


def _gelu(rng: np.random.Generator) -> Gelu:
    return ref.gelu_table(float(2.0 ** rng.uniform(-12, -8)), int(rng.integers(-128, 10)))


def _record(sim: Recorder, rng: np.random.Generator) -> None:
    """One call of every unit, and of every way through the linear one, at a drawn shape."""
    same = np.testing.assert_array_equal
    rows, dim, hidden = int(rng.integers(3, 12)), 32, 48
    x, stream = _int8(rng, rows, dim), rng.integers(-9999, 9999, (rows, dim)).astype(np.int16)

    u, g = _linear(rng, dim, 19), _gelu(rng)
    sim.clear()
    same(sim.linear(x, u), ref.scaled_int16(ref.sums(x, u), u.multiplier, u.shift))
    u = _linear(rng, dim, dim)
    for from_pool in (False, True):
        sim.clear()
        same(sim.linear_add(x, u, stream, from_pool=from_pool), ref.add_to_stream(stream, ref.sums(x, u), u))
    u = _linear(rng, dim, 3 * dim)
    sim.clear()
    same(sim.qkv(x, u), ref.scaled_int8(ref.sums(x, u), u.multiplier, u.shift))
    u = _linear(rng, dim, hidden)
    p = ref.scaled_int16(ref.sums(x, u), u.multiplier, u.shift)
    for wide in (False, True):
        sim.clear()
        same(sim.linear_gelu(x, u, g, wide=wide), ref.gelu_int16(p, g) if wide else ref.gelu_int8(p, g))

    gamma, beta = (rng.integers(-(2**b), 2**b, dim).astype(np.int32) for b in (21, 19))
    norm = Norm(gamma, beta, 1000)
    sim.clear()
    same(sim.layer_norm(stream, norm), ref.layer_norm(stream, norm))

    a = Attention(*_factors(rng, 2, -6, -4), *_factors(rng, dim, -18, -15))
    q, k, v = (_int8(rng, rows, dim) for _ in range(3))
    sim.clear()
    same(sim.attention(q, k, v, a), ref.attention(q, k, v, a))

    slots, path, top_k = 6, (0, 2, 3, 5), 2
    factor = ref.fixed_point(np.array([2.0**-10]))
    gate = Gate(
        rng.integers(-2000, 2000, (len(path), dim)).astype(np.int16),
        rng.integers(-(2**15), 2**15, len(path)).astype(np.int32),
        path,
        int(factor[0][0]),
        int(factor[1][0]),
    )
    sim.clear()
    queues = sim.gate(x, gate, slots, top_k, False)
    logits = ref.gate_logits(x, gate)
    chosen = ref.top_k(logits, top_k)
    wanted = ref.queues(chosen, ref.scores(logits, chosen, gate, False), gate, slots)
    for got, want in zip(queues, wanted, strict=True):
        same(got[0], want[0])
        same(got[1], want[1])

    experts = [Mlp(_linear(rng, dim, hidden), _gelu(rng), _linear(rng, hidden, dim, -4, 2)) for _ in range(slots)]
    mixed = stream.copy()
    for (tokens, score), e in zip(wanted, experts, strict=True):
        if len(tokens):
            inner = ref.scaled_int16(ref.sums(x[tokens], e.fc1), e.fc1.multiplier, e.fc1.shift)
            total = ref.sums(ref.gelu_int8(inner, e.gelu), e.fc2)
            mixed[tokens] = ref.accumulate_scored(mixed[tokens], total, e.fc2, score)
    sim.clear()
    same(sim.experts(stream, x, experts, wanted), mixed)

    tile, width = 2, 16
    picture = rng.integers(-9999, 9999, (2 * tile, 3 * tile, width)).astype(np.int16)
    bias = rng.integers(-99, 99, width).astype(np.int32)
    d = Taps(_int8(rng, 9, width), bias, *_factors(rng, width, -8, -4))
    sim.clear()
    same(sim.depthwise(picture, d, g, tile), ref.gelu_int8(filtered(picture, d), g))
    n = Scaling(bias, *_factors(rng, width, -8, -6))
    sim.clear()
    same(sim.narrow(picture, n, tile), ref.narrow(picture, n))
