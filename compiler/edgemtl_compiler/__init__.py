"""From a model's graph to programs: TVM, packed kernels, ONNX, and the bundle they go into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemtl_compiler.bundle import compile_bundle
    from edgemtl_compiler.cpu.program import load_function

__all__ = ["compile_bundle", "load_function"]


def __getattr__(name: str) -> Any:
    if name == "compile_bundle":
        from edgemtl_compiler.bundle import compile_bundle

        return compile_bundle
    if name == "load_function":
        from edgemtl_compiler.cpu.program import load_function

        return load_function
    raise AttributeError(f"module 'edgemtl_compiler' has no attribute {name!r}")
