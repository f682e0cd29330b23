"""Contact with TVM: functions in Relax, building, loading. `ops` and `plain` use its operators, `relax`, besides.

TVM renames its interface with every release, so it accepts only the release that it was written for. Import it late:
importing TVM takes seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgemtl.errors import CompileError
from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu.targets import Target
from edgemtl_compiler.toolchain import failing

SUPPORTED = "0.27."
INSTALL = "pip install 'edgemtl[compile]'"


def versions() -> dict[str, str]:
    """What programs are built with. Raises CompileError when TVM is missing or of another release."""
    try:
        found = {name: version(name) for name in ("apache-tvm", "apache-tvm-ffi")}
    except PackageNotFoundError as e:
        raise CompileError(f"{e.name} is not installed; compiling needs it: {INSTALL}") from e
    if not found["apache-tvm"].startswith(SUPPORTED):
        raise CompileError(
            f"apache-tvm {found['apache-tvm']} is not {SUPPORTED}x, which this compiler needs: {INSTALL}"
        )
    return found


versions()
import tvm  # noqa: E402
import tvm_ffi  # noqa: E402
from tvm import relax as relax  # noqa: E402


def include_paths() -> tuple[str, ...]:
    """Folders of the headers that the kernels include."""
    paths = (tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path())
    return tuple(dict.fromkeys(str(path) for path in paths))


def load_library(path: Path) -> Any:
    """A shared library's functions, by subscript."""
    return tvm_ffi.load_module(str(path), keep_module_alive=False)


def tensor(array: Any) -> Any:
    """A tensor over the array's memory. It must be writable (DLPack knows no other), though kernels never write."""
    return tvm_ffi.from_dlpack(array)


def tensor_type(shape: Iterable[int], dtype: str = "float32") -> Any:
    return relax.TensorType([int(n) for n in shape], dtype)


class Builder:
    """A Relax function on its way: its `inputs`, kernel calls, and operators that TVM compiles."""

    def __init__(self, inputs: Sequence[Sequence[int]]) -> None:
        self.inputs = [relax.Var(f"input{i}", tensor_type(shape)) for i, shape in enumerate(inputs)]
        self._builder = relax.BlockBuilder()
        self._open = contextlib.ExitStack()
        self._open.enter_context(self._builder.function("main"))
        self._block = self._open.enter_context(contextlib.ExitStack())
        self._block.enter_context(self._builder.dataflow())

    def emit(self, expr: Any) -> Any:
        with failing("TVM refuses an operator"):
            return self._builder.emit(expr)

    def reshape(self, value: Any, shape: Sequence[int]) -> Any:
        """The same bytes under another shape."""
        same = tuple(int(n) for n in value.ty.shape) == tuple(shape)
        return value if same else self.emit(relax.op.reshape(value, shape))

    def reorder(self, value: Any, split: Sequence[int], axes: Sequence[int], shape: Sequence[int]) -> Any:
        """Seen as `split`, its axes in another order, then as `shape`."""
        moved = self.emit(relax.op.permute_dims(self.reshape(value, split), list(axes)))
        return self.reshape(moved, shape)

    def parts(self, value: Any) -> tuple[Any, ...]:
        """What a kernel with several outputs gave."""
        return tuple(self.emit(relax.TupleGetItem(value, i)) for i in range(len(value.ty.fields)))

    def parameter(self, ref: str, length: int, dtype: str) -> Any:
        return relax.Var(ref.replace(":", "_").replace(".", "_"), tensor_type([length], dtype))

    def call(self, kernel: str, args: Iterable[Any], outs: Sequence[tuple[Sequence[int], str]]) -> Any:
        """A kernel's output, or outputs, of these shapes and types."""
        types = [tensor_type(*out) for out in outs]
        out = types if len(types) > 1 else types[0]
        return self.emit(relax.op.call_dps_packed(f"edgemtl_{kernel}", tuple(map(_argument, args)), out_ty=out))

    def finish(self, outputs: Sequence[Any], params: Sequence[Any]) -> None:
        ends = [self._builder.emit_output(value) for value in outputs]
        self._block.close()
        self._builder.emit_func_output(ends[0] if len(ends) == 1 else ends, [*self.inputs, *params])
        self._open.close()

    def build(self, target: Target, kernels: Path, compiler: str, out: Path) -> None:
        """Build the finished function and link it with the kernels to `out`."""
        library = tvm.runtime.load_static_library(str(kernels), list(toolchain.kernel_names()))
        module = self._builder.get().with_attr("external_mods", [library])
        with failing("TVM cannot build the program"):
            built = tvm.compile(module, tvm.target.Target(target.llvm))
            built.export_library(str(out), cc=compiler, options=["-pthread", "-Wl,-s", "-Wl,--gc-sections"])


def _argument(value: Any) -> Any:
    if isinstance(value, tuple):
        return relax.ShapeExpr(list(value))
    return relax.prim_value(value) if isinstance(value, int | float) else value
