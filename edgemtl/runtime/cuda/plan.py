"""A function of a CUDA program as its bundle holds it: a list of kernel launches, with every size settled.

The compiler (edgemtl_compiler/cuda/lower.py) writes it, the runtime reads it. Nothing depends on the data of a frame:
the same launches in the same order, whatever the gates choose. That is what lets a frame be one CUDA graph.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from edgemtl.bundle.manifest import MemberName
from edgemtl.config import Strict
from edgemtl.errors import BundleError

ALIGN = 256  # bytes; every tensor of a plan begins on such a boundary
MAX_THREADS, MAX_SHARED = 1024, 227 << 10

Kind = Literal["input", "output", "scratch", "weight", "experts", "ints", "int", "float"]
# ("input" | "output", byte offset), ("scratch", byte offset), ("weight", number of the function's parameter),
# ("experts" | "ints", number of the table), ("int" | "float", value)
Argument = tuple[Kind, int | float]
Precision = Literal["f32", "f16", "bf16"]
Count = Annotated[int, Field(ge=1, le=1 << 30)]
Few = Annotated[int, Field(ge=1, le=65_535)]  # blocks of a grid down and deep, on every GPU


class Launch(Strict):
    """One kernel: its entry in the cubin, blocks, threads of a block, bytes of shared memory, arguments in order."""

    kernel: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    grid: tuple[Count, Few, Few]
    threads: int = Field(ge=32, le=MAX_THREADS, multiple_of=32)
    shared: int = Field(ge=0, le=MAX_SHARED)
    args: tuple[Argument, ...] = Field(max_length=32)


class Plan(Strict):
    """`input`, `output`: bytes (float32 both); `scratch`: bytes that the launches may use between them and that hold
    nothing from one function to the next. `experts[i]` lists parameters whose addresses table i holds, `ints[i]` the
    int32 values of table i. `cubin`: the member of the bundle with the code, made for `arch`, a `precision` of products
    and attention heads of `head` values; `batch`: images at once.
    """

    format: Literal[1] = 1
    arch: str = Field(pattern=r"^sm_\d{2,3}$")
    precision: Precision
    head: int = Field(ge=1, le=1024)
    cubin: MemberName
    batch: int = Field(1, ge=1, le=1024)
    input: Count
    output: Count
    scratch: int = Field(ge=0, le=1 << 34)
    params: int = Field(ge=0, le=1 << 20)
    experts: tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    ints: tuple[tuple[int, ...], ...] = ()
    launches: tuple[Launch, ...] = Field(min_length=1, max_length=1 << 16)

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        limits = {
            "input": self.input,
            "output": self.output,
            "scratch": self.scratch,
            "weight": self.params,
            "experts": len(self.experts),
            "ints": len(self.ints),
        }
        for launch in self.launches:
            for kind, value in launch.args:
                if kind in limits and not (isinstance(value, int) and 0 <= value < limits[kind]):
                    raise ValueError(f"a launch of {launch.kernel} names {kind} {value}, beyond what there is")
                if kind == "int" and not (isinstance(value, int) and -(1 << 31) <= value < 1 << 31):
                    raise ValueError(f"a launch of {launch.kernel} has {value}, which is no 32-bit integer")
        if any(index >= self.params for table in self.experts for index in table):
            raise ValueError("a table of experts names a weight that the function does not have")
        return self


def read(data: bytes, name: str) -> Plan:
    """The plan in a bundle's member. Raises BundleError."""
    try:
        return Plan.model_validate_json(data)
    except ValidationError as e:
        raise BundleError(f"the program of {name!r} is no launch plan: {e.errors()[0]['msg'][:200]}") from None
