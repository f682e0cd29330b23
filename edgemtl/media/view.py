"""Maps as pictures: colours, overlays, labels, contact sheets. All images are uint8 [H, W, 3].

A quantity such as depth is drawn with perceptual colour maps (viridis, inferno, magma, cividis; turbo for those who
want it); classes in the palette of the bundle or in one safe for colour-blind people; anything else as its kind says
(`edgemtl.tasks`). `edgemtl.media.legend` has the strips that say what the colours mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.errors import FrameError
from edgemtl.media.palette import class_colours, colours
from edgemtl.media.preprocess import Colour, Image, check_frame
from edgemtl.tasks import Array as Map

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
    safe: bool = False,
    frame: tuple[int, int] | None = None,
) -> Image:
    """A result of `task` (as `Output` gives it) as a picture in the order `color`.

    `limits` are the values of a quantity (depths in metres) drawn as the colour map's two ends; without them the map's
    own 2nd and 98th percentiles, which makes one picture clear and a video flicker (`SteadyLimits` is for videos).
    `safe`: classes in colours safe for colour-blind people. `frame`: the picture's (height, width), for boxes and
    points. Raises FrameError for an unknown colour map.
    """
    kind = tasks.find(task.kind)
    if kind.form != "map":
        rgb = np.zeros((*(frame or (0, 0)), 3), np.uint8)
        kind.draw(values, rgb)
    elif kind.unit:
        rgb = _ramp(values, colormap, limits)
    elif kind.classes:
        rgb = class_colours(task, safe=safe)[np.minimum(values, task.channels - 1)]
    else:
        rgb = kind.colour(values)
    return rgb if color == "rgb" else np.ascontiguousarray(rgb[..., ::-1])


def percentiles(values: Map, shares: Sequence[float]) -> list[float]:
    """Those of at least one value, as np.percentile gives them: which imports numpy.ma, as long as a small picture."""
    at = np.array(shares) / 100 * (values.size - 1)
    below = at.astype(np.int64)
    above = np.minimum(below + 1, values.size - 1)
    ordered = np.partition(values, [*below, *above], axis=None)
    found: list[float] = (ordered[below] + (at - below) * (ordered[above] - ordered[below])).tolist()
    return found


def _ramp(values: Map, colormap: str, limits: tuple[float, float] | None) -> Image:
    if colormap not in COLOUR_MAPS:
        raise FrameError(f"there is no colour map {colormap!r}; choose one of {', '.join(COLOUR_MAPS)}")
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = limits or percentiles(finite, (2, 98))
    scaled = (finite - low) * (255 / max(high - low, 1e-6))
    bgr = cv2.applyColorMap(np.clip(scaled, 0, 255).astype(np.uint8), COLOUR_MAPS[colormap])
    return np.ascontiguousarray(bgr[..., ::-1])


def ramp(colormap: str, steps: int) -> Image:
    """A colour map from its low end to its high one, uint8 RGB [steps, 3]. Raises FrameError for an unknown one."""
    steps_up = np.linspace(0, 1, steps, dtype=np.float32)
    return _ramp(steps_up[None], colormap, (0, 1)).reshape(steps, 3)


class SteadyLimits:
    """Limits of a quantity for a video: they follow the frames' 2nd and 98th percentiles slowly, so nothing flickers.

    `follow` is the share of the way to the newest frame's percentiles that each frame makes them go.
    """

    def __init__(self, follow: float = 0.05) -> None:
        self._follow = follow
        self._now: tuple[float, float] | None = None

    def __call__(self, values: Map) -> tuple[float, float]:
        finite = values[::4, ::4][np.isfinite(values[::4, ::4])]
        low, high = percentiles(finite, (2, 98)) if finite.size else (0.0, 1.0)
        if self._now is not None:
            low, high = (old + self._follow * (new - old) for old, new in zip(self._now, (low, high), strict=True))
        self._now = low, high
        return low, max(high, low + 0.1)


def experts(ids: Map, count: int, size: tuple[int, int], *, color: Colour = "rgb") -> Image:
    """Which experts each patch chose: ids [rows, columns, k], best first, of `count` experts, as a picture of `size`
    (height, width).

    The upper two thirds of a patch's cell are its first choice, with the expert's number where there is room; the
    lower third is its next choices, from left to right. An expert has the same colour in every picture.
    """
    rows, columns, k = ids.shape
    first = np.repeat(ids[..., :1], max(1, k - 1), -1)
    thirds = np.stack([first, first, ids[..., 1:] if k > 1 else first], 1)  # [rows, 3, columns, bars]
    paint = colours(count)
    rgb = cv2.resize(paint[thirds.reshape(3 * rows, -1)], size[::-1], interpolation=cv2.INTER_NEAREST)
    high, wide = size[0] / rows, size[1] / columns
    for y, x in np.ndindex(rows, columns) if high >= 20 and wide >= 18 else ():
        number = str(ids[y, x, 0])
        ink = (0, 0, 0) if paint[ids[y, x, 0]] @ (0.299, 0.587, 0.114) > 110 else (255, 255, 255)
        at = (int((x + 0.5) * wide) - 4 * len(number), int((y + 1 / 3) * high) + 4)
        cv2.putText(rgb, number, at, _FONT, 0.38, ink, 1, cv2.LINE_AA)
    for y in range(1, rows):
        rgb[int(y * size[0] / rows)] = 24
    for x in range(1, columns):
        rgb[:, int(x * size[1] / columns)] = 24
    return rgb if color == "rgb" else np.ascontiguousarray(rgb[..., ::-1])


def fit(picture: Image, size: tuple[int, int]) -> Image:
    """The picture within (height, width): shrunk or enlarged with its shape kept, dark beside it."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    high, wide = (max(1, min(limit, round(scale * n))) for n, limit in zip(picture.shape, size, strict=False))
    out = np.full((*size, 3), 24, np.uint8)
    top, left = (size[0] - high) // 2, (size[1] - wide) // 2
    out[top : top + high, left : left + wide] = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA)
    return out


def overlay(frame: Image, picture: Image, alpha: float = 0.55) -> Image:
    """`picture` laid over `frame`, which has the same size and colour order; alpha 1 hides the frame.

    Raises FrameError when the sizes differ.
    """
    check_frame(frame)
    if frame.shape != picture.shape:
        raise FrameError(f"a map of shape {picture.shape[:2]} cannot lie over a frame of shape {frame.shape[:2]}")
    return np.asarray(cv2.addWeighted(frame, 1 - alpha, picture, alpha, 0), np.uint8)


def over(task: TaskConfig, frame: Image, picture: Image, alpha: float) -> Image:
    """A result's `picture` on `frame`, in the way of its form: a map is an `overlay`, boxes and points are opaque."""
    if tasks.find(task.kind).form == "map":
        return overlay(frame, picture, alpha)
    return np.where(picture.any(-1, keepdims=True), picture, frame)


def painted(frame: Image, shares: Map, ink: tuple[int, ...]) -> Image:
    """`frame` with `ink` in its order of colours, as opaque as `shares` [H, W] say. Raises FrameError as `overlay`."""
    if frame.shape[:2] != shares.shape:
        raise FrameError(f"a map of shape {shares.shape} cannot lie over a frame of shape {frame.shape[:2]}")
    mixed = frame + shares[..., None] * (np.array(ink, np.float32) - frame)
    return np.asarray(np.clip(mixed + 0.5, 0, 255), np.uint8)


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
