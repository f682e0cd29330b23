"""Reads and checks the files of labelled data sets. A damaged or hostile file gives one `DataError`, no crash.

Nothing is unpickled, and a file's header is read first, so that one which promises a huge array is refused before
memory is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import DataError, FrameError
from edgemtl.media import images

Array = NDArray[Any]

MAX_PIXELS = 1 << 26  # 64 megapixels: far more than a frame, far less than a bomb
MAX_NOTE_BYTES = 1 << 16  # a camera's description is one line
MAX_MAT_BYTES = 1 << 22  # a MATLAB file is compressed, and its inner arrays are known only when they are read


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from the header of a JPEG or PNG file; None for anything else."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR":
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a frame header of any coding
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if kind == 0xFF else 2 + max(2, length)  # 0xFF may be repeated as filler
    return None


def _unreadable(path: Path, what: str) -> DataError:
    return DataError(f"{path} is no readable image: it must be {what}; restore the file or make the set again")


def _picture_bytes(path: Path, what: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); it must be {what}") from None
    size = picture_size(data)
    if size is None or images.cut_off(data, images.kind(data[: images.HEAD]).format):
        raise _unreadable(path, what)
    if not 0 < size[0] * size[1] <= MAX_PIXELS:
        raise DataError(f"{path} says that it has {size[0]}x{size[1]} pixels; an image may have {MAX_PIXELS}")
    return data


def read_image(path: Path) -> NDArray[np.uint8]:
    """A JPEG or PNG: RGB, uint8 [H, W, 3], as it is stored: labels know nothing of an orientation that EXIF states."""
    what = "a JPEG or PNG picture"
    try:
        return np.ascontiguousarray(images.decode(path, _picture_bytes(path, what), turn=False)[..., ::-1])
    except FrameError:
        raise _unreadable(path, what) from None


def read_grey(path: Path, what: str) -> NDArray[np.uint8]:
    """A PNG with one 8-bit channel: uint8 [H, W]; `what` is the form it should have, for the message."""
    try:
        label = cv2.imdecode(np.frombuffer(_picture_bytes(path, what), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        label = None
    if label is None:
        raise _unreadable(path, what)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DataError(f"{path} has the shape {label.shape} and type {label.dtype}; it must be {what}")
    return np.asarray(label, np.uint8)


def read_indices(path: Path, what: str) -> NDArray[np.uint8]:
    """A PNG with a palette, or grey: its indices, uint8 [H, W]. OpenCV would give the palette's colours instead."""
    from PIL import Image

    _picture_bytes(path, what)
    try:
        with Image.open(path, formats=["PNG"]) as file:
            label = np.array(file)
    except Exception as error:  # a damaged stream makes the decoder raise nearly anything
        raise DataError(f"{path} is no readable image ({error}): it must be {what}") from None
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DataError(f"{path} has the shape {label.shape} and type {label.dtype}; it must be {what}")
    return label


def read_npy(path: Path) -> Array:
    """An array of numbers as np.save writes it; a last axis of length 1 after two others is dropped."""
    try:
        # mapped first: a header that promises more than the file holds is refused before memory is asked for
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header can make NumPy's parser raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no readable NumPy array ({reason}); restore it or make the set again") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(f"{path} must hold one array of numbers, not {getattr(array, 'dtype', type(array).__name__)}")
    return np.array(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def read_mat(path: Path, variable: str) -> Any:
    """One variable of a MATLAB file (version 4 to 7.2); structures become dictionaries, their arrays lists."""
    from scipy.io import loadmat, whosmat

    try:
        if path.stat().st_size > MAX_MAT_BYTES:
            raise ValueError(f"it has more than {MAX_MAT_BYTES} bytes")
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        if variable not in shapes:
            raise ValueError(f"it holds {', '.join(shapes) or 'nothing'}")
        if np.prod([float(n) for n in shapes[variable]]) > MAX_PIXELS:
            raise ValueError(f"the array has the shape {shapes[variable]}")
        return loadmat(path, variable_names=[variable], simplify_cells=True)[variable]
    except Exception as error:  # see read_npy
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} must be a MATLAB file with the variable {variable!r} ({reason}); restore it") from None


def read_fov(path: Path) -> float:
    """The horizontal field of view, in degrees, from a JSON object with the number "fov"."""
    what = 'it must hold {"fov": degrees, ...} with a horizontal field of view between 1 and 179 degrees'
    try:
        with path.open("rb") as file:
            data = file.read(MAX_NOTE_BYTES + 1)
        if len(data) > MAX_NOTE_BYTES:
            raise ValueError(f"it has more than {MAX_NOTE_BYTES} bytes")
        note = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read ({reason}); {what}") from None
    fov = note.get("fov") if isinstance(note, dict) else None
    if isinstance(fov, bool) or not isinstance(fov, int | float) or not 1 < fov < 179:
        raise DataError(f"{path} holds the field of view {str(fov)[:40]}; {what}")
    return float(fov)


def class_labels(path: Path, label: Array, classes: int, first: int, none: int) -> Array:
    """uint8 [H, W], 0 = no label, class c as c + 1, from class numbers that start at `first`, `none` where unlabelled.

    Raises DataError for a number that is neither.
    """
    if label.ndim != 2:
        raise DataError(f"{path} has the shape {label.shape}; it must be [height, width]")
    known = (label >= first) & (label < first + classes) & (label == np.floor(label))
    strange = label[~known & (label != none)]
    if strange.size:
        raise DataError(
            f"{path} holds the label {strange.flat[0]:g}, but the set has {classes} classes, stored from {first}, "
            f"and {none} for no label"
        )
    return np.where(known, label - first + 1, 0).astype(np.uint8)
