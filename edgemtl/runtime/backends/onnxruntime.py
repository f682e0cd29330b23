"""ONNX Runtime on the CPU: one self-contained model per task, experts kept sparse, but each with its own trunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran, no_program, programs_of


class OnnxRuntime(Backend):
    name = "onnxruntime"
    packages = ("onnxruntime",)
    extra = "onnx"
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "NonZero, Gather and Scatter around each expert of the path"),
        "shared prefix": Cell("cannot", "each task is a whole model, its trunk included"),
        "mapped weights": Cell("cannot", "every session has its own copy of its weights"),
        "residency": Cell("cannot", "its copies are ONNX Runtime's; not measured from a mapping"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        import onnxruntime

        assert choice.program is not None
        self._ort: Any = onnxruntime
        self._bundle, self._program, self._threads = bundle, choice.program, threads
        self._sessions: dict[str, Any] = {}

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        for program in programs_of(cls, bundle):
            return Choice(program, f"its program {program.target} runs on any CPU")
        raise no_program(cls.name, bundle)

    def bind(self, task: str, get: Get) -> None:
        if task not in self._program.members:
            raise BackendError(f"the bundle's onnxruntime program has no function for {task!r}")
        options = self._ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        options.log_severity_level = 3  # errors only; they are raised as well
        model = self._bundle.read(self._program.members[task])
        try:
            session = self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise BackendError(f"onnxruntime cannot load the model of {task!r}: {_first(e)}") from None
        self._check(task, session)
        self._sessions[task] = session

    def _check(self, task: str, session: Any) -> None:
        """Raises BackendError unless the model has the interface that the manifest gives it."""
        function = self._program.functions[task]
        for what, ports, shapes in (
            ("input", session.get_inputs(), function.inputs),
            ("output", session.get_outputs(), function.outputs),
        ):
            found = [(p.type, tuple(p.shape)) for p in ports]
            if found != [("tensor(float)", shape) for shape in shapes]:
                given = ", ".join(f"{kind} {list(shape)}" for kind, shape in found)
                raise BackendError(
                    f"the bundle's ONNX model of {task!r} has the {what} {given}; its manifest says float"
                    f" {', '.join(str(list(s)) for s in shapes)}: compile the bundle again"
                )

    def release(self, task: str) -> None:
        self._sessions.pop(task, None)

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        maps, seconds = {}, {}
        for task in tasks:
            session = self._sessions[task]
            start = time.perf_counter()
            try:
                (out,) = session.run(None, {session.get_inputs()[0].name: image})
            except Exception as e:  # onnxruntime's errors have no common class
                raise BackendError(f"onnxruntime cannot run the model of {task!r}: {_first(e)}") from None
            seconds[task] = time.perf_counter() - start
            maps[task] = np.ascontiguousarray(out[0], np.float32)
        return Ran(maps, seconds)

    def close(self) -> None:
        self._sessions.clear()


def _first(error: Exception) -> str:
    """Its first line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
