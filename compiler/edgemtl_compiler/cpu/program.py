"""One graph as a program: a shared library of kernel calls, and of what TVM compiles, that runs without a compiler.

How a device runs such a library (edgemtl/runtime/backends/tvm_cpu.py does it, and `load_function` below):

1. Load libtvm_runtime.so once, its symbols global; nothing else of TVM is needed, tvm_ffi apart.
2. module = tvm_ffi.load_module(path); vm = module["vm_load_executable"](); vm["vm_initialization"](1, 0, 2), that is
   CPU 0 with a pooled allocator; run = vm["main"]. Keep `module` as long as anything that came from it.
3. module.imports_[0]["edgemtl_set_threads"](n), in the thread that runs and before it does; each library has its own
   threads, which sleep between frames. Results have the same bits for every n.
4. out = run(*inputs, *params): DLPack tensors, the weights in the manifest's order, one after the other. All begin on
   a boundary of 64 bytes; weights are read in place and never written. `out` is a tensor, or an array of them where the
   function has several outputs; it belongs to TVM's pool, so copy what must last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgemtl.bundle.layout import Array, Packed
from edgemtl.bundle.manifest import Function
from edgemtl.graph import Graph
from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu.targets import Target

BACKEND = "tvm-cpu"


@dataclass(frozen=True)
class Built:
    """A program's library, and what the manifest says of it."""

    path: Path
    function: Function


def build(graph: Graph, target: Target, out: Path, types: Mapping[str, str] | None = None) -> Built:
    """Build a graph for `target` as the library `out`.

    `types` names the NumPy type of the bundle's weights, by reference, where it is not float32. Raises CompileError,
    naming op and node, for what neither a kernel nor TVM can compute.
    """
    from edgemtl_compiler.cpu import tvm_adapter
    from edgemtl_compiler.cpu.emitter import Emitter

    emitter = Emitter(graph, types or {})
    params = emitter.finish()
    kernels = toolchain.kernels(target, tvm_adapter.include_paths())
    emitter.builder.build(target, kernels, toolchain.find_compiler(target), out)
    ends = {"inputs": tuple(emitter.inputs), "outputs": tuple(emitter.outputs)}
    return Built(out, Function(**ends, params=params, fallback=emitter.by_tvm))


class Runner:
    """A loaded library: call it with the inputs and the weights, in the manifest's order."""

    def __init__(self, path: Path) -> None:
        from edgemtl_compiler.cpu import tvm_adapter

        self._module = tvm_adapter.load_library(path)
        machine = self._module["vm_load_executable"]()
        machine["vm_initialization"](1, 0, 2)
        self._run = machine["main"]
        self._set_threads: Callable[[int], None] = self._module.imports_[0]["edgemtl_set_threads"]
        self._tensor = tvm_adapter.tensor
        self.threads = 1

    def __call__(self, arrays: Sequence[Packed]) -> list[Array]:
        self._set_threads(self.threads)
        given = self._run(*(self._tensor(_aligned(a)) for a in arrays))
        outs = [given] if hasattr(given, "__dlpack__") else given
        return [np.array(np.from_dlpack(out), np.float32) for out in outs]


def _aligned(array: Packed) -> Packed:
    """The array, or a copy of it, on a boundary of 64 bytes, where code that TVM compiled expects it."""
    if array.ctypes.data % 64 == 0:
        return array
    room = np.empty(array.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    out = room[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def load_function(path: Path) -> Runner:
    """The function that a built library holds."""
    return Runner(path)
