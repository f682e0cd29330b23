"""Draws docs/fov.jpg: one place seen by three cameras, and what a model says of it with and without `fov`.

    python docs/make_fov_picture.py MODEL.safetensors docs/fov.jpg [HOME]

The place is in a home of seed 7 (`edgemtl data homes`), whose depth is known; the model was not trained on it.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

import edgemtl
from edgemtl.config import TaskConfig
from edgemtl.data.homes.catalogue import furniture_files
from edgemtl.data.homes.render import render
from edgemtl.data.homes.view import choose
from edgemtl.data.homes.write import home
from edgemtl.media.view import colour, label
from edgemtl_compiler import compile_bundle

SIZE, DEGREES, LIMITS = (384, 512), (42.0, 56.71, 78.0), (0.5, 5.0)


def main(model: str, out: str, number: int) -> None:
    made, world = home(tuple(map(str, furniture_files())), 7, number)
    rng = np.random.default_rng(number)
    eye = choose(made, world, 0, rng)
    assert eye is not None
    columns = []
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.edgemtl"
        compile_bundle(model, bundle, targets=("torch",), tasks=("depth",))
        for fov in DEGREES:
            camera = dataclasses.replace(eye, fov=fov)
            seen = render(world, made.lights, camera, SIZE, np.random.default_rng(1))
            rows = [label(cv2.resize(seen.rgb, (320, 240), interpolation=cv2.INTER_AREA), f"{fov:.0f} degrees across")]
            task = None
            for given in (None, fov):
                with edgemtl.load(bundle, backend="torch", tasks="depth", fov=given) as engine:
                    task, depth = engine.manifest.model.task("depth"), engine(seen.rgb)["depth"].map
                known = seen.depth > 0
                ratio = float(np.median(depth[known] / seen.depth[known]))
                rows.append(draw(task, depth, f"{'without fov' if given is None else 'with fov'}: {ratio:.2f} x truth"))
            assert task is not None
            rows.insert(1, draw(task, seen.depth, "truth"))
            columns.append(np.concatenate(rows))
    cv2.imwrite(out, np.concatenate(columns, 1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def draw(task: TaskConfig, depth: np.ndarray, words: str) -> np.ndarray:
    """A depth map with the same colours for all cameras, and words on it."""
    return label(colour(task, cv2.resize(depth, (320, 240)), limits=LIMITS), words)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 3)
