"""Targets by family: what `edgemtl compile --target NAME` builds programs with.

A family is found through the entry-point group "edgemtl.targets". Another package adds one there, and the backend that
runs its programs in "edgemtl.backends"; nothing here needs to know it.
"""

from __future__ import annotations

import difflib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgemtl.bundle.checkpoint import State
from edgemtl.bundle.layout import Array
from edgemtl.bundle.manifest import Program
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError

if TYPE_CHECKING:
    from torch import Tensor

    from edgemtl_compiler.precision import Parts, Weights
    from edgemtl_compiler.quantise.ranges import Calibration

GROUP = "edgemtl.targets"
PRECISIONS = ("f32", "f16", "bf16", "int8")

Report = Callable[[str], None]
Run = Callable[[Array, Sequence[str]], dict[str, Array]]  # input [1, 3, H, W] and tasks to raw maps [channels, h, w]


class Target(Protocol):
    """What a family builds a program for."""

    @property
    def name(self) -> str: ...


class Named(NamedTuple):
    """A target that is no more than its name."""

    name: str


@dataclass(frozen=True)
class Job:
    """What is built: the model in float32, its weights as the bundle holds them, and its ranges, where
    some target is in INT8.

    folder: for files, and nobody else's.
    """

    config: ModelConfig
    state: State
    weights: Weights
    folder: Path
    report: Report
    calibration: Calibration | None


@dataclass(frozen=True)
class Made:
    """One target's program and its files, by member name."""

    family: Family
    program: Program
    files: Mapping[str, Path | bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in self.files.values())

    def path(self, member: str) -> Path:
        """Where a member is that lies in a file."""
        found = self.files[member]
        assert isinstance(found, Path)
        return found

    @property
    def runs_here(self) -> bool:
        """Whether `runner` can run it."""
        return self.family.runs_here(self.program)

    @property
    def emulated(self) -> bool:
        """Whether `runner` would run it on a CPU though it is for something else."""
        return self.family.emulated(self.program)

    def runner(self, parts: Parts) -> Run:
        """The program, ready to run with these packed weights."""
        return self.family.runner(self, parts)

    def predictor(self, parts: Parts, tasks: Sequence[str]) -> Callable[[Tensor], Mapping[str, Any]]:
        """As `edgemtl.train.evaluate` wants a model, one image at a time."""
        run = self.runner(parts)
        return lambda image: run(image.contiguous().numpy(), tasks)


def need(*packages: str) -> None:
    """Raises CompileError, with the command that installs it, for a package that is not there."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise CompileError(f"{', '.join(missing)} not installed; compiling needs it: pip install 'edgemtl[compile]'")


class Family(ABC):
    """Targets that are built in one way.

    words: what --target may say to mean one or more of them. integers: whether its programs hold integers of their own,
    made from the float model and ranges whatever the bundle's precision, with goldens of their own. arches: whether
    --arch is for it.
    """

    words: tuple[str, ...]
    integers = False
    arches = False

    @abstractmethod
    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[Target]:
        """The targets that one of its words stands for. Raises CompileError, also where none has the precision."""

    def refuse(self, config: ModelConfig, targets: Sequence[Target], precision: str) -> None:  # noqa: B027
        """Raises CompileError, naming what it is, for a model that it has no programs for."""

    def start(self, targets: Sequence[Target]) -> None:  # noqa: B027
        """Begin what takes long and needs no weights. Missing tools are found here: raises CompileError."""

    @abstractmethod
    def build(self, job: Job, target: Target) -> Made:
        """The program of one target. Raises CompileError."""

    def runs_here(self, program: Program) -> bool:
        return True

    def emulated(self, program: Program) -> bool:
        return False

    def runner(self, made: Made, parts: Parts) -> Run:
        """Only asked of a program that `runs_here`, and that is held to the bundle's goldens."""
        raise CompileError(f"programs for {made.program.target} cannot be run by the compiler")


class Wanted(NamedTuple):
    """A target and the family that builds for it."""

    family: Family
    target: Target


@cache
def _declared() -> tuple[tuple[Family, ...], tuple[str, ...]]:
    """What installed packages declare, this project's first; and a sentence for each that cannot be used."""
    found = sorted(entry_points(group=GROUP), key=lambda e: (not e.value.startswith("edgemtl_compiler."), e.name))
    out: list[Family] = []
    broken = []
    for entry in found:
        try:
            one = entry.load()()
            if not isinstance(one, Family):
                raise TypeError(f"it is no Family but {type(one).__name__}")
            _ = [*one.words]
            out.append(one)
        except (Exception, SystemExit) as e:  # another package's module may fail in any way
            reason = " ".join(str(e).split())[:200]
            broken.append(f"targets of {entry.value} cannot be loaded: {type(e).__name__}: {reason}")
    return tuple(out), tuple(broken)


def resolve(words: Iterable[str], precision: str, arches: Sequence[str]) -> list[Wanted]:
    """The targets that are meant, without repeats. Raises CompileError for a word that no family knows."""
    if precision not in PRECISIONS:
        raise CompileError(f"there is no precision {precision!r}; choose {', '.join(PRECISIONS)}")
    found, broken = _declared()
    if not found and not broken:
        raise CompileError("this installation of edgemtl declares no targets: install it again, pip install -e .")
    by_word: dict[str, Family] = {}
    for one in found:
        by_word |= {word: one for word in one.words if word not in by_word}
    out: list[Wanted] = []
    for word in words:
        if word not in by_word:
            near = difflib.get_close_matches(word, by_word, 1, 0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise CompileError("; ".join([f"there is no target {word!r}{hint}; choose {', '.join(by_word)}", *broken]))
        out += [Wanted(by_word[word], target) for target in by_word[word].resolve(word, precision, arches)]
    if arches and not any(family.arches for family, _ in out):
        raise CompileError("--arch is for GPUs: add --target cuda, or leave it out")
    return list(dict.fromkeys(out))


class WeightsAlone(Family):
    """Target torch: no program; backend torch rebuilds the model from the weights."""

    words = ("torch",)

    def resolve(self, word: str, precision: str, arches: Sequence[str]) -> Sequence[Target]:
        return ()

    def build(self, job: Job, target: Target) -> Made:
        raise CompileError(f"target {target.name} has no program")  # never asked: no word of it stands for a target
