"""What the kernels and the host must agree on: maxima, lanes, the descriptor program, statuses, counters, arguments.

This is the one place that says so. `make contract` writes hls/include/contract.h from it, which the kernels include (a
test holds the file to it); driver, virtual board and compiler import it. How many lanes and which maxima a value needs
is argued beside the arithmetic, in hls/include/limits.h.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

# Maxima that the memories on chip are compiled for.
MAX_TOKENS = 1025  # a 512 x 512 image in 16-pixel patches, and the class token
MAX_DIM = 384  # ViT-S
MAX_HIDDEN = 1536  # of an MLP, an expert, or the head's projection
MAX_HEADS = 8
MAX_HEAD_WIDTH = 64
MAX_BLOCKS = 32
MAX_EXPERTS = 16
MAX_TOP_K = 4
MAX_TASKS = 8
MAX_CHANNELS = 256  # of a raw map
MAX_STREAM = 524288  # values of the residual stream, or of the head's stream
MAX_TILE = 16  # pixels of the raw map along a patch's side
MAX_OPS = 512
PATCH = 16

# What is computed side by side, and what lies side by side in memory.
LANES = 16  # inputs multiplied per cycle, and output channels
LANES_ROW = 8  # token rows, two on a DSP48E2 (hls/include/mul2.h); also the banks of the memories of rows
LANES_QUERY = 4  # queries that one pass over the keys serves
LANES_LEAVE = 4  # values of the attention's output finished per cycle
TILE_OUT = 64  # output channels of a weight tile, but for an expert's
TILE_BLOCKS = 384  # of 16 x 16 weights that a tile's buffer holds
ROW_WORDS = 2048  # of 16 bytes per bank, of the normalised rows
POOL_WORDS = 8192  # per bank, of query, key and value, or the hidden rows
VALUE_SKEW = 4  # banks by which a head's value lies beside its key
PORTS = 4  # of the weights: banks of the weight image
WORD = 16  # bytes of a port's word

# The descriptor program: a header, a table of tasks, and descriptors, each of FIELDS 32-bit fields.
PROGRAM_MAGIC = 0x4C544D45  # "EMTL"
PROGRAM_VERSION = 2
FIELDS = 16


class Header(IntEnum):
    """Fields of the header."""

    MAGIC = 0
    VERSION = 1
    OPS = 2
    TASKS = 3
    CHECKSUM = 4
    HEIGHT = 5
    WIDTH = 6
    DIM = 7
    HEADS = 8
    EXPERTS = 9
    TOP_K = 10
    RENORMALISE = 11
    TILE = 12
    HEAD_DIM = 13
    QUADS = 14
    TOKENS = 15  # 1: the output is the trunk's tokens, and heads run on the host; 0: raw maps


class TaskField(IntEnum):
    """Fields of a task in the table."""

    BASE = 0
    QUADS = 1
    CHANNELS = 2


class OpField(IntEnum):
    """Fields of a descriptor; AT and SECOND count from the task's base when RELATIVE is set."""

    CODE = 0
    RELATIVE = 1
    AT = 2
    SECOND = 3
    HIDDEN = 4
    STRIDE = 5


class OpCode(IntEnum):
    """What a descriptor asks for."""

    END = 0
    EMBED = 1  # at: position table, second: weights
    NORM = 2  # all rows
    QKV = 3
    ATTEND = 4
    PROJECT = 5
    MLP = 6  # hidden
    GATE = 7
    EXPERTS = 8  # hidden, stride
    HEAD_NORM = 9  # without the class token
    HEAD_PROJECT = 10
    STEP = 11
    OUTPUT = 12
    TOKENS = 13  # the residual stream to the output


class Epilogue(IntEnum):
    """What happens to the linear unit's sums."""

    TO_QKV = 0  # INT8 to the pool: query, key, value
    TO_HIDDEN = 1  # through GELU to INT8, to the pool as rows
    ADD = 2  # added to the stream
    SCORED = 3  # times the score, added to the stream
    TO_STREAM = 4  # through GELU to INT16, to the stream
    RAW = 5  # INT16 to the output
    LOGITS = 6  # the gate's: two halves of 16 experts, INT32


class Status(IntEnum):
    """What the kernel returns; `program.STATUS` has the words for it."""

    OK = 0
    BAD_SHAPE = 1
    BAD_TABLE = 2
    BAD_MAGIC = 3
    BAD_VERSION = 4
    BAD_CHECKSUM = 5
    BAD_PROGRAM = 6
    BAD_TASK = 7
    BAD_BUFFER = 8
    DEADLOCK = 9  # C simulation alone: a stream that can never go on


# What a frame took, unit by unit; COUNTER_WIDTH 32-bit fields each, the last ones zero.
UNITS = ("program", "embed", "norm", "linear", "attention", "gate", "depthwise", "narrow", "tokens")
COUNTER_FIELDS = ("calls", "steps", "cycles", "read", "written")
COUNTER_WIDTH = 8

# The kernel's arguments, in order: an address in DDR that it reads or writes, a number, or a wire from beside it.
REGISTER_VERSION = 2
KERNEL = "edgemtl_top"
Kind = Literal["read", "write", "number", "wire"]
Arguments = tuple[tuple[str, Kind], ...]
ARGUMENTS: Arguments = (
    ("w0", "read"),
    ("w1", "read"),
    ("w2", "read"),
    ("w3", "read"),
    ("quads", "number"),
    ("program", "read"),
    ("program_words", "number"),
    ("pixels", "read"),
    ("pixel_words", "number"),
    ("output", "write"),
    ("output_words", "number"),
    ("task", "number"),
    ("counters", "write"),
    ("cycle", "wire"),
)
