"""The SystemVerilog twins of the linear and the attention unit, as Verilator builds them, called through ctypes.

Both take the weight image's own bytes and return what the C simulation returns, bit for bit, and the cycles that the
register-transfer level needed (origin: rtl-sim). Memories, DDR and the other units are not in them: whoever drives
the streams is always ready unless `Traffic` says otherwise.

Cycles without back-pressure, from the first job's offer to the last result, for L = lanes_row:

linear: `tile` loads with 2 + inputs / 4 quads, computes in ceil(rows / L) · max(inputs / 16, L) cycles (the epilogue
takes a row per cycle); a job is one load, then the greater of load and compute per tile, then 10 stages of the array
and 9 of the epilogue. Where a GELU table comes first: 17 quads more.

attention: (ceil(tokens / 4) + 1) · tokens · heads + min(tokens, 4) · heads for the key stream, one key and head per
cycle; then the last mean: pipeline, divider, 16 cycles per head's 64 channels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.fpga.contract import LANES, LANES_QUERY, LANES_ROW, MAX_HEAD_WIDTH
from edgemtl.graph.integer.params import Attention, Gelu, Linear
from edgemtl.graph.integer.units import Units
from edgemtl_compiler.fpga import image

INT8, INT16, ADD, SCORED, GELU8, GELU16, INT32 = range(7)  # the epilogues of linear_epilogue.sv
FAULTS = {
    -1: "did not finish, or left input untaken",
    -2: "dropped or changed a result that waited",
    -3: "gave more results than the job has",
}


@dataclass(frozen=True)
class Traffic:
    """In how many cycles of a hundred a source has nothing (`gaps`) and the sink does not take (`stalls`)."""

    gaps: int = 0
    stalls: int = 0
    seed: int = 0


SMOOTH = Traffic()


@dataclass(frozen=True)
class LinearJob:
    """x INT8 [M, K] through `unit`; `gelu`, `stream` INT16 [M, N] and `score` UINT16 [M] as the epilogue wants."""

    x: NDArray[np.int8]
    unit: Linear
    epilogue: int
    gelu: Gelu | None = None
    stream: NDArray[np.int16] | None = None
    score: NDArray[np.uint16] | None = None


class LinearTwin:
    """The linear unit in Verilator. `cycles` sums up what all calls took."""

    def __init__(self, library: Path, lanes_row: int = LANES_ROW) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.linear_run.restype = ctypes.c_int64
        self._lanes_row = lanes_row
        self.cycles = 0

    def run(self, jobs: Sequence[LinearJob], traffic: Traffic = SMOOTH) -> list[NDArray[np.int32]]:
        """The results [M, N] of jobs that follow each other without a pause.

        Raises ValueError for a table outside its range, RuntimeError where the unit breaks its protocol.
        """
        table = np.array([[len(j.x), j.x.shape[1] // 16, -(-len(j.unit.bias) // 16), j.epilogue] for j in jobs], "<i4")
        quads = b"".join((image.gelu(j.gelu) if j.gelu else b"") + image.linear(j.unit) for j in jobs)
        rows = np.concatenate([row_beats(j, self._lanes_row) for j in jobs])
        stream = np.concatenate([_stream(j) for j in jobs])
        counts = [len(j.x) * int(t) for j, t in zip(jobs, table[:, 2], strict=True)]
        results = np.zeros((sum(counts), LANES), np.int32)
        weights = np.frombuffer(quads, np.uint8)
        bad = ctypes.c_int32(0)
        limit = 10_000 + 20 * (len(weights) // 64 + len(rows) + len(results)) * (1 if traffic == SMOOTH else 20)
        cycles = self._lib.linear_run(
            *(_p(table), ctypes.c_int64(len(table)), _p(weights), ctypes.c_int64(len(weights) // 64)),
            *(_p(rows), ctypes.c_int64(rows.shape[1]), ctypes.c_int64(len(rows))),
            *(_p(stream), ctypes.c_int64(len(stream)), _p(results), ctypes.c_int64(len(results))),
            *(traffic.seed, traffic.gaps, traffic.stalls, ctypes.c_int64(limit), ctypes.byref(bad)),
        )
        self.cycles += _check(cycles, "linear")
        if bad.value:
            raise ValueError("the linear unit refused: a value in the weight image outside its range")
        parts = np.split(results, np.cumsum(counts)[:-1])
        return [_columns(part, j) for part, j in zip(parts, jobs, strict=True)]


@dataclass(frozen=True)
class AttentionJob:
    """q, k, v INT8 [N, D] through the factors of `unit`."""

    q: NDArray[np.int8]
    k: NDArray[np.int8]
    v: NDArray[np.int8]
    unit: Attention

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens, heads, width of a head."""
        heads = len(self.unit.exp_multiplier)
        return len(self.q), heads, self.q.shape[1] // heads


class AttentionTwin:
    """The attention unit in Verilator. `cycles` sums up what all calls took."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.attention_run.restype = ctypes.c_int64
        self.cycles = 0

    def run(self, jobs: Sequence[AttentionJob], traffic: Traffic = SMOOTH) -> list[NDArray[np.int8]]:
        """The results [N, D] of jobs that follow each other.

        Raises ValueError for a table outside its range, RuntimeError where the unit breaks its protocol.
        """
        table = np.array([(j.shape[0], j.shape[1], j.shape[2] // 4) for j in jobs], "<i4")
        weights = np.frombuffer(b"".join(image.attention(j.unit) for j in jobs), np.uint8)
        queries = np.concatenate([head_beats(j.q, j.shape) for j in jobs])
        keys = np.concatenate([key_beats(j) for j in jobs])
        results = np.zeros((len(queries), MAX_HEAD_WIDTH), np.int8)
        bad = ctypes.c_int32(0)
        limit = 10_000 + 4 * (len(keys) + 20 * len(results)) * (1 if traffic == SMOOTH else 20)
        cycles = self._lib.attention_run(
            *(_p(table), ctypes.c_int64(len(table)), _p(weights), ctypes.c_int64(len(weights) // 64)),
            *(_p(queries), ctypes.c_int64(len(queries)), _p(keys), ctypes.c_int64(len(keys))),
            *(_p(results), ctypes.c_int64(len(results))),
            *(traffic.seed, traffic.gaps, traffic.stalls, ctypes.c_int64(limit), ctypes.byref(bad)),
        )
        self.cycles += _check(cycles, "attention")
        if bad.value:
            raise ValueError("the attention unit refused: a value in the weight image outside its range")
        parts = np.split(results, np.cumsum([j.shape[0] * j.shape[1] for j in jobs]))
        return [part[:, : j.shape[2]].reshape(len(j.q), -1) for part, j in zip(parts, jobs, strict=False)]


def row_beats(job: LinearJob, lanes_row: int = LANES_ROW) -> NDArray[np.uint8]:
    """The row stream [beats, lanes_row * 16]: per tile and row group, 16 inputs of each row, the last group padded."""
    m, k = job.x.shape
    groups = -(-m // lanes_row)
    padded = np.full((groups * lanes_row, k), 85, np.int8)  # padding must not matter
    padded[:m] = job.x
    beats = padded.reshape(groups, lanes_row, k // 16, 16).swapaxes(1, 2).reshape(-1, lanes_row * 16)
    return np.tile(beats.view(np.uint8), (-(-len(job.unit.bias) // 16), 1))


def head_beats(x: NDArray[np.int8], shape: tuple[int, int, int], beat: int = MAX_HEAD_WIDTH) -> NDArray[np.int8]:
    """x [tokens, heads * width] of a shape (tokens, heads, width) as [tokens * heads, beat], padded with zeros."""
    tokens, heads, width = shape
    beats = np.zeros((tokens * heads, beat), np.int8)
    beats[:, :width] = x.reshape(tokens * heads, width)
    return beats


def key_beats(job: AttentionJob, beat: int = MAX_HEAD_WIDTH) -> NDArray[np.int8]:
    """The key stream [beats, 2 * beat]: keys beside values of all tokens, once per block of queries and once more, then
    a key per slot."""
    tokens, heads, _ = job.shape
    once = np.concatenate([head_beats(job.k, job.shape, beat), head_beats(job.v, job.shape, beat)], 1)
    blocks = -(-tokens // LANES_QUERY) + 1
    return np.concatenate([np.tile(once, (blocks, 1)), once[: min(tokens, LANES_QUERY) * heads]])


def _stream(job: LinearJob) -> NDArray[np.uint8]:
    """Beats of the residual stream in the order of the results: 16 values and the row's score."""
    if job.stream is None:
        return np.zeros((0, 34), np.uint8)
    m, n = job.stream.shape
    beats = np.zeros((n // 16, m, 17), "<i2")
    beats[:, :, :16] = job.stream.reshape(m, n // 16, 16).swapaxes(0, 1)
    if job.score is not None:
        beats[:, :, 16] = job.score.view("<i2")
    return beats.reshape(-1, 17).view(np.uint8)


def _columns(results: NDArray[np.int32], job: LinearJob) -> NDArray[np.int32]:
    """Results in the order of tiles to [M, N]."""
    return results.reshape(-1, len(job.x), LANES).swapaxes(0, 1).reshape(len(job.x), -1)[:, : len(job.unit.bias)]


def _check(cycles: int, unit: str) -> int:
    if cycles < 0:
        raise RuntimeError(f"the {unit} unit {FAULTS[cycles]}")
    return cycles


def _p(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class TwinUnits(Units):
    """Every product and attention of a frame on the twins; each call waits for the one before it.

    `products` and `attentions` are the calls' shapes: (rows, inputs, outputs) and (tokens, heads, width of a head).
    """

    def __init__(self, linear: LinearTwin, attention: AttentionTwin) -> None:
        self.linear_unit, self.attention_unit = linear, attention
        self.products: list[tuple[int, int, int]] = []
        self.attentions: list[tuple[int, int, int]] = []

    def _product(self, job: LinearJob) -> NDArray[np.int32]:
        self.products.append((*job.x.shape, len(job.unit.bias)))
        return self.linear_unit.run([job])[0]

    def to_int8(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int8]:
        return self._product(LinearJob(x, u, INT8)).astype(np.int8)

    def to_int16(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int16]:
        return self._product(LinearJob(x, u, INT16)).astype(np.int16)

    def gelu_int8(self, x: NDArray[np.int8], u: Linear, gelu: Gelu) -> NDArray[np.int8]:
        return self._product(LinearJob(x, u, GELU8, gelu)).astype(np.int8)

    def gelu_int16(self, x: NDArray[np.int8], u: Linear, gelu: Gelu) -> NDArray[np.int16]:
        return self._product(LinearJob(x, u, GELU16, gelu)).astype(np.int16)

    def add(self, x: NDArray[np.int8], u: Linear, stream: NDArray[np.int16]) -> NDArray[np.int16]:
        return self._product(LinearJob(x, u, ADD, stream=stream)).astype(np.int16)

    def add_scored(
        self, x: NDArray[np.int8], u: Linear, stream: NDArray[np.int16], score: NDArray[np.uint16]
    ) -> NDArray[np.int16]:
        return self._product(LinearJob(x, u, SCORED, stream=stream, score=score)).astype(np.int16)

    def attention(
        self, q: NDArray[np.int8], k: NDArray[np.int8], v: NDArray[np.int8], u: Attention
    ) -> NDArray[np.int8]:
        job = AttentionJob(q, k, v, u)
        self.attentions.append(job.shape)
        return self.attention_unit.run([job])[0]
