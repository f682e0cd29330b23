"""The known layouts of labelled data sets, and which one a folder has."""

from __future__ import annotations

from pathlib import Path

from edgemtl.data.cityscapes import Cityscapes
from edgemtl.data.form import Layout
from edgemtl.data.nyud import Nyud
from edgemtl.data.pascal import PascalContext
from edgemtl.errors import DataError


def layouts() -> dict[str, Layout]:
    """Every known form, by its name."""
    return {layout.name: layout for layout in (Nyud(), PascalContext(), Cityscapes())}


def find_layout(root: Path, name: str | None = None) -> Layout:
    """The form of folder `root`, or the one called `name`. Raises DataError if it has none."""
    known = layouts()
    if name is not None and name not in known:
        raise DataError(f"there is no layout {name!r}; choose one of {', '.join(known)}")
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}; give the folder of a data set, or make one with `edgemtl data rooms`")
    for layout in known.values():
        if layout.name == name or (name is None and layout.matches(root)):
            return layout
    marks = "; ".join(f"{layout.title} has {layout.lists}" for layout in known.values())
    raise DataError(f"{root} has none of the known layouts: {marks}; type `edgemtl data check` for all their files")
