"""Kernels built for every instruction set that this machine runs or can emulate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("tvm")

import emulated
from emulated import Emulated
from kernel_library import ALL, Kernels

from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu import targets, tvm_adapter
from edgemtl_compiler.cpu.targets import Target

STRICT = ("-c", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-psabi")
FOREIGN = {t.name: t for t in emulated.TARGETS if not targets.runs_here(t)}


@pytest.fixture(scope="session")
def _building(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Path]]:
    """All libraries at once, from the objects that programs are linked with; a test waits only for its own."""
    folder, include = tmp_path_factory.mktemp("kernels"), tvm_adapter.include_paths()
    pool = ThreadPoolExecutor(2)

    def make(target: Target) -> Path:
        if target.name in targets.TARGETS:
            compiled = toolchain.kernels(target, include)
        else:
            compiled = toolchain.compile_kernels(target, include, folder / f"{target.name}.o", STRICT)
        out = folder / f"{target.name}.so"
        compiler = toolchain.find_compiler(target)
        toolchain.run([compiler, "-shared", "-pthread", "-o", str(out), str(compiled)], "linking")
        if target.name in FOREIGN:
            emulated.build_host(target, include, out.with_suffix(".host"))
        return out

    wanted = [*ALL, *(t for t in FOREIGN.values() if not emulated.missing(t))]
    started = {target.name: pool.submit(make, target) for target in wanted}
    pool.shutdown(wait=False)
    return started


@pytest.fixture(scope="session")
def libraries(_building: dict[str, Future[Path]]) -> Iterator[Callable[[str], Kernels | Emulated]]:
    loaded: dict[str, Kernels | Emulated] = {}

    def get(name: str) -> Kernels | Emulated:
        if name not in loaded:
            path = _building[name].result()
            foreign = FOREIGN.get(name)
            loaded[name] = Emulated(path, path.with_suffix(".host"), foreign) if foreign else Kernels(path)
        return loaded[name]

    yield get
    for kernels in loaded.values():
        if isinstance(kernels, Emulated):
            kernels.close()


def _emulated(target: Target) -> object:
    reason = emulated.missing(target)
    return pytest.param(target.name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))


@pytest.fixture(params=[*(t.name for t in ALL), *map(_emulated, FOREIGN.values())])
def kernels(request: pytest.FixtureRequest, libraries: Callable[[str], Kernels | Emulated]) -> Kernels | Emulated:
    """The kernels of one instruction set; the test runs once for each."""
    return libraries(request.param)
