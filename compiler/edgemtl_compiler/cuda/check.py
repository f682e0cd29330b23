"""A CUDA program run by the compiler: on the GPU of this machine if it fits, else in the emulation on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Function, Program
from edgemtl.graph.network import PREFIX
from edgemtl.runtime.backends.tvm_cuda import runs_on
from edgemtl.runtime.cuda import driver
from edgemtl.runtime.cuda.driver import Driver
from edgemtl.runtime.cuda.frame import Frames
from edgemtl.runtime.cuda.plan import Plan, read
from edgemtl_compiler.cuda import toolchain
from edgemtl_compiler.precision import Parts


class PlanRunner:
    """Plans with all of their weights on the device; call it with an input and tasks. `close` gives all back."""

    def __init__(
        self,
        gpu: Driver,
        plans: Mapping[str, Plan],
        functions: Mapping[str, Function],
        cubin: Callable[[], bytes],
        parts: Parts,
    ) -> None:
        self._gpu, self._stream, self._ready = gpu, gpu.stream(), gpu.event()
        self._addresses: dict[tuple[str, str], int] = {}
        self._parts = parts
        self.frames = Frames(gpu, functions)
        for name, plan in plans.items():
            self.frames.load(name, plan, cubin)
            self.frames.bind(name, self._address)

    def __call__(self, image: Array, tasks: Sequence[str]) -> dict[str, Array]:
        """Raw maps of the first image of the batch, copies."""
        self.frames.give(image)
        maps, _ = self.frames.run(tasks, self._ready)
        return {task: raw[0].copy() for task, raw in maps.items()}

    def close(self) -> None:
        self.frames.close()
        for address in self._addresses.values():
            self._gpu.free(address)
        self._gpu.end_event(self._ready)
        self._gpu.end_stream(self._stream)

    def _address(self, part: str, tensor: str) -> int:
        if (part, tensor) not in self._addresses:
            array = np.ascontiguousarray(self._parts[part][tensor])
            address = self._addresses[part, tensor] = self._gpu.alloc(array.nbytes)
            self._gpu.upload(address, array.ctypes.data, array.nbytes, self._stream)
            self._gpu.synchronize(self._stream)
        return self._addresses[part, tensor]


def fits_here(arch: str) -> bool:
    """Whether this machine has a GPU that runs code for `arch`."""
    return driver.unusable() is None and runs_on(arch, driver.architecture())


def runner(program: Program, paths: Mapping[str, Path], parts: Parts) -> PlanRunner:
    """Of a built program whose files are in `paths`, by member."""
    plans = {name: read(paths[member].read_bytes(), name) for name, member in program.members.items()}
    one = plans[PREFIX]
    gpu = Driver() if fits_here(one.arch) else emulated(one.precision, one.head)
    return PlanRunner(gpu, plans, program.functions, paths[one.cubin].read_bytes, parts)


def emulated(precision: str, head: int) -> Driver:
    """The emulation, as a GPU."""
    return Driver(name=str(toolchain.emulation(precision, head)))
