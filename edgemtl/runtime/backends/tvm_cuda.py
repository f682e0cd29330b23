"""Programs that edgemtl's compiler built with TVM for NVIDIA GPUs: launch plans and a cubin, run by the driver alone.

An image goes to the device, one CUDA graph replays the prefix and every active task, the raw maps come back. Weights
are copied to the device as tasks become active, in a stream of their own. An image that lies on the GPU already (any
object with `__dlpack__`) is not brought to the host; a frame among them is resized and normalised on the GPU. Maps come
to the host unless the caller wants them where they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from edgemtl.bundle.manifest import Program
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, FrameError
from edgemtl.graph.network import PREFIX
from edgemtl.media.preprocess import Colour, Geometry, Preprocessor
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, OnDevice, Ran, no_program, programs_of
from edgemtl.runtime.cuda import dlpack, driver
from edgemtl.runtime.cuda.driver import Driver
from edgemtl.runtime.cuda.frame import Frames
from edgemtl.runtime.cuda.maps import DeviceMap, Pool
from edgemtl.runtime.cuda.plan import read
from edgemtl.runtime.cuda.prepare import KERNEL, Prepare
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
        self._tasks: set[str] = set()
        self._closed = False
        self._driver = Driver(enter=False)
        settings = bundle.manifest.preprocess
        sizes = Preprocessor(bundle.manifest.model, settings)
        with self._driver.entered():
            self._weights = DeviceWeights(self._driver, bundle)
            self._frames = Frames(self._driver, choice.program.functions)
            self._maps = Pool(self._driver)
            self._prepare = Prepare(self._driver, sizes, settings, self._frames.image)
        self._shape = choice.program.functions[PREFIX].inputs[0]
        self.store, self.input = self._weights, self._frames.input

    @property
    def device(self) -> OnDevice:
        return self

    @classmethod
    def unusable(cls) -> str | None:
        return driver.unusable()

    @classmethod
    def refuses(cls, program: Program) -> str | None:
        if driver.unusable():
            return "no GPU here"
        here = driver.architecture()
        return None if runs_on(program.target, here) else f"this GPU is {here}"

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        programs = programs_of(cls, bundle)
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
        for name in (PREFIX, task):
            if name not in self._program.functions:
                raise BackendError(f"the bundle's program {self._program.target} has no function {name!r}")
        with self._driver.entered():
            for name in (PREFIX, task):
                plan = read(self._bundle.read(self._program.members[name]), name)
                if plan.params != len(self._program.functions[name].params):
                    raise BackendError(
                        f"the launch plan of {name!r} is not of the function that the manifest describes"
                    )
                self._frames.load(name, plan, lambda member=plan.cubin: self._bundle.read(member))  # type: ignore[misc]
                if not self._frames.bound(name):
                    self._frames.bind(name, self._weights.get)
        self._tasks.add(task)

    def settled(self, tasks: Sequence[str]) -> None:
        """Make their graph while their weights are still on the way. What goes wrong comes out in the first frame."""
        with contextlib.suppress(BackendError), self._driver.entered():
            self._frames.graph(tasks)

    def release(self, task: str) -> None:
        self._tasks.discard(task)
        with self._driver.entered():
            if self._frames.bound(task):
                self._frames.release(task)
            self._maps.forget(task)
            if not self._tasks and self._frames.bound(PREFIX):
                self._frames.release(PREFIX)

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        with self._driver.entered():
            self._frames.give(image)
            return self._frame(tasks)

    def run_tensor(self, image: Any, tasks: Sequence[str], colour: Colour) -> Ran:
        with self._driver.entered(), self._given(image, colour) as place:
            ran = self._frame(tasks)
            ran.place, ran.prepared = place, self._frames.arrival
        return ran

    def leave(self, image: Any, tasks: Sequence[str], colour: Colour) -> dict[str, DeviceMap]:
        with self._driver.entered(), self._given(image, colour):
            stream = self._frames.stream
            leases = {task: self._maps.take(task, self._frames.size(task), stream) for task in tasks}
            self._frames.leave({task: lease.buffer.address for task, lease in leases.items()}, self._weights.ready)
            for lease in leases.values():
                self._driver.record(lease.buffer.written, stream)
            self._weights.sweep()  # once after a switch; else an engine whose maps all stay would keep what it dropped
        shapes = self._program.functions
        return {task: DeviceMap(lease, shapes[task].outputs[0][1:]) for task, lease in leases.items()}

    def _frame(self, tasks: Sequence[str]) -> Ran:
        """A frame of the image given last."""
        maps, seconds = self._frames.run(tasks, self._weights.ready)
        self._weights.sweep()  # the GPU has nothing to do at this moment
        return Ran({task: raw[0] for task, raw in maps.items()}, seconds)

    @contextlib.contextmanager
    def _given(self, image: Any, colour: Colour) -> Iterator[Geometry | None]:
        """The image on its way to where the prefix reads it, and a frame's place in the input. Ends when the image has
        been read, and may be written again.
        """
        with self._submitted(image, colour) as place:
            self._frames.given()
            try:
                yield place
            finally:
                self._frames.taken()

    @contextlib.contextmanager
    def _submitted(self, image: Any, colour: Colour) -> Iterator[Geometry | None]:
        if not dlpack.is_tensor(image):
            self._frames.give(image)
            yield None
            return
        with dlpack.opened(image, self._driver.number, self._frames.stream) as view:
            if view.dtype == "uint8" and len(view.shape) == 3 and view.shape[2] == 3:
                self._frames.start()
                yield self._prepare.submit(self._kernel, view, colour, self._frames.stream)
            elif view.dtype == "float32" and view.shape == self._shape and view.contiguous:
                self._frames.give(view.address)
                yield None
            else:
                hint = "; try tensor.permute(1, 2, 0)" if len(view.shape) == 3 and view.shape[0] == 3 else ""
                raise FrameError(
                    f"the image is {view}; it must be a frame, uint8 [height, width, 3], or an input, contiguous"
                    f" float32 of shape {self._shape}{hint}"
                )

    def _kernel(self) -> int:
        try:
            return self._frames.kernel(KERNEL)
        except BackendError:
            raise BackendError(
                "this bundle was compiled before frames could be resized on the GPU: compile it again with edgemtl"
                " compile --target cuda, or bring the frame to the host as a NumPy array"
            ) from None

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as last:  # the last first; one that fails, after a kernel's fault, stops no other
            last.callback(self._maps.close, self._driver.close)
            last.enter_context(self._driver.entered())
            last.callback(self._weights.close)
            last.callback(self._prepare.close)
            last.callback(self._frames.close)

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
