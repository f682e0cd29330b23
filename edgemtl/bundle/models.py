"""Models that installed packages bring, by name: NAME.edgemtl in a folder that an entry point `edgemtl.models` gives.

The package `edgemtl-models` (demos/models) has one such folder, with the default model in it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from edgemtl.errors import BundleError

GROUP, SUFFIX, INSTALL = "edgemtl.models", ".edgemtl", "pip install edgemtl-models"
DEFAULT = "indoor"  # what runs where no bundle is named, and what `make dist` ships; the Makefile reads this line


@cache
def _declared() -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The folders that installed packages declare; and a sentence for each package that cannot be loaded."""
    from importlib.metadata import entry_points  # slow to import, and most bundles are files

    found, broken = [], []
    for entry in entry_points(group=GROUP):
        try:
            found.append(Path(entry.load()))
        except (Exception, SystemExit) as e:  # another package's module may fail in any way
            reason = " ".join(str(e).split())[:200]
            broken.append(f"the models of {entry.value!r} cannot be loaded: {type(e).__name__}: {reason}")
    return tuple(found), tuple(broken)


def folders() -> tuple[Path, ...]:
    """The folders that installed packages declare and that can be found."""
    return _declared()[0]


def installed() -> dict[str, Path]:
    """Every installed model: its bundle by its name. Of two with the same name, the first declared."""
    return {path.stem: path for folder in reversed(folders()) for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find(path: Path) -> Path:
    """`path`, or the bundle of the installed model of this name; a file of the name goes first."""
    if path.suffix == SUFFIX or path.name != str(path) or os.path.isfile(path):
        return path
    return installed().get(path.name, path)


def default() -> Path:
    """The default model's bundle. Raises BundleError where it is not installed."""
    found = installed()
    if DEFAULT not in found:
        raise BundleError(f"the model {DEFAULT!r} is not installed ({listed()}); or give a bundle before the source")
    return found[DEFAULT]


def clip() -> Path:
    """A clip for demos: of an installed package, or a checkout's own. Raises BundleError where there is none."""
    places = [folder / "homes.mp4" for folder in (*folders(), Path(__file__).parents[2] / "demos")]
    for path in places:
        if path.is_file():
            return path
    raise BundleError(f"there is no clip to show; type {INSTALL}, or give a source: a video, a camera's number")


def listed() -> str:
    """For messages: the names of the installed models, or how to get some."""
    found, broken = installed(), _declared()[1]
    names = f"installed: {', '.join(sorted(found))}" if found else f"no model is; type {INSTALL}"
    return "; ".join([names, *broken])
