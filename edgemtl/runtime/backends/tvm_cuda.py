"""Programs that edgemtl's compiler built with TVM for NVIDIA GPUs: launch plans and a cubin, run by the driver alone.

An image goes to the device, one CUDA graph replays the prefix and every active task, the raw maps come back. Weights
are copied to the device as tasks become active, in a stream of their own. An image that lies on the GPU already (any
object with `__dlpack__`) is not brought to the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran, no_program
from edgemtl.runtime.cuda import dlpack, driver
from edgemtl.runtime.cuda.driver import Driver
from edgemtl.runtime.cuda.frame import PREFIX, Frames
from edgemtl.runtime.cuda.plan import read
from edgemtl.runtime.cuda.weights import DeviceWeights

TEGRA = ("sm_87",)  # GPUs of Jetsons, whose code no other GPU runs


class TvmCuda(Backend):
    name = "tvm-cuda"
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "queues made on the device; each expert runs over its tokens"),
        "shared prefix": Cell("yes", "one part of the frame's graph up to the first gate, run once"),
        "mapped weights": Cell("cannot", "copied to the GPU's own memory"),
        "residency": Cell("yes", "counted from the allocations on the device"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        assert choice.program is not None
        self._bundle, self._program = bundle, choice.program
        self._driver = Driver()
        self._weights = DeviceWeights(self._driver, bundle)
        self.store = self._weights
        self._frames = Frames(self._driver, choice.program.functions)
        self._shape = choice.program.functions[PREFIX].input
        self.input = self._frames.input
        self._tasks: set[str] = set()
        self._closed = False

    @classmethod
    def unusable(cls) -> str | None:
        return driver.unusable()

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        programs = [p for p in bundle.manifest.programs if p.backend == cls.name]
        if not programs:
            raise no_program(cls.name, bundle)
        here = driver.architecture()
        fit = [p for p in programs if runs_on(p.target, here)]
        if not fit:
            held = ", ".join(p.target for p in programs)
            raise BackendError(
                f"this GPU is {here}, the bundle has programs for {held}: edgemtl compile --target cuda --arch {here}"
            )
        program = max(fit, key=lambda p: _number(p.target))
        return Choice(program, f"{program.target}, for this GPU, which is {here}")

    def bind(self, task: str, get: Get) -> None:
        self._driver.enter()
        for name in (PREFIX, task):
            if name not in self._program.functions:
                raise BackendError(f"the bundle's program {self._program.target} has no function {name!r}")
        for name in (PREFIX, task):
            plan = read(self._bundle.read(self._program.members[name]), name)
            if plan.params != len(self._program.functions[name].params):
                raise BackendError(f"the launch plan of {name!r} is not of the function that the manifest describes")
            self._frames.load(name, plan, lambda member=plan.cubin: self._bundle.read(member))  # type: ignore[misc]
            if not self._frames.bound(name):
                self._frames.bind(name, self._weights.get)
        self._tasks.add(task)

    def release(self, task: str) -> None:
        self._driver.enter()
        self._tasks.discard(task)
        if self._frames.bound(task):
            self._frames.release(task)
        if not self._tasks and self._frames.bound(PREFIX):
            self._frames.release(PREFIX)

    def run(self, image: Array | Any, tasks: Sequence[str]) -> Ran:
        self._driver.enter()
        if hasattr(image, "ctypes"):
            maps, seconds = self._frames.run(image, tasks, self._weights.ready)
        else:
            with dlpack.opened(image, self._shape, self._driver.number, self._frames.stream) as address:
                maps, seconds = self._frames.run(address, tasks, self._weights.ready)
        return Ran({task: raw[0] for task, raw in maps.items()}, seconds)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._driver.enter()
        self._frames.close()
        self._weights.close()
        self._driver.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # of a process that ends, or of an instance that never came to be
            self.close()


def runs_on(target: str, here: str) -> bool:
    """Whether code for `target` runs on a GPU that is `here`: of one major version, and no newer."""
    if target == here or target in TEGRA or here in TEGRA:
        return target == here
    built, device = _number(target), _number(here)
    return built // 10 == device // 10 and built <= device


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_"))
