"""One function of a model as a program: exported graph → kernel calls → a shared library that runs without a compiler.

How a device runs such a library (edgemtl/runtime/backends/tvm_cpu.py does it, and `load_function` below):

1. Load libtvm_runtime.so once, its symbols global; nothing else of TVM is needed, tvm_ffi apart.
2. module = tvm_ffi.load_module(path); vm = module["vm_load_executable"](); vm["vm_initialization"](1, 0, 2), that is
   CPU 0 with a pooled allocator; run = vm["main"]. Keep `module` as long as anything that came from it.
3. module.imports_[0]["edgemtl_set_threads"](n), in the thread that runs and before it does; each library has its own
   threads, which sleep between frames. Results have the same bits for every n.
4. out = run(input, *params): DLPack tensors, the weights in the manifest's order, one after the other. Weights are
   read in place and never written; `out` belongs to TVM's pool, so copy what must last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemtl.bundle.layout import Array, Entry, Packed, entries
from edgemtl.bundle.manifest import Function
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu import patterns
from edgemtl_compiler.cpu.targets import Target

if TYPE_CHECKING:
    from edgemtl_compiler.cpu import tvm_adapter
    from edgemtl_compiler.export import Exported

BACKEND = "tvm-cpu"


@dataclass(frozen=True)
class Built:
    """A program's library, and what the manifest says of it."""

    path: Path
    function: Function


def build_function(
    exported: Exported, config: ModelConfig, target: Target, out: Path, types: Mapping[str, str] | None = None
) -> Built:
    """Build one exported function of the model `config` for `target` as the library `out`.

    `types` names the NumPy type of the bundle's weights, by reference, where it is not float32.

    Raises CompileError, with what was found and what was expected, unless every layer of the function became a kernel
    call and every weight it needs, each expert of the task's path included, became a parameter.
    """
    from edgemtl_compiler.cpu import tvm_adapter

    stored = stored_weights(config, types or {})
    int8 = {ref for ref, (_, dtype) in stored.items() if dtype == "uint8"}
    expected = patterns.expected_matches(config, exported.name, int8)
    graph, params = rewritten(exported, config, patterns.RULES, expected, stored)
    kernels = toolchain.kernels(target, tvm_adapter.include_paths())
    graph.build(params, target, kernels, toolchain.find_compiler(target), out)
    return Built(out, Function(inputs=(exported.input,), outputs=(exported.output,), params=params))


def stored_weights(config: ModelConfig, types: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Length and NumPy type of every packed tensor, by reference; float32 where `types` names no other."""
    held = {entry.ref: (entry, types.get(entry.ref, "float32")) for entry in entries(config)}
    return {ref: (entry.length(dtype), dtype) for ref, (entry, dtype) in held.items()}


def rewritten(
    exported: Exported,
    config: ModelConfig,
    rules: Sequence[patterns.Rule],
    expected: dict[str, int],
    stored: Mapping[str, tuple[int, str]],
) -> tuple[tvm_adapter.Graph, tuple[str, ...]]:
    """The function as kernel calls only, and references of the weights it takes. Raises CompileError unless each rule
    matched as often as `expected` and nothing is left over.
    """
    from edgemtl_compiler.cpu import tvm_adapter

    index: dict[tuple[str, ...], Entry] = {}
    for entry in entries(config):
        index.setdefault(tuple(key for key, _ in entry.sources), entry)
    graph = tvm_adapter.Graph(exported.program, exported.keys, index, stored)
    found = {rule.name: graph.rewrite(rule, config, exported.name) for rule in rules}
    params = patterns.expected_params(config, exported.name)
    _check(exported.name, found, expected, set(graph.weights), params)
    raw, ops = graph.leftovers()
    if raw or ops:
        raise CompileError(
            f"the export of {exported.name!r} has parts that no kernel covers: {', '.join([*raw, *ops][:5])}"
        )
    return graph, params


def _check(name: str, found: dict[str, int], wanted: dict[str, int], weights: set[str], params: Sequence[str]) -> None:
    """Refuse an export that is not wholly what the model's configuration says it must be."""
    wrong = [f"{n} x {rule} instead of {wanted.get(rule, 0)}" for rule, n in found.items() if n != wanted.get(rule, 0)]
    if wrong:
        raise CompileError(
            f"the export of {name!r} is not the model that its configuration describes: it has {', '.join(wrong)}"
        )
    for what, refs in (("lacks", sorted(set(params) - weights)), ("uses besides", sorted(weights - set(params)))):
        if refs:
            raise CompileError(
                f"the export of {name!r} {what} {len(refs)} of {len(params)} weights: {', '.join(refs[:5])}"
            )


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
        given = self._run(*(self._tensor(a) for a in arrays))
        outs = [given] if hasattr(given, "__dlpack__") else given
        return [np.array(np.from_dlpack(out), np.float32) for out in outs]


def load_function(path: Path) -> Runner:
    """The function that a built library holds."""
    return Runner(path)
