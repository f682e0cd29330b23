"""The engine: a bundle, a backend, and the tasks that are active now.

    with edgemtl.load("rooms.edgemtl", tasks=["depth"]) as engine:
        out = engine(frame)                    # uint8 [H, W, 3]
        metres = out["depth"].map              # float32 [H, W]
        engine.activate("semseg")              # unmaps what only depth needed

One lock guards an engine: calls from several threads wait for each other. After an exception in the middle of a call,
such as Ctrl-C, the next call makes the backend anew, unless the engine is closed. A bundle holds native code: load
only bundles you trust.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, overload

import numpy as np

from edgemtl import tasks as kinds
from edgemtl.bundle.manifest import Manifest, Program
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, EdgeMTLError, FrameError, TaskError
from edgemtl.media.preprocess import Array, Colour, Geometry, Image, Preprocessor, check_colour, masked
from edgemtl.runtime import backends, cpu, forks, optics
from edgemtl.runtime.backends.base import Backend, Choice, Ran, Tap
from edgemtl.runtime.cuda.dlpack import Tensor, is_tensor
from edgemtl.runtime.mapping import Segment
from edgemtl.runtime.output import Output, TaskOutput, Timing
from edgemtl.runtime.residency import Residency
from edgemtl.runtime.selection import Selection
from edgemtl.runtime.sizes import parse_size
from edgemtl.tasks import Array as Map

if TYPE_CHECKING:
    from edgemtl.runtime.cuda.maps import DeviceMap

Form = Callable[[str], tuple[tuple[int, ...] | None, type[np.generic]]]  # of a task's array: shape (None: any), type


def load(
    path: str | os.PathLike[str],
    backend: str | None = None,
    *,
    program: str | None = None,
    tasks: Sequence[str] | str | None = None,
    threads: int | None = None,
    memory_budget: str | int | None = None,
    color: Colour = "rgb",
    fov: float | None = None,
    verify: Literal["mapped"] | None = None,
) -> Engine:
    """Open the bundle at `path` and choose a backend; with `tasks`, activate them.

    path: a file, or the name of an installed model, such as those of the package edgemtl-models.
    backend: "tvm-cpu", "onnxruntime", "torch", or None/"auto" for the first usable one (`engine.why` says which).
    program: the target of the bundle's program to run, such as "x86_64-avx2", for tests and measurements; by default
    the best for this CPU, or $EDGEMTL_TARGET.
    threads: of the backend; default: the CPUs this process may use, a container's quota included. TVM and PyTorch keep
    one number per process.
    memory_budget: most bytes of weights that active and prepared tasks may map, like "48MB".
    color: the order of frames' channels, "rgb" or "bgr".
    fov: the camera's horizontal field of view in degrees; depth, which is learnt for one (`engine.manifest.model.fov`),
    is rescaled to it. None: depth stays as it is.
    verify: "mapped" hashes each part of the weights before the first task that needs it is active or prepared, so that
    damage to them is a BundleError; docs/bundle.md has the cost. Programs are hashed always.
    Raises BundleError, BackendError, BudgetError, TaskError.
    """
    budget = None if memory_budget is None else parse_size(memory_budget)
    if threads is not None and (not isinstance(threads, int) or not 0 < threads <= 1024):
        raise EdgeMTLError(f"threads must be a whole number from 1 to 1024, not {threads!r}")
    check_colour(color)
    if verify not in (None, "mapped"):
        raise EdgeMTLError(f'verify is "mapped" or None, not {verify!r}; edgemtl verify FILE hashes everything')
    bundle = Bundle.open(path)
    try:
        if verify:
            bundle.verify_when_used()
        kind, choice, why = backends.choose(backend, bundle, program)
        zoom = None if fov is None else optics.zoom(bundle.manifest.model, fov)
        engine = Engine(bundle, kind, choice, why, threads or cpu.count(), budget, color, zoom)
    except BaseException:
        bundle.close()
        raise
    if tasks is not None:
        try:
            engine.activate(*([tasks] if isinstance(tasks, str) else tasks))
        except BaseException:
            engine.close()
            raise
    return engine


class Engine:
    """Runs the active tasks of one bundle; see the module's text. Make it with `edgemtl.load`.

    `backend` is the backend's name, `program` the one it chose (None: it needs none), `why` the reasons for both.
    `switches` has the last changes of the active tasks. While a thread holds `lock`, calls of
    other threads wait, so that several of its own are as one.
    """

    def __init__(
        self,
        bundle: Bundle,
        kind: type[Backend],
        choice: Choice,
        why: str,
        threads: int,
        budget: int | None,
        color: Colour,
        zoom: float | None = None,
    ) -> None:
        self.backend, self.why, self.threads, self.color = kind.name, why, threads, color
        self.program: Program | None = choice.program
        self.lock = threading.RLock()
        self._bundle = bundle
        self._zoom = zoom
        self._preprocess = Preprocessor(bundle.manifest.model, bundle.manifest.preprocess)
        self._input = self._preprocess.input
        self._closed = self._foreign = False
        self._selection = Selection(bundle, lambda: kind(bundle, choice, threads), budget)
        self.switches = self._selection.switches
        forks.watch(self)

    @property
    def _runner(self) -> Backend:
        return self._selection.runner

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self._bundle.manifest

    @property
    def precision(self) -> str:
        """Of the bundle's weights: "f32", "f16", "bf16" or "int8"."""
        return self._bundle.manifest.precision

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task of the bundle."""
        return self._bundle.manifest.model.task_names

    @property
    def active(self) -> tuple[str, ...]:
        """The tasks that a call runs."""
        return self._selection.active

    @property
    def prepared(self) -> tuple[str, ...]:
        """The tasks that `prepare` made ready, or is about to."""
        return self._selection.prepared

    def size(self, wanted: Iterable[Segment]) -> int:
        """Bytes of these segments of the bundle's weights."""
        return self._selection.size(wanted)

    def place(self, frame: Image) -> Geometry:
        """Where in the network's input a frame of this shape lies."""
        return self._preprocess.geometry((frame.shape[0], frame.shape[1]))

    def taps(self) -> dict[str, Tap | None] | None:
        """`Backend.tap` of each active task; None: the backend has none."""
        tap = self._runner.tap
        return None if tap is None else {task: tap(task) for task in self.active}

    def activate(self, *tasks: str) -> None:
        """Make `tasks` the active ones; the same set again costs nothing.

        What the new tasks lack is mapped and bound first, then what no active task needs is let go; so if this
        raises (TaskError, BudgetError, BackendError, BundleError), the old tasks still work, unless it says that the
        file has been written to. Between the two steps
        both are mapped, but nothing of the new ones is resident yet.
        """
        with self.lock:
            self._open()
            self._selection.activate(tasks)

    def prepare(self, *tasks: str) -> None:
        """Map what `tasks` lack, and read it into memory in the background: for a switch that may come soon.

        The first frame after `activate` of them, which waits for the reading to end, then faults on no page of
        weights. Until then both sets are in memory, and both count against the memory budget (BudgetError); so
        `residency` shows both. It takes the place of what was prepared before, and with no task only ends that, as do
        another set's activation and `close`. When it raises (also TaskError, BundleError, BackendError), the active
        tasks still work and nothing is prepared. With a backend that keeps its own copies it does nothing.
        """
        with self.lock:
            self._open()
            self._selection.prepare(tasks)

    def __call__(
        self, frame: Image | Tensor, *, color: Colour | None = None, out: Mapping[str, Map] | None = None
    ) -> Output:
        """Run the active tasks on `frame`, uint8 [H, W, 3], in the order `color` (default: the engine's).

        frame: a NumPy array; for tvm-cuda also a CUDA tensor (anything with `__dlpack__`), which is resized and
        normalised on the GPU: nothing but the small raw maps comes to the host.
        out: {task: array} to write maps to, each contiguous and of the map's shape and type (`TaskOutput`); tasks that
        it leaves out get new arrays. Raises FrameError for a frame or an array that cannot be one, TaskError when no
        task is active or `out` names one that is not.
        """
        with self.lock:
            self._ready()
            order: Colour = color or self.color
            start = time.perf_counter()
            config, outputs = self.manifest.model, {}
            if self._on_device(frame):
                ran = self._run(frame, colour=order)
                if ran.place is None:
                    raise FrameError("the frame is an input, normalised already: give it to engine.raw")
                place, prepared = ran.place, ran.prepared
                given = self._places(out, lambda name: self._form(name, place.frame))
            else:
                image, place = self._preprocess(frame, order)
                given = self._places(out, lambda name: self._form(name, place.frame))
                prepared = time.perf_counter() - start
                ran = self._run(image)
            after = time.perf_counter()
            for name in self.active:
                task, raw = config.task(name), ran.maps[name]
                kind = kinds.find(task.kind)
                made = kind.result(place.cut(raw, config.head_stride), place.frame, given.get(name))
                if self._zoom is not None and kind.distance:
                    made *= self._zoom * place.width / config.image_size[1]
                outputs[name] = TaskOutput(task, made, raw, order, place.frame)
            end = time.perf_counter()
            run = {name: 1e3 * s for name, s in ran.seconds.items()}
            timing = Timing(1e3 * prepared, run, 1e3 * (end - after), ran.counts)
            self.switches[-1].frame(1e3 * (end - start), ran.written)
            return Output(outputs, timing)

    @overload
    def raw(
        self,
        image: Array | Image | Tensor,
        *,
        color: Colour | None = None,
        out: Mapping[str, Array] | None = None,
        on_device: Literal[False] = False,
    ) -> dict[str, Array]: ...

    @overload
    def raw(
        self, image: Array | Image | Tensor, *, color: Colour | None = None, on_device: Literal[True]
    ) -> dict[str, DeviceMap]: ...

    def raw(
        self,
        image: Array | Image | Tensor,
        *,
        color: Colour | None = None,
        out: Mapping[str, Array] | None = None,
        on_device: bool = False,
    ) -> dict[str, Array] | dict[str, DeviceMap]:
        """Raw maps {task: float32 [channels, h, w]} of the active tasks, at a quarter of the input's size.

        image: a normalised input, float32 [1, 3, H, W], or a frame, uint8 [height, width, 3] in the order `color`
        (default: the engine's). For tvm-cuda either may be a CUDA tensor (anything with `__dlpack__`), which is read
        where it lies, a frame with any strides.
        out: {task: contiguous float32 array of the map's shape} to write to; with one for every active task, tvm-cpu
        allocates no memory for an input after the first.
        on_device: maps stay in the GPU's memory, as `DeviceMap`s, which PyTorch's and CuPy's `from_dlpack` take; the
        call returns when the image has been read, before the maps are there. For tvm-cuda only.
        Raises FrameError when an array has another shape or type, TaskError when `out` names a task that is not active,
        BackendError when the backend has no device memory.
        """
        with self.lock:
            self._ready()
            config, order = self.manifest.model, color or self.color
            shape = (1, 3, *config.image_size)
            places = self._places(out, lambda name: ((config.task(name).channels, *config.map_size), np.float32))
            device = self._runner.device
            if on_device and device is None:
                raise BackendError(
                    f"backend {self.backend!r} has no GPU memory for maps to stay in: load the bundle with"
                    " backend='tvm-cuda', or leave on_device out"
                )
            if on_device and out:
                raise FrameError("out is for maps that come to the host: leave it or on_device out")
            tensor = self._on_device(image)
            if tensor:
                given: Any = image
            elif isinstance(image, np.ndarray) and image.dtype == np.uint8:
                given = self._preprocess(image, order)[0]
            elif masked(image):
                raise FrameError("the image is a masked array, and its mask would be ignored: try image.filled(0)")
            elif isinstance(image, np.ndarray) and image.shape == shape and image.dtype == np.float32:
                given = self._preprocess.input
                given[...] = image  # aligned and contiguous, whatever the caller's array is
            else:
                what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
                raise FrameError(f"raw needs a float32 array of shape {shape} or a uint8 frame, not {what}")
            if on_device and device is not None:
                with self._selection.step(undoes=True):
                    return device.leave(given, self.active, order)
            return self._run(given, places, order if tensor else None).maps

    def residency(self) -> Residency:
        """How many bytes of weights are mapped and in memory now, by group; see `Residency`."""
        with self.lock:
            self._open()
            return self._selection.residency()

    def close(self) -> None:
        """Let go of the backend, the mappings and the file; calling it again does nothing."""
        with self.lock:
            self._closed = True  # first: a close that is broken off leaves a closed engine, and can be called again
            if not self._foreign:
                self._selection.close()
            self._bundle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Never:
        raise EdgeMTLError(
            f"an engine holds mapped memory and cannot be pickled: call {self._how()} where it is needed"
        )

    def forked(self, idle: bool) -> None:
        """In a child process, from its first thread: `idle` when no other thread was in a call at the fork."""
        self.lock = threading.RLock()
        self._foreign = not self._runner.forks
        self._selection.whole &= idle

    def _how(self) -> str:
        """The call that gives an engine like this one."""
        return (
            f"edgemtl.load({str(self._bundle.path)!r}, {self.backend!r}, tasks={list(self.active)},"
            f" threads={self.threads}, color={self.color!r})"
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"active: {', '.join(self.active) or 'none'}"
        return f"<Engine {self.manifest.name} on {self.backend}, {state}>"

    def _form(self, task: str, frame: tuple[int, int]) -> tuple[tuple[int, ...] | None, type[np.generic]]:
        """Shape and type of a task's result for a frame of (H, W); the shape is None where the frame decides it."""
        kind = kinds.find(self.manifest.model.task(task).kind)
        return kind.shape(frame), kind.dtype

    def _places(self, out: Mapping[str, Map] | None, form: Form) -> Mapping[str, Map]:
        """The caller's arrays, checked; `form` gives the shape and type that the one of a task must have."""
        for name, array in (out or {}).items():
            if name not in self.active:
                raise TaskError(f"out names {name!r}, which is not active; active: {', '.join(self.active)}")
            shape, dtype = form(name)
            if shape is None:
                raise FrameError(f"out names {name!r}, whose result has a size that the frame decides: leave it out")
            plain = (
                isinstance(array, np.ndarray)
                and array.flags.c_contiguous
                and array.flags.writeable
                and not masked(array)
            )
            if not plain or array.shape != shape or array.dtype != dtype:
                given = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                hint = "" if plain or not isinstance(array, np.ndarray) else ", masked, not contiguous or not writable"
                need = f"numpy.empty({shape}, numpy.{np.dtype(dtype)})"
                raise FrameError(f"out[{name!r}] is {given}{hint}; it must be like {need}")
        return out or {}

    def _on_device(self, image: object) -> bool:
        """Whether the backend takes `image` where it lies."""
        return self._runner.device is not None and is_tensor(image)

    def _run(self, image: Any, out: Mapping[str, Array] | None = None, colour: Colour | None = None) -> Ran:
        """Run the active tasks, maps into `out` where it has a place; raises BackendError when a map is not what the
        manifest says. colour: the image is a tensor on the device, and if it is a frame, this is its order.
        """
        with self._selection.step(undoes=True):
            if colour is None or self._runner.device is None:
                ran = self._runner.run(image, self.active)
            else:
                ran = self._runner.device.run_tensor(image, self.active, colour)
        config = self.manifest.model
        for name in self.active:
            shape, want = ran.maps[name].shape, (config.task(name).channels, *config.map_size)
            if shape != want:
                raise BackendError(f"backend {self.backend!r} gave a map of shape {shape} for {name!r}, not {want}")
            if out and name in out:
                np.copyto(out[name], ran.maps[name])
                ran.maps[name] = out[name]
            elif not ran.maps[name].flags.owndata:
                ran.maps[name] = ran.maps[name].copy()
        return ran

    def _open(self) -> None:
        if self._closed:
            raise EdgeMTLError("this engine has been closed; load the bundle again")
        if self._foreign:
            raise BackendError(
                f"this engine is of the process that forked this one, and backend {self.backend!r} does not work in a"
                f" child: call {self._how()} in it"
            )
        self._selection.mend()
        own = self._runner.input
        self._preprocess.input = self._input if own is None else own

    def _ready(self) -> None:
        self._open()
        if not self.active:
            raise TaskError(f"no task is active; call engine.activate with one of {', '.join(self.tasks)}")
