"""A program is chosen by what the CPU has, and never started without it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgemtl.bundle.manifest import Program
from edgemtl.runtime import cpu

HERE = platform.machine()


@pytest.fixture
def avx512f(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"avx2", "fma", "avx512f"}))
    monkeypatch.setattr(cpu, "core", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def program(target: str, *needs: str, machine: str = "x86_64") -> Program:
    return Program(backend="tvm-cpu", target=target, machine=machine, needs=needs, functions={}, members={})


PLAIN, AVX2 = program("any"), program("avx2", "avx2", "fma")
AMX, ARM = program("amx", "avx2", "amx_int8"), program("neon", "asimd", machine="aarch64")


@pytest.mark.usefixtures("avx512f")
def test_obstacles() -> None:
    assert cpu.obstacle(AVX2) is None
    assert cpu.obstacle(program("x", machine="")) is None
    assert cpu.obstacle(AMX) == "amx needs amx_int8, which this CPU lacks"
    assert cpu.obstacle(ARM) == "neon is for aarch64, this is x86_64"


@pytest.mark.usefixtures("avx512f")
def test_the_best_and_why() -> None:
    chosen, why = cpu.best([PLAIN, AMX, AVX2, ARM])
    assert chosen == AVX2
    assert why == "avx2, because it uses avx2, fma (not amx needs amx_int8, which this CPU lacks)"
    assert cpu.best([ARM]) == (None, "neon is for aarch64, this is x86_64")
    assert cpu.best([PLAIN]) == (PLAIN, "any, because it runs on any CPU of its kind")
    assert cpu.best([AMX]) == (None, "amx needs amx_int8, which this CPU lacks")
    assert cpu.best([AVX2, program("other", "avx2", "fma")])[0] == AVX2


def test_of_equals_the_one_tuned_for_this_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    a53, a72 = (program(f"aarch64-{core}", "asimd", machine="aarch64") for core in ("a53", "a72"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(cpu, "features", lambda: frozenset({"asimd"}))
    for part, want in (("0xd08", a72), ("0xd03", a53), ("0xfff", a53)):
        monkeypatch.setattr(cpu, "CPUINFO", str(tmp_path / part))
        Path(cpu.CPUINFO).write_text(f"processor : 0\nCPU implementer : 0x41\nCPU part\t: {part}\n")
        chosen, why = cpu.best([a53, a72])
        assert chosen == want
        assert ("tuned for this core, a72" in why) == (want is a72)


def test_this_machines_features() -> None:
    found, text = cpu.features.__wrapped__(), Path("/proc/cpuinfo").read_text()
    assert found
    known, has = cpu.asked_features() or (frozenset(), frozenset())
    assert all(f in text or f in has for f in found)
    if "flags" in text and known:  # on real hardware the two sources agree in all that both can tell
        assert cpu.listed_features() & known == has & cpu.listed_features()


CASES = [  # what the list says, what the CPU says of what it can be asked for, what counts
    ("avx2 fma", ({"avx2", "fma"}, {"avx2", "fma"}), {"avx2", "fma"}),
    ("avx2 fma popcnt", ({"avx2", "fma"}, {"fma"}), {"fma", "popcnt"}),  # an emulator that shows the host's list
    ("fma", ({"avx2", "fma"}, {"avx2", "fma"}), {"fma"}),  # the kernel has taken it away
    ("avx2", None, {"avx2"}),  # an old C library
    (None, ({"avx2", "fma"}, {"fma"}), {"fma"}),  # no /proc
    (None, None, set()),
    ("avx2 fma", ({"asimd", "asimddp"}, {"asimd"}), {"asimd"}),  # aarch64 emulated on x86
]


@pytest.mark.parametrize(("listed", "asked", "want"), CASES)
def test_features_must_be_agreed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str | None, asked: object, want: set[str]
) -> None:
    monkeypatch.setattr(cpu, "CPUINFO", str(tmp_path / "cpuinfo"))
    if listed is not None:
        Path(cpu.CPUINFO).write_text(f"processor : 0\nflags\t\t: {listed} vme\n\nflags\t\t: {listed}\n")
    monkeypatch.setattr(cpu, "asked_features", lambda: asked)
    assert cpu.features.__wrapped__() == want


@pytest.mark.skipif(HERE != "x86_64", reason="needs an x86_64 host")
@pytest.mark.skipif(
    not shutil.which("qemu-x86_64-static"), reason="needs qemu-x86_64: apt-get install qemu-user-static"
)
def test_an_older_cpu_refuses_before_any_illegal_instruction() -> None:
    """Under qemu-user /proc/cpuinfo is the host's; a Nehalem knows no AVX at all, a Haswell no AVX-512."""
    if cpu.asked_features() is None:
        pytest.skip("this C library does not tell CPU features: glibc 2.33 or newer is needed")
    code = (
        "from edgemtl.bundle.manifest import Program\n"
        "from edgemtl.runtime import cpu\n"
        "held = [Program(backend='tvm-cpu', target='-'.join(n), machine='x86_64', needs=n, functions={}, members={})\n"
        "        for n in (('avx2', 'fma'), ('avx2', 'avx512f'))]\n"
        "print('avx2' in cpu.listed_features(), *cpu.best(held), sep='|')"
    )
    said = {}
    for model in ("Nehalem", "Haswell"):
        command = ["qemu-x86_64-static", "-cpu", model, sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        said[model] = done.stdout.strip().split("|")
    assert said["Nehalem"][1:] == [
        "None",
        "avx2-fma needs avx2, fma, which this CPU lacks; avx2-avx512f needs avx2, avx512f, which this CPU lacks",
    ]
    assert "target='avx2-fma'" in said["Haswell"][1]
    assert said["Haswell"][2].startswith("avx2-fma, because it uses avx2, fma (not avx2-avx512f needs avx512f")


@pytest.mark.parametrize(
    ("own", "files", "most"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # version 2, in a container
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": "100000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "junk\n"}, 8),
        (
            "4:cpu,cpuacct:/docker/x\n3:memory:/\n",
            {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {}, 8),
    ],
)
def test_a_containers_quota_counts(
    own: str, files: dict[str, str], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    assert cpu.count(tmp_path / "fs", tmp_path / "own") == most
    assert cpu.count(tmp_path / "fs", tmp_path / "missing") == 8
