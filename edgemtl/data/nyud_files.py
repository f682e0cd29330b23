"""Reads and checks the label files of the NYUD_MT layout. A damaged or hostile file gives one `DataError`, no crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import DataError

Array = NDArray[Any]


def read_image(path: Path) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3]."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise DataError(f"{path} is no readable image; restore the file or make the set again")
    return np.ascontiguousarray(bgr[..., ::-1])


def read_segmentation(path: Path, classes: int) -> Array:
    """uint8 [H, W]: 0 = no label, class c stored as c + 1."""
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label is None or label.ndim != 2 or label.dtype != np.uint8:
        raise DataError(f"{path} is no readable 8-bit single-channel PNG (0 = no label, class c stored as c + 1)")
    if label.max() > classes:
        raise DataError(f"{path} holds the label {label.max()}, but the set has {classes} classes, stored from 1")
    return label


def _read_npy(path: Path) -> Array:
    try:
        # mapped first: a header that promises more than the file holds is refused before memory is asked for
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can make NumPy's parser raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no readable NumPy array ({reason}); restore it or make the set again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{path} must hold one array of numbers, not {getattr(array, 'dtype', type(array).__name__)}")
    return np.array(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def read_depth(path: Path) -> Array:
    """float16 [H, W], metres, 0 = invalid."""
    array = _read_npy(path)
    if array.ndim != 2:
        raise DataError(f"{path} has the shape {array.shape}; depth is [height, width] in metres")
    valid = np.isfinite(array) & (array > 0)
    if array[valid].size and array[valid].max() > 200:
        raise DataError(f"{path} holds a depth of {array[valid].max():.6g}; depth is in metres, up to 200")
    return np.where(valid, array, 0).astype(np.float16)


def read_normals(path: Path) -> Array:
    """float16 [H, W, 3], unit length, zero = invalid."""
    array = _read_npy(path)
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{path} has the shape {array.shape}; normals are [height, width, 3]")
    normals = array.astype(np.float32)
    length = np.sqrt((normals * normals).sum(-1, keepdims=True))
    invalid = ~(np.isfinite(length) & (length > 0.5))
    if (length[~invalid] > 2).any():
        longest = length[~invalid].max()
        raise DataError(f"{path} holds a normal of length {longest:.6g}; normals have length 1, or 0 if invalid")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(invalid, 0, normals / length).astype(np.float16)


def read_edge(path: Path) -> Array:
    """uint8 [H, W], 0 or 1."""
    array = _read_npy(path)
    if array.ndim != 2:
        raise DataError(f"{path} has the shape {array.shape}; an edge map is [height, width]")
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"{path} holds values other than 0 and 1; an edge map is 1 on edges and 0 elsewhere")
    return array.astype(np.uint8)
