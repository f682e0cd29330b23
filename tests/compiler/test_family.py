"""Targets by family: a package from outside adds one, and its programs are built, checked and written like the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.bundle.manifest import Function, Program
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import CompileError
from edgemtl.graph import from_state, network, run
from edgemtl_compiler import compile_bundle, family
from edgemtl_compiler.family import Job, Made, Named, Run
from edgemtl_compiler.precision import Parts


class Reference(family.Family):
    """The graph's own reference as a target: its programs are the weights' state."""

    words = ("reference",)
    off = 0.0

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[Named]:
        return (Named("plain"),)

    def build(self, job: Job, target: family.Target) -> Made:
        self.job = job
        names, image = job.config.task_names, (1, 3, *job.config.image_size)
        outs = {t.name: (1, t.channels, *job.config.map_size) for t in job.config.tasks}
        functions = {n: Function(inputs=(image,), outputs=(outs[n],)) for n in names}
        members = {n: f"programs/reference/plain/{n}.txt" for n in names}
        program = Program(backend="reference", target=target.name, functions=functions, members=members)
        (job.folder / "a.txt").write_text("a file")
        return Made(
            self, program, {m: b"bytes" if m.endswith("edge.txt") else job.folder / "a.txt" for m in members.values()}
        )

    def runner(self, made: Made, parts: Parts) -> Run:
        def one(image: Any, task: str) -> Any:
            given = {"image": image[0].transpose(1, 2, 0)}
            (raw,) = run(network(self.job.config, task).whole, given, from_state(self.job.state)).values()
            return np.ascontiguousarray(raw.transpose(2, 0, 1)) + self.off

        return lambda image, tasks: {task: one(image, task) for task in tasks}


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if an installed package declared the family."""
    found = EntryPoint("reference", f"{__name__}:Reference", family.GROUP)
    before = family.entry_points(group=family.GROUP)
    monkeypatch.setattr(family, "entry_points", lambda group: [*before, found])
    family._declared.cache_clear()
    yield
    family._declared.cache_clear()


@pytest.mark.usefixtures("outside")
def test_a_family_from_outside(micro: Any, tmp_path: Path) -> None:
    built = compile_bundle(micro.model, tmp_path / "m.edgemtl", targets=("reference",))
    assert built.targets == ("plain",)
    assert max(built.errors["plain"].values()) < 1e-6
    with Bundle.open(built.path) as opened:
        (program,) = opened.manifest.programs
        assert (program.backend, program.target) == ("reference", "plain")
        assert bytes(opened.read(program.members["edge"])) == b"bytes"
        assert bytes(opened.read(program.members["depth"])) == b"a file"


@pytest.mark.usefixtures("outside")
def test_its_programs_are_held_to_the_goldens(micro: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reference, "off", 1.0)
    with pytest.raises(CompileError, match="the plain program of '.*' differs from the reference"):
        compile_bundle(micro.model, tmp_path / "m.edgemtl", targets=("reference",))
    assert not (tmp_path / "m.edgemtl").exists()


def leaves() -> None:
    """What a package's module may do as well."""
    raise SystemExit("no\nlicence")


class Usurper(Reference):
    words = ("cpu", "reference")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no.such:Thing", "no.such:Thing cannot be loaded: ModuleNotFoundError: No module named 'no'"),
        (f"{__name__}:Named", "Named cannot be loaded: TypeError: "),
        (f"{__name__}:Missing", "Missing cannot be loaded: AttributeError: "),
        (f"{__name__}:dict", "dict cannot be loaded: AttributeError: "),
        (f"{__name__}:np.float64", "np.float64 cannot be loaded: TypeError: it is no Family but float64"),
        (f"{__name__}:leaves", "leaves cannot be loaded: SystemExit: no licence"),
    ],
)
def test_a_broken_package_is_named_and_harms_no_other_target(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = family.entry_points(group=family.GROUP)
    monkeypatch.setattr(family, "entry_points", lambda group: [EntryPoint("x", value, group), *before])
    family._declared.cache_clear()
    assert [w.target.name for w in family.resolve(["onnx"], "f32", ())] == ["onnx"]
    with pytest.raises(CompileError, match="there is no target 'theirs'; choose cpu, .*; targets of ") as caught:
        family.resolve(["theirs"], "f32", ())
    family._declared.cache_clear()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_takes_no_word_that_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    before = family.entry_points(group=family.GROUP)
    theirs = EntryPoint("a", f"{__name__}:Usurper", family.GROUP)
    monkeypatch.setattr(family, "entry_points", lambda group: [theirs, *before])
    family._declared.cache_clear()
    (cpu,), (plain,) = (family.resolve([word], "f32", ()) for word in ("cpu", "reference"))
    family._declared.cache_clear()
    assert not isinstance(cpu.family, Usurper)
    assert isinstance(plain.family, Usurper)


def test_an_installation_that_declares_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "entry_points", lambda group: [])
    family._declared.cache_clear()
    with pytest.raises(CompileError, match="declares no targets: install it again"):
        family.resolve(["cpu"], "f32", ())
    family._declared.cache_clear()


def test_words() -> None:
    words = [word for one in family._declared()[0] for word in one.words]
    assert len(words) == len(set(words))
    assert {"cpu", "onnx", "cuda", "fpga", "torch"} <= set(words)
    assert [w.target.name for w in family.resolve(["x86_64", "x86_64-avx2"], "f32", ())] == [
        "x86_64-avx512",
        "x86_64-avx2",
    ]
    for given, arches, message in (
        (["cpu"], ["sm_90"], "--arch is for GPUs"),
        (["cup"], [], r"no target 'cup' \(did you mean cpu\?\)"),
    ):
        with pytest.raises(CompileError, match=message):
            family.resolve(given, "f32", arches)
    with pytest.raises(CompileError, match="no precision 'f8'; choose f32, f16, bf16, int8"):
        family.resolve(["cpu"], "f8", ())
