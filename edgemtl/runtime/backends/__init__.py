"""Finding a backend: by name, or the first usable one with the reason why."""

from __future__ import annotations

import difflib
from functools import cache
from importlib.metadata import entry_points

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.base import Backend, Choice

GROUP = "edgemtl.backends"
ORDER = ("tvm-cpu", "onnxruntime", "torch")  # what "auto" tries


@cache
def names() -> tuple[str, ...]:
    """Every backend that an installed package declares, usable or not."""
    found = {e.name for e in entry_points(group=GROUP)}
    return (*(n for n in ORDER if n in found), *sorted(found - set(ORDER)))


def find(name: str) -> type[Backend]:
    """The backend called `name`; raises BackendError, with the nearest spelling, for a name that is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1, 0.4)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BackendError(f"there is no backend {name!r}{hint}; this edgemtl has {', '.join(names()) or 'none'}")
    (entry,) = (e for e in entry_points(group=GROUP) if e.name == name)
    try:
        backend = entry.load()
    except Exception as e:  # another package's module may fail in any way
        raise BackendError(f"backend {name!r} cannot be loaded: {type(e).__name__}: {e}") from e
    assert issubclass(backend, Backend)
    return backend


def usable(name: str, bundle: Bundle) -> tuple[type[Backend], Choice]:
    """Backend `name` and the program it chooses; raises BackendError with the reason when it cannot run `bundle`."""
    backend = find(name)
    if reason := backend.unusable():
        raise BackendError(f"backend {name!r} cannot be used here: {reason}")
    return backend, backend.choose(bundle)


def choose(name: str | None, bundle: Bundle) -> tuple[type[Backend], Choice, str]:
    """The backend for `name`; for None or "auto" the first usable one. The third value says why, and why not others.

    Raises BackendError when none is usable. This is the only place where one backend stands in for another, and it
    happens before anything runs.
    """
    if name not in (None, "auto"):
        backend, choice = usable(name, bundle)
        return backend, choice, f"{name} was asked for: {choice.why}"
    refused = []
    for candidate in (n for n in ORDER if n in names()):
        try:
            backend, choice = usable(candidate, bundle)
        except BackendError as e:
            refused.append(str(e))
            continue
        return backend, choice, "; ".join([f"{candidate} is the first that works: {choice.why}", *refused])
    raise BackendError("no backend can run this bundle: " + "; ".join(refused or ["none is installed"]))
