"""Targets by name, by machine and by precision; compilers for them; clear words where something is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgemtl.errors import CompileError
from edgemtl_compiler import toolchain
from edgemtl_compiler.cpu import targets
from edgemtl_compiler.cpu.targets import A53, A76, AVX2, AVX2VNNI, AVX512, AVX512VNNI, Target

X86 = (AVX512VNNI, AVX512, AVX2VNNI, AVX2)


def pretend(monkeypatch: pytest.MonkeyPatch, machine: str, features: tuple[str, ...], core: str = "") -> None:
    monkeypatch.setattr(targets.platform, "machine", lambda: machine)
    monkeypatch.setattr(targets.cpu, "features", lambda: frozenset(features))
    monkeypatch.setattr(targets.cpu, "core", lambda: core)


@pytest.mark.parametrize(
    ("features", "f32", "int8"),
    [
        (AVX512VNNI.needs, AVX512, AVX512VNNI),
        (AVX512.needs, AVX512, AVX512),
        (AVX2VNNI.needs, AVX2, AVX2VNNI),
        ((*AVX512.needs, "avx_vnni"), AVX512, AVX512),
        (AVX2.needs, AVX2, AVX2),
    ],
)
def test_cpu_means_the_best_of_use_for_the_precision(
    monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...], f32: Target, int8: Target
) -> None:
    pretend(monkeypatch, "x86_64", features)
    assert targets.resolve("cpu") is f32
    assert targets.resolve("cpu", "f16") is f32
    assert targets.resolve("cpu", "int8") is int8


def test_cpu_on_arm_prefers_this_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, core, want in ((("asimd",), "a53", A53), (("asimd",), "", targets.A72), (A76.needs, "a53", A76)):
        pretend(monkeypatch, "aarch64", features, core)
        assert targets.resolve("cpu") is want


def test_a_machine_stands_for_all_its_targets() -> None:
    assert targets.resolve_all("x86_64") == (AVX512, AVX2)
    assert targets.resolve_all("x86_64", "int8") == X86
    assert targets.resolve_all("aarch64", "int8") == (A76, targets.A72, A53)
    with pytest.raises(CompileError, match="x86_64 stands for 2 targets: x86_64-avx512, x86_64-avx2; choose one"):
        targets.resolve("x86_64")


def test_wrong_names_are_met_with_the_right_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    known = "choose cpu, onnx, x86_64, aarch64 (all of a machine) or one of x86_64-avx512, x86_64-avx2, aarch64-a76"
    with pytest.raises(CompileError, match=re.escape(f"no target 'aarch64-a35' (did you mean aarch64-a53?); {known}")):
        targets.resolve("aarch64-a35")
    with pytest.raises(CompileError, match="target x86_64-avx512vnni is for int8, not f32; choose cpu"):
        targets.resolve("x86_64-avx512vnni")
    assert targets.resolve("x86_64-avx512vnni", "int8") is AVX512VNNI
    pretend(monkeypatch, "x86_64", ())
    with pytest.raises(CompileError, match="no CPU target runs on this x86_64 machine"):
        targets.resolve("cpu")


@pytest.mark.parametrize("target", targets.TARGETS.values(), ids=lambda t: t.name)
def test_flags_and_needs_say_the_same(target: Target) -> None:
    """The compiler's own macros, against the features that a device is asked for: no more and no less."""
    try:
        compiler = toolchain.find_compiler(target)
    except CompileError as e:
        pytest.skip(str(e))
    command = [compiler, *target.cxx_flags, "-dM", "-E", "-x", "c++", "/dev/null"]
    macros = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    macro = {
        "avx2": "__AVX2__", "fma": "__FMA__", "f16c": "__F16C__", "avx512f": "__AVX512F__",
        "avx512dq": "__AVX512DQ__", "avx512bw": "__AVX512BW__", "avx512vl": "__AVX512VL__",
        "avx512_vnni": "__AVX512VNNI__", "avx_vnni": "__AVXVNNI__", "asimd": "__ARM_NEON",
        "asimddp": "__ARM_FEATURE_DOTPROD", "asimdhp": "__ARM_FEATURE_FP16_VECTOR_ARITHMETIC",
        "atomics": "__ARM_FEATURE_ATOMICS", "crc32": "__ARM_FEATURE_CRC32", "asimdrdm": "__ARM_FEATURE_QRDMX",
    }  # fmt: skip
    assert set(target.needs) == {f for f, name in macro.items() if name in macros}
    surprises = {"__AVX512CD__", "__AVX512VBMI__", "__AVX512BF16__", "__ARM_FEATURE_SVE", "__ARM_FEATURE_MATMUL_INT8"}
    assert not surprises & macros


def test_a_missing_cross_compiler_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX_AARCH64", raising=False)
    with pytest.raises(CompileError) as error:
        toolchain.find_compiler(A53)
    assert str(error.value) == (
        "no C++ compiler for aarch64-a53 was found; install one with: apt-get install g++-aarch64-linux-gnu"
    )
    monkeypatch.setenv("CXX_AARCH64", "clang++-99")
    with pytest.raises(CompileError, match=re.escape("was found ($CXX_AARCH64 is clang++-99, which is not a program)")):
        toolchain.find_compiler(A53)


def test_the_compiler_is_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    for variable in ("CXX", "CXX_AARCH64", "CXX_X86_64"):
        monkeypatch.delenv(variable, raising=False)
    for machine, x86, arm in (
        ("x86_64", "g++", "aarch64-linux-gnu-g++"),
        ("aarch64", "x86_64-linux-gnu-g++", "g++"),
    ):
        monkeypatch.setattr(toolchain.platform, "machine", lambda machine=machine: machine)
        assert [toolchain.find_compiler(t) for t in (AVX2, A53)] == [f"/bin/{x86}", f"/bin/{arm}"]
    monkeypatch.setenv("CXX_X86_64", "mine")
    assert toolchain.find_compiler(AVX2) == "/bin/mine"
