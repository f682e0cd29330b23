"""The PASCAL_MT folder layout: PASCAL-Context with five tasks, as Maninis et al. (CVPR 2019) published it.

Semantic classes are VOC's 20 and background; edges are the outlines of PASCAL-Context's 459 classes; human parts are
six groups of those that Chen et al. (CVPR 2014) annotated; normals and saliency are another network's predictions, and
the normals count only on classes that NYUD also has, which is where that network was trained.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgemtl.data.files import (
    Array,
    class_labels,
    read_grey,
    read_image,
    read_indices,
    read_mat,
)
from edgemtl.data.form import About, Augmentation, Label, Layout, read_list
from edgemtl.errors import DataError
from edgemtl.tasks.normals import KIND as NORMALS
from edgemtl.tasks.normals import Y_DOWN

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
PERSON = 15  # the class of people among VOC's
_GROUPS = (  # annotated parts, left and right alike, by the index of their group in PARTS
    (1, re.compile(r"hair|head|mouth|nose|[lr](ear|ebrow|eye)")),
    (2, re.compile(r"neck|torso")),
    (3, re.compile(r"[lr]uarm")),
    (4, re.compile(r"[lr](larm|hand)")),
    (5, re.compile(r"[lr]uleg")),
    (6, re.compile(r"[lr](lleg|foot)")),
)

# The classes of LabelMap on which normals count: those whose names NYUD's 894 classes also have, and tvmonitor.
_SHARED = """
3 4 6 9 10 11 13 15 17 18 22 23 29 30 33 34 36 37 38 39 41 43 46 49 50 51 53 55 56 59 61 62 65 66 68 69 72 73 78 83 84
85 87 88 95 96 101 104 105 107 111 113 115 122 124 135 141 142 143 146 150 154 157 158 159 165 172 174 181 183 184 191
193 195 197 199 202 213 215 216 219 220 223 225 228 230 232 233 238 239 242 243 246 250 251 252 255 260 261 263 269
272 273 275 281 283 284 285 286 287 288 290 291 292 293 295 304 307 309 310 314 315 319 323 329 330 331 336 342 345
349 350 351 352 355 357 368 370 371 374 379 380 383 384 397 401 403 405 407 408 411 412 413 414 417 419 421 423 427
429 430 432 440 441 442 443 444 446 454 457
"""
NORMALS_ON = np.fromstring(_SHARED, np.int64, sep=" ")


class PascalContext(Layout):
    name = "pascal"
    title = "PASCAL_MT (PASCAL-Context)"
    lists = "ImageSets/Context/{train,val}.txt: one image ID a line"
    image = "JPEGImages/ID.jpg: RGB"
    labels = {  # noqa: RUF012
        "semseg": Label("semseg", "semseg/VOC12/ID.png or semseg/pascal-context/ID.png: 0-20, 255 = no label", 21),
        "human_parts": Label("semseg", "human_parts/ID.mat: PASCAL-Parts' structure anno; no people = no label", 7),
        "saliency": Label("saliency", "sal_distill/ID.png: 8-bit grey, above half is salient"),
        "normals": Label(
            "normals", "normals_distill/ID.png: RGB, 2 v / 255 - 1; with pascal-context/trainval/ID.mat", variant=Y_DOWN
        ),
        "edge": Label("edge", "pascal-context/trainval/ID.mat: LabelMap [H, W], whose outlines are the edges"),
    }
    aliases = {"sal": "saliency", "parts": "human_parts"}  # noqa: RUF012
    max_dist = 0.0075
    augmentation = Augmentation(zooms=(0.75, 1.25), between=True, degrees=20)

    def matches(self, root: Path) -> bool:
        return (root / "ImageSets" / "Context").is_dir()

    def ids(self, root: Path, split: str) -> list[str]:
        what = f"a folder in the PASCAL_MT layout has ImageSets/Context/{split}.txt with an image ID a line: restore it"
        return read_list(root / "ImageSets" / "Context" / f"{split}.txt", what)

    def path(self, root: Path, split: str, name: str, image_id: str) -> Path:
        if name == "semseg":
            voc = root / "semseg" / "VOC12" / f"{image_id}.png"
            return voc if voc.is_file() else root / "semseg" / "pascal-context" / f"{image_id}.png"
        folder, end = {
            "image": ("JPEGImages", ".jpg"),
            "human_parts": ("human_parts", ".mat"),
            "saliency": ("sal_distill", ".png"),
            "normals": ("normals_distill", ".png"),
            "edge": ("pascal-context/trainval", ".mat"),
        }[name]
        return root / folder / (image_id + end)

    def about(self, root: Path) -> About:
        official = {"train": (4998, "official training images"), "val": (5105, "official validation images")}
        return About("PASCAL-Context", official=official)

    def read_image(self, path: Path) -> Array:
        return read_image(path)

    def read(self, root: Path, task: str, path: Path) -> Array:
        if task == "semseg":
            return class_labels(path, read_indices(path, "a PNG of class numbers 0-20, 255 = no label"), 21, 0, 255)
        if task == "human_parts":
            return human_parts(path)
        if task == "saliency":
            return (read_grey(path, "an 8-bit single-channel PNG") > 127).astype(np.uint8)
        if task == "edge":
            return outlines(label_map(path))
        shown = read_image(path).astype(np.float32) * np.float32(2 / 255) - 1
        where = root / "pascal-context" / "trainval" / f"{path.stem}.mat"
        classes = label_map(where)
        if classes.shape != shown.shape[:2]:
            raise DataError(
                f"{where} is {classes.shape[0]}x{classes.shape[1]} but {path} is {shown.shape[0]}x{shown.shape[1]}; "
                "all files of an image must have one size"
            )
        length = np.sqrt((shown * shown).sum(-1, keepdims=True))
        unit = np.divide(shown, length, out=np.zeros_like(shown), where=length > 0.5)
        return NORMALS.read(path, np.where(np.isin(classes, NORMALS_ON)[..., None], unit, 0))


def label_map(path: Path) -> Array:
    """LabelMap of PASCAL-Context: class numbers 0 to 459, uint16 [H, W]."""
    array = read_mat(path, "LabelMap")
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{path} must hold LabelMap as an array of class numbers [height, width]")
    if array.min(initial=0) < 0 or array.max(initial=0) > 459:
        raise DataError(f"{path} holds the label {array.max()}, but PASCAL-Context has the classes 0 to 459")
    return array.astype(np.uint16)


def outlines(classes: Array) -> Array:
    """Where the class changes, thinned to one pixel: uint8 [H, W], 0 or 1."""
    from skimage.morphology import thin

    return np.asarray(thin(cv2.Laplacian(classes, cv2.CV_64F) != 0), np.uint8)


def human_parts(path: Path) -> Array:
    """uint8 [H, W]: 0 = no label, part p of PARTS as p + 1; no label anywhere if no person with parts is annotated."""
    what = "anno.objects, each with class_ind, mask and parts (part_name, mask), as PASCAL-Parts has them"
    anno = read_mat(path, "anno")
    try:
        out = None
        for item in _list(anno["objects"]):
            if int(item["class_ind"]) != PERSON or not len(_list(item["parts"])):
                continue
            if out is None:
                out = np.ones(item["mask"].shape, np.uint8)
            for part in _list(item["parts"]):
                out[part["mask"].astype(bool)] = 1 + _group(str(part["part_name"]))
        return np.zeros(_list(anno["objects"])[0]["mask"].shape, np.uint8) if out is None else out
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} does not hold {what} ({type(error).__name__}: {error}); restore it") from None


def _list(value: Any) -> list[Any]:
    """A MATLAB structure array, which the reader gives as a list, one dictionary, or an empty array."""
    return [value] if isinstance(value, dict) else list(value)


def _group(name: str) -> int:
    for number, names in _GROUPS:
        if names.fullmatch(name):
            return number
    raise ValueError(f"{name!r} is no part of a person")
