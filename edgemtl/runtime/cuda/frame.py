"""A frame on the GPU: launch plans, bound to addresses, captured once per set of tasks and replayed as one graph.

All functions share one scratch buffer, because a stream runs them one after the other. A graph holds addresses, so it
is good as long as the bindings it was captured with; it is kept and used again when the same set comes back with none
of them changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgemtl.bundle.manifest import Function
from edgemtl.errors import BackendError
from edgemtl.graph.network import PREFIX
from edgemtl.runtime.cuda.driver import Argument, Bytes, Driver
from edgemtl.runtime.cuda.plan import Plan

KEPT_GRAPHS = 16

Get = Callable[[str, str], int]  # (part, tensor) -> device address
Key = tuple[bool, tuple[tuple[str, int], ...]]  # whether maps go to the host; each function's name and binding
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


@dataclass
class Bound:
    """A function with addresses for its weights and tables. `number` tells bindings apart."""

    plan: Plan
    weights: list[int]
    tables: int  # address of all tables, 0 when there are none
    places: dict[tuple[str, int], int]  # (kind, number) -> address of that table
    number: int


@dataclass
class Loaded:
    """A function's code and its result's memory on both sides; they stay as long as the program."""

    plan: Plan
    shape: tuple[int, ...]
    kernels: dict[str, int]
    output: int
    host: Bytes | None  # pinned; the prefix's result stays on the device
    end: int  # an event


class Frames:
    """Runs the plans of one program. `image` is where, on the device, the prefix reads an image; `input` is pinned
    memory, from which images get there best.
    """

    def __init__(self, driver: Driver, functions: Mapping[str, Function]) -> None:
        self._driver, self._functions = driver, functions
        self.stream, self._start, self._begin = driver.stream(), driver.event(), driver.event()
        self._taken = driver.event()
        self._modules: dict[str, int] = {}
        self._loaded: dict[str, Loaded] = {}
        self._bound: dict[str, Bound] = {}
        self._graphs: dict[Key, int] = {}
        self._bindings = 0
        self._scratch, self._scratch_size = 0, 0
        size = 4 * int(np.prod(functions[PREFIX].inputs[0]))
        self.image = driver.alloc(size)
        self._pinned = driver.pinned(size)
        self.input: Floats = self._pinned.view(np.float32).reshape(functions[PREFIX].inputs[0])

    def load(self, name: str, plan: Plan, cubin: Callable[[], bytes]) -> None:
        """Make a function's code and memory ready, if they are not. Raises BackendError."""
        if name in self._loaded:
            return
        if plan.cubin not in self._modules:
            self._modules[plan.cubin] = self._driver.module(cubin())
        needs: dict[str, int] = {}
        for launch in plan.launches:
            needs[launch.kernel] = max(launch.shared, needs.get(launch.kernel, 0))
        module = self._modules[plan.cubin]
        kernels = {k: self._driver.function(module, k, shared) for k, shared in needs.items()}
        if plan.scratch > self._scratch_size:  # graphs hold its address
            self._forget(lambda key: True)
            if self._scratch:
                self._driver.free(self._scratch)
            self._scratch, self._scratch_size = self._driver.alloc(plan.scratch), plan.scratch
        host = None if name == PREFIX else self._driver.pinned(plan.output)
        output = self._driver.alloc(plan.output)
        shape = self._functions[name].outputs[0]
        self._loaded[name] = Loaded(plan, shape, kernels, output, host, self._driver.event())

    def bind(self, name: str, get: Get) -> None:
        """Give a loaded function its weights' addresses."""
        plan, params = self._loaded[name].plan, self._functions[name].params
        weights = [get(*ref.split(":")) for ref in params]
        pieces, places = [], {}
        size = 0
        for i, table in enumerate(plan.experts):
            pieces.append(np.array([weights[w] for w in table], np.uint64))
            places["experts", i] = size
            size += pieces[-1].nbytes
        for i, values in enumerate(plan.ints):
            pieces.append(np.array(values, np.int32))
            places["ints", i] = size
            size += pieces[-1].nbytes
        tables = 0
        if size:
            tables = self._driver.alloc(size)
            packed = np.frombuffer(b"".join(p.tobytes() for p in pieces), np.uint8)
            self._driver.upload(tables, packed.ctypes.data, size, self.stream)
            self._driver.synchronize(self.stream)
        self._bindings += 1
        at = {key: tables + offset for key, offset in places.items()}
        self._bound[name] = Bound(plan, weights, tables, at, self._bindings)

    def kernel(self, name: str) -> int:
        """A kernel beside those of the plans, that needs no shared memory. Raises BackendError."""
        return self._driver.function(self._modules[self._loaded[PREFIX].plan.cubin], name, 0)

    def bound(self, name: str) -> bool:
        return name in self._bound

    def release(self, name: str) -> None:
        """Forget a function's weights, and the graphs that use them; its code stays."""
        gone = self._bound.pop(name)
        self._driver.synchronize(self.stream)
        self._forget(lambda key: (name, gone.number) in key[1])
        if gone.tables:
            self._driver.free(gone.tables)

    def run(self, tasks: Sequence[str], ready: int) -> tuple[dict[str, Floats], dict[str, float]]:
        """Raw maps of bound tasks for the image given last, and seconds by function, after the event `ready`.

        The maps lie in pinned memory that the next run writes over.
        """
        self._driver.wait(self.stream, ready)
        self.replay(tasks)
        return self.collect(tasks)

    def start(self) -> None:
        """Note the moment that the image begins its way to where the prefix reads it, for `arrival`."""
        self._driver.record(self._start, self.stream)

    def give(self, image: Floats | int) -> None:
        """Submit the image's way to where the prefix reads it: from a host array of the input's shape (best `input`
        itself), or from the device address of one.
        """
        self.start()
        if isinstance(image, int):
            self._driver.copy(self.image, image, self._pinned.nbytes, self.stream)
        else:
            if image is not self.input:
                np.copyto(self.input, image)
            self._driver.upload(self.image, self._pinned.ctypes.data, self._pinned.nbytes, self.stream)

    def given(self) -> None:
        """Note the moment that the image submitted last has been read, for `taken`."""
        self._driver.record(self._taken, self.stream)

    def taken(self) -> None:
        """Wait for it: until then the image's memory belongs to the frame."""
        self._driver.arrived(self._taken)

    def size(self, task: str) -> int:
        """Bytes of a task's raw map."""
        return self._loaded[task].plan.output

    def leave(self, places: Mapping[str, int], ready: int) -> None:
        """Submit a frame of tasks, for the image given last, whose maps go to these addresses and stay there."""
        self._driver.wait(self.stream, ready)
        self.replay(tuple(places), to_host=False)
        for task, address in places.items():  # beside the graph, which stays good whatever the addresses
            self._driver.copy(address, self._loaded[task].output, self.size(task), self.stream)

    def replay(self, tasks: Sequence[str], *, to_host: bool = True) -> None:
        """Submit one frame of these tasks, from the image given last to maps in pinned memory, or in the device's."""
        self._driver.replay(self.graph(tasks, to_host=to_host), self.stream)

    def graph(self, tasks: Sequence[str], *, to_host: bool = True) -> int:
        """The graph of a frame of these tasks; made if it is not there, which takes the host some milliseconds."""
        names = (PREFIX, *tasks)
        key = to_host, tuple((name, self._bound[name].number) for name in names)
        if key not in self._graphs:
            if len(self._graphs) >= KEPT_GRAPHS:
                self._forget(lambda other: other == next(iter(self._graphs)))
            self._graphs[key] = self._capture(names, to_host)
        return self._graphs[key]

    def fetch(self, task: str) -> Floats:
        """A copy of a task's raw map as the device has it; waits for the frame submitted last."""
        self._driver.synchronize(self.stream)
        out = np.empty(self._loaded[task].shape, np.float32)
        self._driver.fetch(out.ctypes.data, self._loaded[task].output, out.nbytes)
        return out

    def collect(self, tasks: Sequence[str]) -> tuple[dict[str, Floats], dict[str, float]]:
        """Wait for the frame submitted last; what `run` returns."""
        self._driver.synchronize(self.stream)
        maps, seconds, before = {}, {}, self._begin
        for name in (PREFIX, *tasks):
            loaded = self._loaded[name]
            if loaded.host is not None:
                maps[name] = loaded.host.view(np.float32).reshape(loaded.shape)
            seconds[name] = self._driver.milliseconds(before, loaded.end) / 1e3
            before = loaded.end
        return maps, seconds

    @property
    def arrival(self) -> float:
        """Seconds that the image of the frame collected last took to where the prefix reads it."""
        return self._driver.milliseconds(self._start, self._begin) / 1e3

    def close(self) -> None:
        """Give everything back to the driver."""
        self._driver.synchronize(self.stream)
        self._forget(lambda key: True)
        for name in list(self._bound):
            self.release(name)
        for loaded in self._loaded.values():
            self._driver.free(loaded.output)
            if loaded.host is not None:
                self._driver.free_pinned(loaded.host)
            self._driver.end_event(loaded.end)
        for address in filter(None, (self._scratch, self.image)):
            self._driver.free(address)
        self._driver.free_pinned(self._pinned)
        for module in self._modules.values():
            self._driver.unload(module)
        for event in (self._start, self._begin, self._taken):
            self._driver.end_event(event)
        self._driver.end_stream(self.stream)
        self._loaded.clear()

    def _capture(self, names: Sequence[str], to_host: bool) -> int:
        """The graph of one frame: the prefix, each task, and every result's way to the host, if it goes there."""
        with self._driver.capture(self.stream) as made:
            self._driver.record(self._begin, self.stream, captured=True)
            for name in names:
                self._submit(name)
                loaded = self._loaded[name]
                if to_host and loaded.host is not None:
                    self._driver.download(loaded.host.ctypes.data, loaded.output, loaded.plan.output, self.stream)
                self._driver.record(loaded.end, self.stream, captured=True)
        return made[0]

    def _submit(self, name: str) -> None:
        loaded, bound = self._loaded[name], self._bound[name]
        source = self.image if name == PREFIX else self._loaded[PREFIX].output
        for launch in loaded.plan.launches:
            args = [self._argument(kind, value, source, loaded.output, bound) for kind, value in launch.args]
            kernel = loaded.kernels[launch.kernel]
            self._driver.launch(kernel, launch.grid, launch.threads, launch.shared, self.stream, args)

    def _argument(self, kind: str, value: int | float, source: int, output: int, bound: Bound) -> Argument:
        match kind:
            case "int":
                return ctypes.c_int32(int(value))
            case "float":
                return ctypes.c_float(value)
            case "input":
                return ctypes.c_uint64(source + int(value))
            case "output":
                return ctypes.c_uint64(output + int(value))
            case "scratch":
                return ctypes.c_uint64(self._scratch + int(value))
            case "weight":
                return ctypes.c_uint64(bound.weights[int(value)])
            case "experts" | "ints":
                return ctypes.c_uint64(bound.places[kind, int(value)])
        raise BackendError(f"a launch plan has an argument of unknown kind {kind!r}")

    def _forget(self, which: Callable[[Key], bool]) -> None:
        gone = [key for key in self._graphs if which(key)]
        if gone:
            self._driver.synchronize(self.stream)  # a frame whose maps stay may still be running
        for key in gone:
            self._driver.end_graph(self._graphs.pop(key))
