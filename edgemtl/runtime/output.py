"""What one frame gives: a map per active task at the frame's size, ways to look at it, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.errors import TaskError
from edgemtl.media import view
from edgemtl.media.preprocess import Array, Colour, Image
from edgemtl.tasks import Array as Map
from edgemtl.tasks import Form

if TYPE_CHECKING:
    from edgemtl.fpga.counters import FrameCount


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
    """One task's result for one frame, which has the size (H, W) `frame`.

    map: the result in the `form` of its kind (`edgemtl.tasks`), a dense map for all of today's: depth float32 [H, W]
    metres; semseg uint8 [H, W] class ids; normals float32 [H, W, 3] unit vectors; edge and saliency float32 [H, W]
    probability. raw: the network's own map, float32 [channels, h, w].
    """

    task: TaskConfig
    map: Map
    raw: Array = field(repr=False)
    color: Colour = "rgb"
    frame: tuple[int, int] | None = None  # None: the map's

    @property
    def form(self) -> Form:
        """ "map", "boxes" or "points"."""
        return tasks.find(self.task.kind).form

    def colour(self, *, colormap: str = "viridis", limits: tuple[float, float] | None = None) -> Image:
        """A picture, uint8 [H, W, 3], in the colour order of the frame. See `edgemtl.media.view.colour`."""
        return view.colour(self.task, self.map, color=self.color, colormap=colormap, limits=limits, frame=self.frame)

    def overlay(
        self,
        frame: Image,
        *,
        alpha: float = 0.55,
        colormap: str = "viridis",
        limits: tuple[float, float] | None = None,
    ) -> Image:
        """The coloured map over `frame`, uint8 [H, W, 3]; edges, boxes and points are painted on it instead.

        Raises FrameError when the frame has another size than the map.
        """
        if (ink := tasks.find(self.task.kind).ink) is not None:
            return view.painted(frame, self.map, ink if self.color == "rgb" else ink[::-1])
        return view.over(self.task, frame, self.colour(colormap=colormap, limits=limits), alpha)


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
