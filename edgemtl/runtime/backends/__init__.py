"""Finding a backend: by name, or the first usable one with the reason why."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.base import Backend, Choice, no_program, programs_of

GROUP = "edgemtl.backends"
NATIVE, TARGET = "tvm-cpu", "EDGEMTL_TARGET"
ORDER = (NATIVE, "onnxruntime", "torch")  # what "auto" tries


@cache
def _declared() -> dict[str, EntryPoint]:
    """What installed packages declare; finding out reads a file of each of them."""
    found = sorted(entry_points(group=GROUP), key=lambda e: e.value.startswith("edgemtl."))
    return {e.name: e for e in found}  # of two with one name, this project's


def names() -> tuple[str, ...]:
    """Every backend that an installed package declares, usable or not."""
    found = _declared()
    return (*(n for n in ORDER if n in found), *sorted(found.keys() - set(ORDER)))


def find(name: str) -> type[Backend]:
    """The backend called `name`; raises BackendError, with the nearest spelling, for a name that is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1, 0.4)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BackendError(f"there is no backend {name!r}{hint}; this edgemtl has {', '.join(names()) or 'none'}")
    try:
        backend = _declared()[name].load()
        if not (isinstance(backend, type) and issubclass(backend, Backend)):
            raise TypeError(f"{_declared()[name].value} is no class of backends")
    except (Exception, SystemExit) as e:  # another package's module may fail in any way
        raise BackendError(f"backend {name!r} cannot be loaded: {type(e).__name__}: {' '.join(str(e).split())}") from e
    return backend


def usable(name: str, bundle: Bundle, target: str | None = None) -> tuple[type[Backend], Choice]:
    """Backend `name` and the program it chooses, or the one called `target`; raises BackendError with the reason when
    it cannot run `bundle`.
    """
    backend = find(name)
    if reason := backend.unusable():
        raise BackendError(f"backend {name!r} cannot be used here: {reason}")
    return backend, backend.choose(bundle) if target is None else _named(backend, bundle, target)


def choose(
    name: str | None, bundle: Bundle, target: str | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[type[Backend], Choice, str]:
    """The backend for `name`; for None or "auto" the first usable one. The third value says why, and why not others.

    `target`, or else $EDGEMTL_TARGET (which is for tvm-cpu), names the program to run, for tests and measurements.
    Raises BackendError when none is usable. This is the only place where one backend stands in for another, and it
    happens before anything runs.
    """
    asked = None if name == "auto" else name
    if target is None and asked in (None, NATIVE) and environ.get(TARGET):
        target, asked = environ[TARGET], NATIVE
    if target is not None and asked is None:
        asked = _backend_of(target, bundle)
    if asked is not None:
        backend, choice = usable(asked, bundle, target)
        return backend, choice, f"{asked} was asked for: {choice.why}"
    refused = []
    for candidate in (n for n in ORDER if n in names()):
        try:
            backend, choice = usable(candidate, bundle)
        except BackendError as e:
            refused.append(str(e))
            continue
        return backend, choice, "; ".join([f"{candidate} is the first that works: {choice.why}", *refused])
    raise BackendError("no backend can run this bundle: " + "; ".join(refused or ["none is installed"]))


def _backend_of(target: str, bundle: Bundle) -> str:
    """The backend of the program for `target`."""
    held = {p.target: p.backend for p in bundle.manifest.programs}
    if target not in held:
        raise _no_target(target, held)
    return held[target]


def _named(backend: type[Backend], bundle: Bundle, target: str) -> Choice:
    """The backend's program for `target`, which was asked for by name."""
    programs = {p.target: p for p in programs_of(backend, bundle)}
    if not programs:
        raise no_program(backend.name, bundle)
    if target not in programs:
        raise _no_target(target, programs)
    if reason := backend.refuses(programs[target]):
        raise BackendError(f"the program that was asked for cannot run here: {reason}")
    return Choice(programs[target], f"{target}, because that program was asked for")


def _no_target(target: str, held: Iterable[str]) -> BackendError:
    near = difflib.get_close_matches(target, list(held), 1, 0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return BackendError(f"the bundle has no program {target!r}{hint}; it has {', '.join(held) or 'none'}")
