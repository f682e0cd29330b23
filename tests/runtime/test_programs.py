"""A bundle with several programs: which one the engine takes, why, and how to ask for another."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgemtl
from edgemtl.errors import BackendError
from edgemtl.runtime import cpu, tvm_light

pytestmark = pytest.mark.skipif(tvm_light.unusable() is not None, reason=str(tvm_light.unusable()))


@pytest.fixture
def three(plain: Path, rezip: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs for a plain, a better and an impossible CPU of this machine, and one for another machine."""
    with zipfile.ZipFile(plain) as z:
        inside = {n: z.read(n) for n in z.namelist()}
    manifest, io = json.loads(inside["manifest.json"]), {"inputs": [[1]], "outputs": [[1]]}
    manifest["programs"] = [
        {
            "backend": "tvm-cpu",
            "target": target,
            "machine": machine,
            "needs": needs,
            "functions": {"prefix": io, "depth": io},
            "members": {"prefix": "programs/p.so", "depth": "programs/p.so"},
        }
        for target, machine, needs in (
            ("m-plain", "m", ["a"]),
            ("m-better", "m", ["a", "b"]),
            ("m-best", "m", ["a", "b", "c"]),
            ("n-plain", "n", []),
        )
    ]
    monkeypatch.setattr(platform, "machine", lambda: "m")
    monkeypatch.setattr(cpu, "features", lambda: frozenset("ab"))
    monkeypatch.delenv("EDGEMTL_TARGET", raising=False)
    return Path(rezip({**inside, "programs/p.so": b"not a library", "manifest.json": json.dumps(manifest).encode()}))


def chosen(path: Path, *args: Any, **options: Any) -> tuple[str, str]:
    with edgemtl.load(path, *args, **options) as engine:
        assert engine.program
        return engine.program.target, engine.why


def test_the_best_that_runs_here_and_why_not_the_others(three: Path) -> None:
    target, why = chosen(three)
    assert target == "m-better"
    assert why == (
        "tvm-cpu is the first that works: m-better, because it uses a, b (not m-best needs c, which this CPU lacks)"
    )


@pytest.mark.parametrize("backend", [None, "auto", "tvm-cpu"])
def test_another_can_be_asked_for(three: Path, backend: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    want = ("m-plain", "tvm-cpu was asked for: m-plain, because that program was asked for")
    assert chosen(three, backend, program="m-plain") == want
    monkeypatch.setenv("EDGEMTL_TARGET", "m-plain")
    assert chosen(three, backend) == want
    assert chosen(three, backend, program="m-better")[0] == "m-better"


REFUSED = {
    "m-best": "the program that was asked for cannot run here: m-best needs c, which this CPU lacks",
    "n-plain": "the program that was asked for cannot run here: n-plain is for n, this is m",
    "m-bettor": r"the bundle has no program 'm-bettor' \(did you mean m-better\?\); it has m-plain, m-better, m-best, ",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused(three: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=REFUSED[name]):
        edgemtl.load(three, program=name)
    monkeypatch.setenv("EDGEMTL_TARGET", name)
    with pytest.raises(BackendError, match=REFUSED[name]):
        edgemtl.load(three)


def test_the_variable_is_for_native_programs_only(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEMTL_TARGET", "m-plain")
    with edgemtl.load(three, "torch") as engine:
        assert engine.program is None
    with pytest.raises(BackendError, match="holds no program for backend 'torch'"):
        edgemtl.load(three, "torch", program="m-plain")


def test_inspect_says_what_would_run(three: Path, cli: Callable[..., Any]) -> None:
    said = json.loads(cli("inspect", three, "--json").out)
    assert said["would_run"]["tvm-cpu"]["program"] == "m-better"
    assert "tvm-cpu would run here: m-better, because it uses a, b" in cli("inspect", three).out


def test_inspect_says_why_nothing_would(three: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "features", frozenset)
    said = cli("inspect", three)
    assert said.code == 0
    assert (
        "tvm-cpu would refuse here: none of the bundle's programs for tvm-cpu can run here: m-plain needs a" in said.out
    )
