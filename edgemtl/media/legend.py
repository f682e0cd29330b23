"""Strips that say what a picture's colours mean: classes, metres, directions. All are uint8 [height, width, 3]."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.media.palette import class_colours, class_names, colours
from edgemtl.media.preprocess import Colour, Image
from edgemtl.media.view import ramp
from edgemtl.tasks import Array as Map

ROW, DARK, INK = 18, 24, (235, 235, 235)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def strip(
    task: TaskConfig, values: Map, limits: tuple[float, float] | None, colormap: str, width: int, *, color: Colour
) -> Image:
    """What the colours of one result mean; `limits` are the values at the ends of its colour map."""
    kind = tasks.find(task.kind)
    if kind.classes:
        return classes(task, kind.present(values), width, color=color, safe=True)
    if kind.unit and limits is not None:
        return scale(limits, kind.unit, colormap, width, color=color)
    return _line(kind.words, width)


def classes(task: TaskConfig, shown: Sequence[int], width: int, *, color: Colour = "rgb", safe: bool = False) -> Image:
    """The colour and name of each class in `shown`, in as many rows as `width` makes necessary."""
    names, paint = class_names(task), class_colours(task, safe=safe)
    return _swatches([(names[i][:24], paint[i]) for i in shown if i < task.channels], width, color)


def experts(shown: Sequence[int], count: int, width: int, *, color: Colour = "rgb") -> Image:
    """The colour and number of each expert in `shown`, of `count` in all, and how `view.experts` arranges them."""
    below = _swatches([(f"expert {i}", colours(count)[i]) for i in shown], width, color)
    return np.concatenate([_line("large: a patch's first choice; small: its next ones", width), below])


def scale(limits: tuple[float, float], unit: str, colormap: str, width: int, *, color: Colour = "rgb") -> Image:
    """A scale of a quantity: the colour map with a mark and a number at every whole or half step that has room."""
    low, high = limits
    out = _empty(2, width)
    left, right = 8, width - 30
    if right <= left:
        return out
    bar = ramp(colormap, right - left)
    out[4 : ROW - 2, left:right] = bar if color == "rgb" else bar[:, ::-1]
    for value in ticks(low, high, (right - left) // 50):
        x = left + round((value - low) / (high - low) * (right - left - 1))
        out[ROW - 2 : ROW + 3, x] = INK
        text = f"{value:g}"
        cv2.putText(out, text, (x - 4 * len(text), 2 * ROW - 4), _FONT, 0.4, INK, 1, cv2.LINE_AA)
    cv2.putText(out, unit, (width - 18, ROW - 4), _FONT, 0.42, INK, 1, cv2.LINE_AA)
    return out


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, evenly apart: at least one, and as many as `most` (2 or more) allows."""
    power = 10.0 ** np.floor(np.log10((high - low) / max(2, most)))
    for step in (s * power for s in (1, 2, 5, 10, 20, 50)):
        first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
        if last - first < max(2, most):
            break
    return [round(i * step, 6) for i in range(first, last + 1)]


def _swatches(cells: list[tuple[str, Image]], width: int, color: Colour) -> Image:
    step = max([90, *(cv2.getTextSize(n, _FONT, 0.4, 1)[0][0] + 26 for n, _ in cells)])
    across = max(1, width // step)
    out = _empty(max(1, -(-len(cells) // across)), width)
    for i, (name, rgb) in enumerate(cells):
        x, y = i % across * step, i // across * ROW
        paint = tuple(int(v) for v in (rgb if color == "rgb" else rgb[::-1]))
        cv2.rectangle(out, (x + 4, y + 4), (x + 15, y + 14), paint, cv2.FILLED)
        cv2.putText(out, name, (x + 20, y + 13), _FONT, 0.4, INK, 1, cv2.LINE_AA)
    return out


def _line(text: str, width: int) -> Image:
    out = _empty(1, width)
    cv2.putText(out, text, (4, 13), _FONT, 0.4, INK, 1, cv2.LINE_AA)
    return out


def _empty(rows: int, width: int) -> Image:
    return np.full((ROW * rows, width, 3), DARK, np.uint8)
