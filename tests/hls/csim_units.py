"""The C simulation's units as functions of NumPy arrays with the reference's signatures, and whole frames.

A unit gets its tables through the same packing as the device, so a test of a unit tests the packing, too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import FrameError
from edgemtl.fpga import contract, counters
from edgemtl.fpga.contract import PORTS, VALUE_SKEW, Epilogue, Status
from edgemtl.fpga.program import STATUS
from edgemtl.graph.integer.params import Attention, Gate, Gelu, Linear, Mlp, Norm, Scaling, Taps
from edgemtl_compiler.fpga import image
from edgemtl_compiler.fpga.image import ImageBuilder
from edgemtl_compiler.fpga.ops.separable_step import packed
from edgemtl_compiler.fpga.program import Program


class CSim:
    """The compiled units. A refusal by a unit raises ValueError; a deadlock raises RuntimeError with the stream."""

    def __init__(self, library: Path) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._lib.edgemtl_csim_memory.restype = ctypes.c_void_p
        self._lib.edgemtl_csim_message.restype = ctypes.c_char_p
        kinds: list[tuple[str, Any, tuple[int, ...]]] = [
            ("stream", np.int16, (contract.MAX_STREAM,)),
            ("rows", np.int8, (contract.LANES_ROW, contract.ROW_WORDS, contract.LANES)),
            ("pool", np.int8, (contract.LANES_ROW, contract.POOL_WORDS, contract.LANES)),
            ("logit", np.int32, (contract.MAX_TOKENS, contract.MAX_EXPERTS)),
            ("token", np.uint16, (contract.MAX_EXPERTS, contract.MAX_TOKENS)),
            ("score", np.uint16, (contract.MAX_EXPERTS, contract.MAX_TOKENS)),
            ("length", np.uint16, (contract.MAX_EXPERTS,)),
        ]
        self.counters = np.zeros(counters.BYTES // 4, np.uint32)  # of the last frame
        self._memory: dict[str, NDArray[Any]] = {}
        for which, (name, dtype, shape) in enumerate(kinds):
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            buffer = (ctypes.c_uint8 * size).from_address(self._lib.edgemtl_csim_memory(which))
            self._memory[name] = np.frombuffer(buffer, dtype).reshape(shape)

    def frame(self, program: Program, pixels: NDArray[np.uint8], task: str) -> NDArray[np.int16]:
        """The raw map [height, width, channels] of one frame [H, W, 3]."""
        if pixels.dtype != np.uint8 or pixels.shape != (*program.image_size, 3):
            raise FrameError(
                f"the accelerator's program wants uint8 [{program.image_size[0]}, {program.image_size[1]}, 3]; "
                f"given {pixels.dtype} {list(pixels.shape)}"
            )
        index = program.task(task)
        output = np.zeros((program.output_words(index), 2), np.uint64)
        self.raw_frame(list(program.banks), program.words, pixels, output, index)
        return program.raw_map(output, index)

    def raw_frame(
        self,
        banks: Sequence[NDArray[np.uint8]],
        words: NDArray[np.uint32],
        pixels: NDArray[np.uint8],
        output: NDArray[np.uint64],
        task: int,
    ) -> None:
        """The top level as the driver calls it; buffers are passed on as they are."""
        words, pixels = np.ascontiguousarray(words), np.ascontiguousarray(pixels)
        tail = [_p(words), words.nbytes // 16, _p(pixels), pixels.nbytes // 16, _p(output), len(output), task]
        self._call("frame", banks, [len(banks[0]), *tail, _p(self.counters)])

    def linear(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int16]:
        """Rows [M, K] from the pool to the raw output [M, N]: the product and its INT16 rounding."""
        rows, outputs = len(x), len(u.bias)
        self._put("pool", x)
        words = outputs // 16 * rows * 2 + -(-(outputs % 16) * rows // 8)
        output = np.zeros((words, 2), np.uint64)
        self._call("linear", image.linear(u), [_p(output), 1, rows, x.shape[1], outputs, 0, Epilogue.RAW])
        program = _layout(rows, outputs)
        return program.raw_map(output, 0)[0]

    def linear_add(
        self, x: NDArray[np.int8], u: Linear, stream: NDArray[np.int16], *, from_pool: bool
    ) -> NDArray[np.int16]:
        """stream [M, N] plus the product; rows from the pool, or from where LayerNorm leaves them."""
        self._put_stream(stream)
        self._put("pool" if from_pool else "rows", x)
        self._call("linear", image.linear(u), [None, int(from_pool), len(x), x.shape[1], len(u.bias), 0, Epilogue.ADD])
        return self._stream(stream.shape)

    def qkv(self, x: NDArray[np.int8], u: Linear) -> NDArray[np.int8]:
        """Rows [M, D] to query, key and value [M, 3 D]."""
        self._put("rows", x)
        self._call("linear", image.linear(u), [None, 0, *x.shape, len(u.bias), 0, Epilogue.TO_QKV])
        dim = len(u.bias) // 3
        step, skew = -(-len(x) // contract.LANES_ROW) * dim // contract.LANES, (0, 0, VALUE_SKEW)
        return np.concatenate([self._get("pool", len(x), dim, base=i * step, skew=skew[i]) for i in range(3)], 1)

    def linear_gelu(self, x: NDArray[np.int8], u: Linear, gelu: Gelu, *, wide: bool) -> NDArray[Any]:
        """Rows [M, K] through GELU to INT8 hidden rows, or to an INT16 stream when `wide`."""
        self._put("rows", x)
        kind = Epilogue.TO_STREAM if wide else Epilogue.TO_HIDDEN
        tables = image.gelu(gelu) + image.linear(u)
        self._call("linear", tables, [None, 0, *x.shape, len(u.bias), 0, kind])
        return self._stream((len(x), len(u.bias))) if wide else self._get("pool", len(x), len(u.bias))

    def layer_norm(self, stream: NDArray[np.int16], u: Norm, first: int = 0) -> NDArray[np.int8]:
        """Rows `first` and following of the stream [M, D] to INT8."""
        self._put_stream(stream)
        rows = len(stream) - first
        self._call("norm", image.norm(u), [first, rows, stream.shape[1]])
        return self._get("rows", rows, stream.shape[1])

    def attention(
        self, q: NDArray[np.int8], k: NDArray[np.int8], v: NDArray[np.int8], u: Attention
    ) -> NDArray[np.int8]:
        """Like `reference.attention`."""
        step = -(-len(q) // contract.LANES_ROW) * q.shape[1] // contract.LANES
        for i, (part, skew) in enumerate(((q, 0), (k, 0), (v, VALUE_SKEW))):
            self._put("pool", part, base=i * step, skew=skew)
        self._call("attention", image.attention(u), [*q.shape, len(u.exp_multiplier)])
        return self._get("rows", *q.shape)

    def gate(
        self, x: NDArray[np.int8], u: Gate, slots: int, k: int, renormalise: bool
    ) -> list[tuple[NDArray[np.int64], NDArray[np.uint16]]]:
        """The queues of every slot: token ids and scores."""
        self._put("rows", x)
        self._call("gate", image.gate(u), [*x.shape, slots, k, int(renormalise)])
        n, m = self._memory["length"], self._memory
        return [(m["token"][e, : n[e]].astype(np.int64), m["score"][e, : n[e]].copy()) for e in range(slots)]

    def experts(
        self,
        stream: NDArray[np.int16],
        x: NDArray[np.int8],
        experts: Sequence[Mlp],
        queues: Sequence[tuple[NDArray[np.int64], NDArray[np.uint16]]],
    ) -> NDArray[np.int16]:
        """stream [M, D] plus every expert's scored output over its queue."""
        self._put_stream(stream)
        self._put("rows", x)
        for e, (tokens, score) in enumerate(queues):
            self._memory["length"][e] = len(tokens)
            self._memory["token"][e, : len(tokens)] = tokens
            self._memory["score"][e, : len(tokens)] = score
        parts = [image.mlp(e) for e in experts]
        sizes = [len(parts[0]) // image.QUAD, len(parts), x.shape[1], len(experts[0].fc1.bias)]
        self._call("experts", b"".join(parts), sizes)
        return self._stream(stream.shape)

    def depthwise(self, stream: NDArray[np.int16], u: Taps, gelu: Gelu, tile: int) -> NDArray[np.int8]:
        """The head's stream [H, W, C] through a depthwise step and GELU to INT8; tiles are `tile` pixels wide."""
        place, sizes = self._put_tiles(stream, tile)
        self._call("depthwise", image.gelu(gelu) + packed(u), sizes)
        return self._get("pool", place.size, stream.shape[2])[place]

    def narrow(self, stream: NDArray[np.int16], u: Scaling, tile: int) -> NDArray[np.int8]:
        """The head's stream [H, W, C] to INT8; the unit brings it from the order of tiles to that of lines."""
        place, sizes = self._put_tiles(stream, tile)
        self._call("narrow", image.narrow(u), sizes)
        return self._get("pool", place.size, stream.shape[2]).reshape(stream.shape)

    def _put_tiles(self, stream: NDArray[np.int16], tile: int) -> tuple[NDArray[np.int64], list[int]]:
        """Into the stream's memory in the order of tiles, and each pixel's place there [H, W]; the sizes of a call."""
        height, width, channels = stream.shape
        place = tile_order(height, width, tile)
        tiles = np.empty((height * width, channels), np.int16)
        tiles[place] = stream
        self._put_stream(tiles)
        return place, [height // tile, width // tile, tile.bit_length() - 1, channels]

    def mul2_faults(self) -> int:
        """How many of all 2^24 triples the packed multiplier gets wrong."""
        return int(self._lib.edgemtl_csim_mul2_faults())

    def stream_probe(self, writes: int, reads: int) -> None:
        """Writes to and reads from a stream of three places called "probe"."""
        self._raise(self._lib.edgemtl_csim_stream(writes, reads))

    def _call(self, unit: str, tables: bytes | Sequence[NDArray[np.uint8]], rest: list[Any]) -> None:
        if isinstance(tables, bytes):
            builder = ImageBuilder()
            builder.add(tables)
            tables = list(builder.banks())
        banks = [_p(tables[b]) for b in range(PORTS)]
        self._raise(getattr(self._lib, f"edgemtl_csim_{unit}")(*banks, *rest))

    def _raise(self, status: int) -> None:
        if status == Status.DEADLOCK:
            raise RuntimeError(self._lib.edgemtl_csim_message().decode())
        if status:
            raise ValueError(f"the accelerator refused: {STATUS.get(status, f'status {status}')}")

    def _put_stream(self, stream: NDArray[np.int16]) -> None:
        self._memory["stream"][: stream.size] = stream.reshape(-1)

    def _put(self, memory: str, x: NDArray[np.int8], *, base: int = 0, skew: int = 0) -> None:
        self._memory[memory][_diagonal(len(x), x.shape[1], base, skew)] = x.reshape(len(x), -1, contract.LANES)

    def _get(self, memory: str, rows: int, width: int, *, base: int = 0, skew: int = 0) -> NDArray[np.int8]:
        return self._memory[memory][_diagonal(rows, width, base, skew)].reshape(rows, width).copy()

    def _stream(self, shape: tuple[int, ...]) -> NDArray[np.int16]:
        return self._memory["stream"][: int(np.prod(shape))].reshape(shape).copy()


def tile_order(height: int, width: int, tile: int) -> NDArray[np.int64]:
    """Where a pixel of a map [height, width] lies when tokens' tiles follow each other, row by row within each."""
    y, x = np.mgrid[:height, :width]
    token = (y // tile) * (width // tile) + x // tile
    place: NDArray[np.int64] = ((token * tile + y % tile) * tile + x % tile).astype(np.int64)
    return place


def _diagonal(rows: int, width: int, base: int, skew: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bank and word [rows, words] of every 16 values of a region: hls/include/types.h."""
    row, word = np.mgrid[:rows, : width // contract.LANES].astype(np.int64)
    return (row + word + skew) % contract.LANES_ROW, base + row // contract.LANES_ROW * (width // contract.LANES) + word


def _p(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _layout(rows: int, outputs: int) -> Program:
    """A program that only describes a raw map of one line."""
    nothing = np.zeros((0, 16), np.uint32)
    return Program(nothing, nothing.view(np.uint8), ("raw",), (0, 0), (1, rows), (outputs,), (1.0,), (0,))
