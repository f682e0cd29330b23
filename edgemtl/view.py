"""Maps as pictures: colours, overlays, legends, labels, contact sheets. All images are uint8 [H, W, 3].

Depth is drawn with colour maps whose lightness follows the value (viridis, inferno, magma, cividis, turbo); classes
in the palette of the bundle; normals as x, y, z in red, green, blue; edges as white on black.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from edgemtl.config import TaskConfig
from edgemtl.errors import FrameError
from edgemtl.preprocess import Colour, Image, check_frame

Map = np.ndarray[Any, np.dtype[Any]]

COLOUR_MAPS = {
    "viridis": cv2.COLORMAP_VIRIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "turbo": cv2.COLORMAP_TURBO,
}
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def colour(
    task: TaskConfig,
    values: Map,
    *,
    color: Colour = "rgb",
    colormap: str = "viridis",
    limits: tuple[float, float] | None = None,
) -> Image:
    """A map of `task` (as `Output` gives it) as a picture in the order `color`.

    `limits` are the depths in metres drawn as the colour map's two ends; without them the map's own 2nd and 98th
    percentiles, which makes one picture clear and a video flicker. Raises FrameError for an unknown colour map.
    """
    if task.kind == "depth":
        rgb = _ramp(values, colormap, limits)
    elif task.kind == "semseg":
        rgb = palette(task)[np.minimum(values, task.channels - 1)]
    elif task.kind == "normals":
        rgb = np.clip((values + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8)
    else:
        rgb = np.repeat(np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)[..., None], 3, -1)
    return rgb if color == "rgb" else np.ascontiguousarray(rgb[..., ::-1])


def _ramp(values: Map, colormap: str, limits: tuple[float, float] | None) -> Image:
    if colormap not in COLOUR_MAPS:
        raise FrameError(f"there is no colour map {colormap!r}; choose one of {', '.join(COLOUR_MAPS)}")
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = limits if limits else np.percentile(finite, (2, 98))
    scaled = (finite - low) * (255 / max(high - low, 1e-6))
    bgr = cv2.applyColorMap(np.clip(scaled, 0, 255).astype(np.uint8), COLOUR_MAPS[colormap])
    return np.ascontiguousarray(bgr[..., ::-1])


def palette(task: TaskConfig) -> Image:
    """The colours of a task's classes, uint8 RGB [channels, 3]; evenly spread hues when the bundle names none."""
    if task.palette:
        return np.array(task.palette, np.uint8)
    hues = [colorsys.hsv_to_rgb((i * 0.618034) % 1, 0.65, 0.95) for i in range(task.channels)]
    return np.round(np.array(hues) * 255).astype(np.uint8)


def overlay(frame: Image, picture: Image, alpha: float = 0.55) -> Image:
    """`picture` laid over `frame`, which has the same size and colour order; alpha 1 hides the frame.

    Raises FrameError when the sizes differ.
    """
    check_frame(frame)
    if frame.shape != picture.shape:
        raise FrameError(f"a map of shape {picture.shape[:2]} cannot lie over a frame of shape {frame.shape[:2]}")
    return np.asarray(cv2.addWeighted(frame, 1 - alpha, picture, alpha, 0), np.uint8)


def legend(task: TaskConfig, present: Sequence[int], width: int, *, color: Colour = "rgb") -> Image:
    """A strip with the colour and name of each class in `present`, as many rows as `width` makes necessary."""
    names = task.classes or tuple(str(i) for i in range(task.channels))
    cells = [(names[i][:24], palette(task)[i]) for i in present if i < task.channels]
    step = max([90, *(cv2.getTextSize(n, _FONT, 0.4, 1)[0][0] + 26 for n, _ in cells)])
    across = max(1, width // step)
    strip = np.full((18 * max(1, -(-len(cells) // across)), width, 3), 24, np.uint8)
    for i, (name, rgb) in enumerate(cells):
        x, y = i % across * step, i // across * 18
        paint = tuple(int(v) for v in (rgb if color == "rgb" else rgb[::-1]))
        cv2.rectangle(strip, (x + 4, y + 4), (x + 15, y + 14), paint, cv2.FILLED)
        cv2.putText(strip, name, (x + 20, y + 13), _FONT, 0.4, (235, 235, 235), 1, cv2.LINE_AA)
    return strip


def label(picture: Image, text: str) -> Image:
    """The picture with a dark strip above it that carries `text` (ASCII; other characters become "?")."""
    strip = np.full((18, picture.shape[1], 3), 24, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(strip, plain, (4, 13), _FONT, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def contact_sheet(tiles: Sequence[tuple[str, Image]], columns: int = 0) -> Image:
    """Labelled pictures of one size in a grid, `columns` wide (0: as square as it gets).

    Raises FrameError for no tiles, or tiles of different sizes.
    """
    if not tiles or len({picture.shape for _, picture in tiles}) != 1:
        raise FrameError("a contact sheet needs one or more pictures of one size")
    across = columns or int(np.ceil(np.sqrt(len(tiles))))
    labelled = [label(picture, text) for text, picture in tiles]
    labelled += [np.full_like(labelled[0], 24)] * (-len(labelled) % across)
    return np.concatenate([np.concatenate(labelled[i : i + across], 1) for i in range(0, len(labelled), across)])
