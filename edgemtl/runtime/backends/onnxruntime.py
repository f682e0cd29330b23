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
            self._sessions[task] = self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors have no common class
            raise BackendError(f"onnxruntime cannot load the model of {task!r}: {str(e).splitlines()[0]}") from None

    def release(self, task: str) -> None:
        del self._sessions[task]

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        maps, seconds = {}, {}
        for task in tasks:
            session = self._sessions[task]
            start = time.perf_counter()
            (out,) = session.run(None, {session.get_inputs()[0].name: image})
            seconds[task] = time.perf_counter() - start
            maps[task] = np.ascontiguousarray(out[0], np.float32)
        return Ran(maps, seconds)

    def close(self) -> None:
        self._sessions.clear()
