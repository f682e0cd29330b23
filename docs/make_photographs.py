"""Draws docs/photographs.jpg: photographs and what a bundle's tasks say of them.

    python docs/make_photographs.py BUNDLE docs/photographs.jpg PICTURE... [--fov DEGREES]

The pictures in the documents are samples of scikit-image (`motorcycle`, `coffee`, `chelsea`) and of Debian's package
opencv-doc (`basketball1.png`, `left06.jpg`), all free to pass on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

import edgemtl
from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.media import legend, view
from edgemtl.media.images import read_image

SIZE = (320, 240)  # width, height of a tile
LIMITS = (0.5, 6.0)  # metres at the ends of depth's colours


def main(
    bundle: Path, out: Path, pictures: list[Path], fov: Annotated[float | None, typer.Option(min=1, max=179)] = None
) -> None:
    """One row a picture: the picture, then each task's map with what its colours mean."""
    rows = []
    with edgemtl.load(bundle, fov=fov, color="bgr") as engine:
        chosen = engine.manifest.model.tasks
        engine.activate(*(task.name for task in chosen))
        for path in pictures:
            frame = read_image(path)
            row = [(view.label(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA), path.stem), None)]
            results = engine(frame)
            for task in chosen:
                values = results[task.name].map
                limits = LIMITS if tasks.find(task.kind).unit else None
                drawn = view.colour(task, values, color="bgr", limits=limits, safe=True)
                tile = view.label(cv2.resize(drawn, SIZE, interpolation=cv2.INTER_NEAREST), task.name)
                row.append((tile, _strip(task, values, limits)))
            rows.append(_row(row))
    sheet = np.concatenate(rows)
    cv2.imwrite(str(out), sheet, [cv2.IMWRITE_JPEG_QUALITY, 88])


def _strip(task: TaskConfig, values: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """What the colours mean; of classes only those with a fiftieth of the picture."""
    if tasks.find(task.kind).classes:
        seen, count = np.unique(values, return_counts=True)
        return legend.classes(task, seen[count > values.size / 50].tolist(), SIZE[0], color="bgr", safe=True)
    return legend.strip(task, values, limits, "viridis", SIZE[0], color="bgr")


def _row(tiles: list[tuple[np.ndarray, np.ndarray | None]]) -> np.ndarray:
    """Tiles beside each other, each above its strip, filled up with black to one height."""
    columns = [tile if strip is None else np.concatenate([tile, strip]) for tile, strip in tiles]
    high = max(column.shape[0] for column in columns)
    return np.concatenate(
        [cv2.copyMakeBorder(c, 0, high - c.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(24,) * 3) for c in columns], 1
    )


if __name__ == "__main__":
    typer.run(main)
