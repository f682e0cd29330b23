"""What one frame gives: a map per active task at the frame's size, ways to look at it, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgemtl.config import TaskConfig
from edgemtl.errors import FrameError, TaskError
from edgemtl.fpga.counters import FrameCount
from edgemtl.media import view
from edgemtl.media.preprocess import Array, Colour, Image
from edgemtl.runtime.postprocess import Map


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one frame; `run` has the shared "prefix" (where the backend has one) and each task.

    counts: an accelerator's own counters by task (calls, cycles and DDR bytes of each unit); else empty.
    """

    preprocess: float
    run: dict[str, float]
    postprocess: float
    counts: dict[str, FrameCount] = field(default_factory=dict)

    @property
    def total(self) -> float:
        return self.preprocess + sum(self.run.values()) + self.postprocess


@dataclass(frozen=True)
class TaskOutput:
    """One task's result for one frame.

    map: depth float32 [H, W] metres; semseg uint8 [H, W] class ids; normals float32 [H, W, 3] unit vectors; edge
    and saliency float32 [H, W] probability; H, W are the frame's. raw: the network's own map, float32 [channels, h, w].
    """

    task: TaskConfig
    map: Map
    raw: Array = field(repr=False)
    color: Colour = "rgb"

    def colour(self, *, colormap: str = "viridis", limits: tuple[float, float] | None = None) -> Image:
        """The map as a picture, uint8 [H, W, 3], in the colour order of the frame. See `edgemtl.media.view.colour`."""
        return view.colour(self.task, self.map, color=self.color, colormap=colormap, limits=limits)

    def overlay(
        self,
        frame: Image,
        *,
        alpha: float = 0.55,
        colormap: str = "viridis",
        limits: tuple[float, float] | None = None,
    ) -> Image:
        """The coloured map over `frame`, uint8 [H, W, 3]; edges are painted on it instead.

        Raises FrameError when the frame has another size than the map.
        """
        if self.task.kind != "edge":
            return view.overlay(frame, self.colour(colormap=colormap, limits=limits), alpha)
        if frame.shape[:2] != self.map.shape:
            raise FrameError(f"a map of shape {self.map.shape} cannot lie over a frame of shape {frame.shape[:2]}")
        paint = np.array((255, 224, 0) if self.color == "rgb" else (0, 224, 255), np.float32)
        mixed = frame + self.map[..., None] * (paint - frame)
        painted: Image = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
        return painted


class Output(Mapping[str, TaskOutput]):
    """{task: TaskOutput} of one frame, and its `timing`."""

    def __init__(self, tasks: dict[str, TaskOutput], timing: Timing) -> None:
        self._tasks, self.timing = tasks, timing

    def __getitem__(self, task: str) -> TaskOutput:
        if task not in self._tasks:
            raise TaskError(f"{task!r} was not active for this frame; active: {', '.join(self._tasks)}")
        return self._tasks[task]

    def __contains__(self, task: object) -> bool:
        return task in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Output of {', '.join(self._tasks)} in {self.timing.total:.1f} ms>"
