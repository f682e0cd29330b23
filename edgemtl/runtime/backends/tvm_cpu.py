"""Programs that edgemtl's compiler built with TVM: native code, and weights read straight from the mapping.

A bundle's program has one shared library per function: "prefix" turns the image into tokens, and with a stem
into its features; a task's function turns those into its raw map. All weights are arguments, passed without copying
in the order of `Function.params`. A library is loaded when its task is first bound and stays loaded; weights come and
go with `bind` and `release`.

The library is native code out of the bundle. Its hash has been checked, which proves that it is whole, not that its
maker means well: load only bundles you trust.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime import cpu, tvm_light
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran, Tap, no_program, programs_of

PREFIX = "prefix"
_CPU, _POOLED = 1, 2  # TVM's numbers of the device kind and of the kind of allocator


class TvmCpu(Backend):
    name = "tvm-cpu"
    extra = "cpu"
    maps = True
    forks = True
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "each expert runs over the tokens that chose it"),
        "shared prefix": Cell("yes", "one function up to the first gate, run once for all active tasks"),
        "mapped weights": Cell("yes", "read in place from the bundle's file"),
        "residency": Cell("yes", "measured from the mappings (smaps)"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        assert choice.program is not None
        self._bundle, self._program, self._threads = bundle, choice.program, threads
        self._ffi = tvm_light.ffi()
        self._functions: dict[str, Any] = {}
        self._set_threads: dict[str, Any] = {}
        self._libraries: dict[str, Any] = {}  # last: a library must outlive its functions, here and in `close`
        self._weights: dict[str, list[Any]] = {}
        self._bound: set[str] = set()

    @classmethod
    def unusable(cls) -> str | None:
        return tvm_light.unusable()

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        programs = programs_of(cls, bundle)
        if not programs:
            raise no_program(cls.name, bundle)
        program, why = cpu.best(programs)
        if program is None:
            raise BackendError(f"none of the bundle's programs for {cls.name} can run here: {why}")
        return Choice(program, why)

    def bind(self, task: str, get: Get) -> None:
        names = (PREFIX, task)
        for name in names:
            if name not in self._program.functions:
                raise BackendError(f"the bundle's program {self._program.target} has no function {name!r}")
        for name in names:
            if name not in self._functions:
                self._load(name)
            if name not in self._weights:
                self._weights[name] = [self._view(get(*ref.split(":"))) for ref in self._program.functions[name].params]
        self._bound.add(task)

    def release(self, task: str) -> None:
        self._bound.discard(task)
        self._weights.pop(task, None)
        if not self._bound:
            self._weights.pop(PREFIX, None)

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        maps, seconds = {}, {}
        start = time.perf_counter()
        shared = self._call(PREFIX, self._view(image))
        seconds[PREFIX] = time.perf_counter() - start
        for task in tasks:
            start = time.perf_counter()
            maps[task] = np.from_dlpack(self._call(task, *shared)[0])[0]
            seconds[task] = time.perf_counter() - start
        return Ran(maps, seconds)

    @property
    def tap(self) -> Callable[[str], Tap | None]:
        return self._tap

    def _tap(self, task: str) -> Tap | None:
        try:
            function = self._libraries[task].imports_[0]["edgemtl_tap_routing"]
        except AttributeError:  # of a bundle compiled before there was one
            return None
        return lambda room: function(self._ffi.from_dlpack(room))

    def profile(self, on: bool) -> None:
        """Make every loaded program forget its recorded kernel calls, and record the next ones or not."""
        for library in self._libraries.values():
            library.imports_[0]["edgemtl_profile"](int(on))

    def calls(self) -> dict[str, str]:
        """{function: its recorded kernel calls}, a line each: kernel, multiply-accumulates, bytes of weights, ns."""
        return {name: str(lib.imports_[0]["edgemtl_profile_read"]()) for name, lib in self._libraries.items()}

    def close(self) -> None:
        self._weights.clear()
        self._functions.clear()
        self._set_threads.clear()
        self._libraries.clear()

    def _load(self, name: str) -> None:
        library = tvm_light.load_library(self._bundle.read(self._program.members[name]), name)
        try:
            machine = library["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED)
            function, set_threads = machine["main"], library.imports_[0]["edgemtl_set_threads"]
        except Exception as e:
            raise BackendError(f"the program of {name!r} cannot be started: {tvm_light.first_line(e)}") from None
        self._libraries[name], self._functions[name], self._set_threads[name] = library, function, set_threads

    def _call(self, name: str, *values: Any) -> Sequence[Any]:
        """The function's outputs."""
        try:
            self._set_threads[name](self._threads)  # holds for this library and the calling thread
            out = self._functions[name](*values, *self._weights[name])
            return (out,) if len(self._program.functions[name].outputs) == 1 else out
        except Exception as e:
            raise BackendError(f"the program of {name!r} failed: {tvm_light.first_line(e)}") from None

    def _view(self, array: Array) -> Any:
        """A tensor over the array's memory; 64-byte alignment is what compiled vector loads need."""
        return self._ffi.from_dlpack(array, require_alignment=64, require_contiguous=True)
