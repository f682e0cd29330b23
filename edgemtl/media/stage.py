"""What a camera demo shows: the engine, what was asked for (tasks, blend, expert map), and the figures.

    stage = Stage(engine, ["depth", "semseg"])
    tiles = stage.show(frame)              # one per active task, and the expert map if asked
    picture = compose(tiles)               # BGR, side by side
    stage.figures()                        # plain data for a page or a report

All of it is for one thread.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from edgemtl import tasks as kinds
from edgemtl.errors import TaskError
from edgemtl.media import legend, view
from edgemtl.media.feed import Frame
from edgemtl.media.palette import class_colours, class_names, colours
from edgemtl.media.preprocess import Image
from edgemtl.runtime import expert_map
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.forecast import forecast
from edgemtl.runtime.output import Output, TaskOutput

RECENT = 200  # frames behind the moving percentiles
WINDOW = 3.0  # seconds behind the moving frame rate
MOST_TASKS = 2  # side by side
WIDEST = 1280  # pixels of a tile; larger frames are shown smaller


class Tile(NamedTuple):
    """A picture, BGR, its title, and a strip as wide that says what its colours mean."""

    title: str
    picture: Image
    strip: Image


class Stage:
    """See the module's text. `tasks` are those on offer; the first one is made active.

    blend: 0 shows the camera, 1 the map. experts: the MoE block whose expert map is shown, None for none. depth_limits:
    metres at the colour map's ends; None follows the pictures slowly. limits: those now, of each task that has some.
    camera: whether the frame is a tile of its own.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: Sequence[str],
        *,
        colormap: str = "viridis",
        depth_limits: tuple[float, float] | None = None,
    ) -> None:
        view.ramp(colormap, 2)  # refuses an unknown one before anything runs
        self.engine, self.tasks = engine, tuple(tasks)
        self.blend, self.camera = 0.7, False
        self.experts: int | None = None
        self.colormap, self._fixed = colormap, depth_limits
        self._steady = {task: view.SteadyLimits() for task in self.tasks}
        self.limits: dict[str, tuple[float, float]] = {}
        self.milliseconds: deque[float] = deque(maxlen=1 << 16)
        self.ages: deque[float] = deque(maxlen=RECENT)
        self._times: deque[float] = deque(maxlen=1024)
        self.frames = 0
        self.output: Output | None = None  # of the last frame shown
        self.present: dict[str, list[int]] = {}
        self._resident: tuple[float, dict[str, Any]] = (-math.inf, {})
        self._costs: dict[str, dict[str, int]] = {}
        self._beside: dict[str, dict[str, int]] = {}
        self.select(self.tasks[0])

    def select(self, *tasks: str) -> None:
        """Make one or two tasks the active ones. Raises TaskError, BudgetError, BackendError; then nothing changed."""
        if not 1 <= len(tasks) <= MOST_TASKS or not set(tasks) <= set(self.tasks):
            raise TaskError(f"one or two of {', '.join(self.tasks)} can be shown, not {' and '.join(tasks) or 'none'}")
        if tasks != self.engine.active:
            self.engine.activate(*tasks)
            self.present, self.limits, self._resident = {}, {}, (-math.inf, {})
            others = [t for t in self.tasks if (t,) != self.engine.active]
            self._costs = {t: forecast(self.engine, [t])._asdict() for t in others}
            first, beside = tasks[0], [t for t in self.tasks if t not in tasks]
            self._beside = {t: forecast(self.engine, [first, t])._asdict() for t in beside}
            if len(tasks) > 1:
                self._beside[""] = forecast(self.engine, [first])._asdict()

    def apply(self, blend: float | None, experts: int | None) -> None:
        """Another blend, or another block of the expert map (negative: none); None leaves it. Raises TaskError."""
        if experts is not None and experts >= 0:
            blocks = self.engine.manifest.model.moe_blocks
            if self.no_experts or experts not in blocks:
                why = self.no_experts or f"blocks {', '.join(map(str, blocks))} have experts, not {experts}"
                raise TaskError(f"there is no map of the experts: {why}")
        self.blend = self.blend if blend is None else blend
        self.experts = self.experts if experts is None else experts if experts >= 0 else None

    @property
    def no_experts(self) -> str | None:
        """Why there is no expert map; None when there is one."""
        return expert_map.obstacle(self.engine)

    def show(self, frame: Frame) -> list[Tile]:
        """Run the active tasks on a frame and draw it."""
        began = time.perf_counter()
        maps: dict[str, expert_map.ExpertMap] = {}
        if self.experts is None:
            out = self.engine(frame.image, color="bgr")
        else:
            out, maps = expert_map.trace(self.engine, frame.image, color="bgr")
        self.output = out
        painted = {name: self._paint(name, result) for name, result in out.items()}
        self.milliseconds.append(1e3 * (time.perf_counter() - began))
        self._times.append(time.monotonic())
        self.frames += 1
        image = _shown(frame.image)
        tiles = [Tile("camera", image, image[:0])] if self.camera else []
        ground = self._ground(image)
        for name, paint in painted.items():
            result, task = _values(out[name]), out[name].task
            if present := kinds.find(task.kind).present(result):
                self.present[name] = present
            below = legend.strip(task, result, self.limits.get(name), self.colormap, image.shape[1], color="bgr")
            tiles.append(Tile(name, view.over(task, ground, paint, self.blend), below))
        tiles += [self._experts(ground, found) for found in maps.values()]
        if frame.taken:
            self.ages.append(1e3 * (time.monotonic() - frame.taken))
        return tiles

    def _ground(self, image: Image) -> Image:
        """The frame, the greyer the more of the map lies over it, so that its colours do not change the map's."""
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return np.asarray(cv2.addWeighted(image, 1 - self.blend, grey, self.blend, 0), np.uint8)

    def _paint(self, name: str, result: TaskOutput) -> Image:
        kind = kinds.find(result.task.kind)
        if kind.unit:
            fixed = self._fixed if kind.distance else None
            self.limits[name] = fixed or self._steady[name](result.map)
        how: dict[str, Any] = {"colormap": self.colormap, "limits": self.limits.get(name), "frame": result.frame}
        picture: Image = _shown(view.colour(result.task, _values(result), color="bgr", safe=True, **how))
        return picture

    def _experts(self, image: Image, found: expert_map.ExpertMap) -> Tile:
        """The choices in one block, over the frame; of a letterboxed input the part where the frame is."""
        config, place = self.engine.manifest.model, found.place
        ids = found.experts[found.blocks.index(self.experts or 0)]
        high, wide = image.shape[:2]
        up, over = high / place.height, wide / place.width
        whole = (round(config.image_size[0] * up), round(config.image_size[1] * over))
        top, left = round(place.top * up), round(place.left * over)
        paint = view.experts(ids, config.experts, whole, color="bgr")[top : top + high, left : left + wide]
        below = legend.experts(np.unique(ids).tolist(), config.experts, wide, color="bgr")
        title = f"{found.task}: experts of block {self.experts}"
        return Tile(title, view.overlay(image, view.fit(paint, (high, wide)), max(self.blend, 0.3)), below)

    def about(self) -> dict[str, Any]:
        """What does not change while it runs: tasks, what they show, their classes' names and colours or the unit of
        their scale, blocks with experts, colour map.
        """
        model = self.engine.manifest.model
        tasks = {}
        for task in map(model.task, self.tasks):
            kind = kinds.find(task.kind)
            names = list(class_names(task)) if kind.classes else []
            paint = class_colours(task, safe=True).tolist() if kind.classes else []
            words = {"shows": kind.shows, "words": kind.words, "unit": kind.unit}
            tasks[task.name] = {**words, "classes": names, "colours": paint}
        return {
            "bundle": self.engine.manifest.name,
            "trained_on": self.engine.manifest.origin,
            "backend": self.engine.backend,
            "tasks": tasks,
            "blocks": list(model.moe_blocks),
            "no_experts": self.no_experts,
            "expert_colours": colours(model.experts).tolist(),
            "paths": {name: [list(ids) for ids in model.path(name)] for name in self.tasks},
            "ramp": view.ramp(self.colormap, 16).tolist(),
        }

    def figures(self) -> dict[str, Any]:
        """What moves: rates and times (measured), weights in memory, the last switch, and what another would cost.

        costs: of showing that task alone. beside: of setting it beside the first one; "" is to leave the second.
        """
        recent = list(self.milliseconds)[-RECENT:]
        p50, p95 = np.percentile(recent, (50, 95)).tolist() if recent else (None, None)
        return {
            "active": list(self.engine.active),
            "blend": self.blend,
            "experts": self.experts,
            "frames": self.frames,
            "fps": self._rate(),
            "p50_ms": p50,
            "p95_ms": p95,
            "age_ms": float(np.median(self.ages)) if self.ages else None,
            "limits": {name: list(ends) for name, ends in self.limits.items()},
            "present": self.present,
            "weights": self._weights(),
            "switch": self.engine.switches[-1].as_dict(),
            "costs": self._costs,
            "beside": self._beside,
        }

    def _rate(self) -> float:
        """Frames per second over the last WINDOW seconds."""
        now = time.monotonic()
        while self._times and now - self._times[0] > WINDOW:
            self._times.popleft()
        return (len(self._times) - 1) / (now - self._times[0]) if len(self._times) > 1 else 0.0

    def _weights(self) -> dict[str, Any]:
        """Residency, measured at most once a second, for it reads a long file of the kernel's."""
        at, found = self._resident
        if time.monotonic() - at > 1:
            found = self.engine.residency().as_dict()
            self._resident = time.monotonic(), found
        return found


def _values(result: TaskOutput) -> Any:
    """A result as it is drawn: of a map no more than that shows."""
    return _shown(result.map) if result.form == "map" else result.map


def _shown(image: Any) -> Any:
    """A frame or map no wider than WIDEST."""
    high, wide = image.shape[:2]
    if wide <= WIDEST:
        return image
    return cv2.resize(image, (WIDEST, max(1, round(high * WIDEST / wide))), interpolation=cv2.INTER_NEAREST)


def compose(tiles: Sequence[Tile], *, titles: bool = True, strips: bool = True) -> Image:
    """Tiles in a row, or four in two rows, as one picture; with each one's title above it and its strip below it."""
    whole = [view.label(t.picture, t.title) if titles else t.picture for t in tiles]
    if strips:
        whole = [np.concatenate([w, t.strip]) for w, t in zip(whole, tiles, strict=True)]
    high = max(w.shape[0] for w in whole)
    even = [cv2.copyMakeBorder(w, 0, high - w.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(24,) * 3) for w in whole]
    if len(even) == 4:
        return np.concatenate([np.concatenate(even[:2], 1), np.concatenate(even[2:], 1)])
    return np.concatenate(even, 1)
