"""A program is chosen by what the CPU has, and never started without it."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgemtl.bundle.manifest import Program
from edgemtl.runtime import cpu


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "fma", "avx512f"}))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def program(target: str, *needs: str, machine: str = "x86_64") -> Program:
    return Program(backend="tvm-cpu", target=target, machine=machine, needs=needs, functions={}, members={})


PLAIN, AVX2 = program("any"), program("avx2", "avx2", "fma")
AMX, ARM = program("amx", "avx2", "amx_int8"), program("neon", "asimd", machine="aarch64")


def test_obstacles() -> None:
    assert cpu.obstacle(AVX2) is None
    assert cpu.obstacle(program("x", machine="")) is None
    assert cpu.obstacle(AMX) == "amx needs amx_int8, which this CPU lacks"
    assert cpu.obstacle(ARM) == "neon is for aarch64, this is x86_64"


def test_the_best_and_why() -> None:
    chosen, why = cpu.best([PLAIN, AMX, AVX2, ARM])
    assert chosen == AVX2
    assert why == (
        "avx2, because it uses avx2, fma"
        " (not amx needs amx_int8, which this CPU lacks; neon is for aarch64, this is x86_64)"
    )
    assert cpu.best([PLAIN]) == (PLAIN, "any, because it runs on any CPU of its kind")
    assert cpu.best([AMX]) == (None, "amx needs amx_int8, which this CPU lacks")
    assert cpu.best([AVX2, program("other", "avx2", "fma")])[0] == AVX2


def test_this_machines_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    text = Path("/proc/cpuinfo").read_text()
    found = cpu.features()
    assert found
    assert all(f in text for f in found)


def test_no_cpuinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def refused(*_: object) -> None:
        raise FileNotFoundError(2, "none")

    monkeypatch.setattr("builtins.open", refused)
    found = cpu.features.__wrapped__()
    monkeypatch.undo()
    assert found == frozenset()
