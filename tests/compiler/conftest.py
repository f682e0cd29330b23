"""Kernels built for every instruction set that this machine runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("tvm")

from kernel_library import ALL, Kernels

from edgemtl_compiler import targets, toolchain, tvm_adapter
from edgemtl_compiler.targets import Target

STRICT = ("-c", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-psabi")


@pytest.fixture(scope="session")
def _building(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Path]]:
    """All libraries at once, from the objects that programs are linked with; a test waits only for its own."""
    folder, include = tmp_path_factory.mktemp("kernels"), tvm_adapter.include_paths()
    pool = ThreadPoolExecutor(len(ALL))

    def make(target: Target) -> Path:
        if target.name in targets.TARGETS:
            compiled = toolchain.kernels(target, include)
        else:
            compiled = toolchain.compile_kernels(target, include, folder / f"{target.name}.o", STRICT)
        out = folder / f"{target.name}.so"
        toolchain.run([toolchain.find_compiler(), "-shared", "-pthread", "-o", str(out), str(compiled)], "linking")
        return out

    started = {target.name: pool.submit(make, target) for target in ALL}
    pool.shutdown(wait=False)
    return started


@pytest.fixture(scope="session")
def libraries(_building: dict[str, Future[Path]]) -> Callable[[str], Kernels]:
    loaded: dict[str, Kernels] = {}

    def get(name: str) -> Kernels:
        if name not in loaded:
            loaded[name] = Kernels(_building[name].result())
        return loaded[name]

    return get


@pytest.fixture(params=[t.name for t in ALL])
def kernels(request: pytest.FixtureRequest, libraries: Callable[[str], Kernels]) -> Kernels:
    """The kernels of one instruction set; the test runs once for each."""
    return libraries(request.param)
