"""Who made the models that are in the pictures, under which licence."""

from __future__ import annotations

import json
from pathlib import Path

from edgemtl.data.homes.catalogue import load_catalogues
from edgemtl.data.rooms.write import write_atomic

NOTE = (
    "The pictures show furniture models of these authors, placed, coloured and rendered anew. CC-BY models ask that "
    "their authors are named where the pictures are passed on; the catalogues hold the full licence texts."
)


def write_credits(furniture: tuple[str, ...], out: Path, ids: list[str]) -> None:
    """Write OUT/credits.json from the models that OUT/views names; images without a readable record are left out."""
    used: dict[str, int] = {}
    for name in ids:
        try:
            models = json.loads((out / "views" / f"{name}.json").read_text())["models"]
            for model in models:
                used[str(model)] = used.get(str(model), 0) + 1
        except (OSError, ValueError, KeyError, TypeError):
            continue
    known = {entry.id: entry for entry in load_catalogues(furniture).entries}
    rows = [
        {"model": model, "name": e.name, "creator": e.creator, "licence": e.licence, "catalogue": Path(e.file).name,
         "images": used[model]}
        for model in sorted(used)
        if (e := known.get(model)) is not None
    ]  # fmt: skip
    text = json.dumps({"note": NOTE, "models": rows}, indent=1, ensure_ascii=False)
    write_atomic(out / "credits.json", (text + "\n").encode())
