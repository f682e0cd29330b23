"""The demo's frames, maps and figures as a recording for the Rerun viewer (https://rerun.io, `rerun FILE.rrd`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from edgemtl import tasks
from edgemtl.errors import EdgeMTLError
from edgemtl.media.feed import Frame
from edgemtl.media.palette import class_colours
from edgemtl.media.sinks import check_room
from edgemtl.media.stage import Stage


class RerunLog:
    """`with RerunLog(path) as log: log.put(frame, stage)` after each frame that the stage has shown."""

    def __init__(self, path: Path) -> None:
        if path.suffix != ".rrd" or not path.resolve().parent.is_dir():
            raise EdgeMTLError(f"--rerun writes a file like seen.rrd in a folder that exists, not {path}")
        if importlib.util.find_spec("rerun") is None:
            raise EdgeMTLError('--rerun needs rerun-sdk: pip install "edgemtl[rerun]"')
        import rerun

        self._rr: Any = rerun
        self._path = path
        self._stream: Any = rerun.RecordingStream("edgemtl camera")
        self._stream.save(str(path))
        self._named: set[str] = set()

    def put(self, frame: Frame, stage: Stage) -> None:
        """The frame, the maps of its tasks, and the figures. Raises FrameError when the disk is full."""
        check_room(self._path)
        rr, out = self._rr, stage.output
        assert out is not None  # the stage has shown this frame
        self._stream.set_time("frame", sequence=stage.frames)
        self._stream.log("camera", rr.Image(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB)).compress(jpeg_quality=85))
        for name, result in out.items():
            task, kind = result.task, tasks.find(result.task.kind)
            if kind.distance:
                self._stream.log(name, rr.DepthImage(result.map, meter=1.0))
            elif kind.classes and kind.form == "map":
                if name not in self._named:
                    self._named.add(name)
                    rows = zip(range(task.channels), task.classes, class_colours(task, safe=True), strict=False)
                    context = rr.AnnotationContext([(i, label, tuple(map(int, rgb))) for i, label, rgb in rows])
                    self._stream.log("/", context, static=True)
                self._stream.log(name, rr.SegmentationImage(result.map))
            else:
                self._stream.log(name, rr.Image(np.ascontiguousarray(result.colour()[..., ::-1])))
        figures = stage.figures()
        self._stream.log("figures/engine_and_colours_ms", rr.Scalars(stage.milliseconds[-1]))
        self._stream.log("figures/frames_per_second", rr.Scalars(figures["fps"]))
        if (resident := figures["weights"]["resident_bytes"]) is not None:
            self._stream.log("figures/weights_in_memory_bytes", rr.Scalars(resident))

    def __enter__(self) -> RerunLog:
        return self

    def close(self) -> None:
        """Write what waits; calling it again does nothing. Raises EdgeMTLError when that fails."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            stream.flush()
        except (RuntimeError, ValueError) as e:
            raise EdgeMTLError(f"{self._path} is not complete: {e}") from None
        finally:
            stream.disconnect()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
