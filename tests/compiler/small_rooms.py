"""A labelled data set in the NYUD_MT layout, small enough for a test: blocks of colour, and labels that follow."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = 13


def write_rooms(root: Path, train: int = 32, val: int = 6, size: tuple[int, int] = (32, 64)) -> Path:
    """`train` and `val` images of `size` (height, width) under `root`."""
    for folder in ("images", "segmentation", "depth", "normals", "edge", "gt_sets"):
        (root / folder).mkdir(parents=True)
    names = [f"{i:06d}" for i in range(train + val)]
    for seed, name in enumerate(names):
        blocks = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        image = cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_LINEAR)
        grey = image.astype(np.float32).mean(2) / 255
        cv2.imwrite(str(root / "images" / f"{name}.jpg"), image)
        cv2.imwrite(str(root / "segmentation" / f"{name}.png"), (grey * (CLASSES - 1)).astype(np.uint8) + 1)
        np.save(root / "depth" / f"{name}.npy", 1 + grey)
        normal = image.astype(np.float32) + 1
        np.save(root / "normals" / f"{name}.npy", normal / np.linalg.norm(normal, axis=2, keepdims=True))
        np.save(root / "edge" / f"{name}.npy", (grey > 0.6).astype(np.float32))
    (root / "gt_sets" / "train.txt").write_text("\n".join(names[:train]))
    (root / "gt_sets" / "val.txt").write_text("\n".join(names[train:]))
    (root / "rooms.json").write_text(json.dumps({"classes": [f"class{i}" for i in range(CLASSES)]}))
    return root
