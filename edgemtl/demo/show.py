"""One run of the camera demo: frames in, the asked-for task's map out, tasks switched while it runs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import cv2

from edgemtl.demo.keys import WINDOW, Keys
from edgemtl.demo.report import Album
from edgemtl.demo.rerun_log import RerunLog
from edgemtl.errors import EdgeMTLError, FrameError
from edgemtl.media.feed import Feed, Frame
from edgemtl.media.sinks import Recorder
from edgemtl.media.stage import Stage, Tile, compose
from edgemtl.web.hub import Hub

FALLBACK_FPS = 15.0
PATIENCE = 0.1  # seconds to wait for a frame before looking at keys and commands again
JPEG_QUALITY = 80
ERROR_SECONDS = 6.0  # that a refusal stays on the page


class Show:
    """One run of the demo: where pictures go, and what keys, browsers and the clock ask for."""

    def __init__(
        self,
        stage: Stage,
        feed: Feed,
        *,
        cycle: float | None = None,
        window: bool = False,
        hub: Hub | None = None,
        recorder: Recorder | None = None,
        log: RerunLog | None = None,
        album: Album,
    ) -> None:
        self.stage, self.feed, self.cycle = stage, feed, cycle
        self.window, self.hub, self.recorder, self.log, self.album = window, hub, recorder, log, album
        self.watched = window or hub is not None
        self._error, self._error_until = "", 0.0
        self._told = "live"
        self._began = time.monotonic()

    def play(self, keys: Keys, limit: int | None) -> None:
        """Run until the source, the user or `limit` ends it. A page stays up when its source has ended."""
        last: Frame | None = None
        while limit is None or self.stage.frames < limit:
            key = keys.pressed()
            if key in ("q", "\x1b"):
                return
            changed = self.obey(key)
            frame = self.feed.take(PATIENCE)
            self.tell()
            if frame is None:
                if self.feed.ended and self.hub is None:
                    return
                if changed and last is not None:  # nothing new to see, but another way to see it
                    self.put(last._replace(taken=0.0))
                elif self.hub is not None:
                    self.hub.publish(None, self.figures())
                continue
            self.turn(frame)
            self.put(frame)
            last = frame

    def obey(self, key: str) -> bool:
        """Do what a key or the browsers ask for; True when something changed."""
        stage, before = self.stage, (self.stage.engine.active, self.stage.blend, self.stage.experts)
        with self.refusals():
            current = stage.tasks.index(stage.engine.active[0])
            following = stage.tasks[(current + 1) % len(stage.tasks)]
            if key.isdigit() and 1 <= int(key) <= len(stage.tasks):
                self.select(stage.tasks[int(key) - 1])
            elif key == "n":
                self.select(following)
            elif key == "s":
                pair = len(stage.engine.active) == 1 and len(stage.tasks) > 1
                self.select(*stage.engine.active[:1], *([following] if pair else []))
            elif key == "e" and not stage.no_experts:
                blocks = (None, *stage.engine.manifest.model.moe_blocks)
                stage.experts = blocks[(blocks.index(stage.experts) + 1) % len(blocks)]
        for command in self.hub.commands() if self.hub else ():
            with self.refusals():
                stage.apply(command.blend, command.experts)
                if command.tasks is not None:
                    self.select(*dict.fromkeys(command.tasks))
        return before != (stage.engine.active, stage.blend, stage.experts)

    def select(self, *tasks: str) -> None:
        """A choice made by hand also ends the cycling."""
        self.stage.select(*tasks)
        self.cycle = None

    def turn(self, frame: Frame) -> None:
        """Switch the task when its time on the cycle is over: the recording's own time, or the clock's."""
        if not self.cycle:
            return
        if self.watched or self.feed.live:
            clock = time.monotonic() - self._began
        else:
            clock = self.stage.frames / (self.feed.fps or FALLBACK_FPS)
        self.stage.select(self.stage.tasks[int(clock / self.cycle) % len(self.stage.tasks)])

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """An impossible wish is told, and the show goes on."""
        try:
            yield
        except EdgeMTLError as e:
            self._error, self._error_until = str(e), time.monotonic() + ERROR_SECONDS
            if self.hub is None:
                print(e, file=sys.stderr)

    def tell(self) -> None:
        """Say in the terminal when the source is lost and when it is back."""
        status = self.feed.status
        if status.state != self._told and status.state != "ended":
            self._told = status.state
            print(status.text or f"{self.feed.name} gives frames again", file=sys.stderr)

    def put(self, frame: Frame) -> None:
        """Run the engine on a frame and send the picture everywhere it goes."""
        tiles = self.stage.show(frame)
        self.album.note(self.stage, compose(tiles, titles=False, strips=False))
        if self.hub is not None:
            data = None
            if self.hub.watched:
                plain = compose(tiles, titles=len(tiles) > 1, strips=False)  # the page itself says what colours mean
                data = cv2.imencode(".jpg", plain, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1].tobytes()
            self.hub.publish(data, self.figures())
        if self.window or self.recorder is not None:
            self.draw(frame, tiles)
        if self.log is not None:
            with self.writing():
                self.log.put(frame, self.stage)

    def draw(self, frame: Frame, tiles: list[Tile]) -> None:
        picture = compose(tiles)
        if self.window:
            cv2.imshow(WINDOW, picture)
        if self.recorder is not None:
            batch = not (self.watched or self.feed.live)
            seconds = self.stage.frames / (self.feed.fps or FALLBACK_FPS) if batch else time.monotonic() - self._began
            with self.writing():
                self.recorder.put(picture, seconds)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """A full disk ends the recordings, not a show that somebody watches."""
        try:
            yield
        except FrameError as e:
            self.finish()
            if not self.watched:
                raise
            self._error, self._error_until = str(e), time.monotonic() + ERROR_SECONDS
            print(e, file=sys.stderr)

    def finish(self) -> None:
        """Finish the recordings."""
        recorder, log = self.recorder, self.log
        self.recorder = self.log = None
        if recorder is not None:
            recorder.close()
        if log is not None:
            log.close()

    def figures(self) -> dict[str, Any]:
        status = self.feed.status
        source = {"name": self.feed.name, "state": status.state, "text": status.text, "dropped": self.feed.dropped}
        error = self._error if time.monotonic() < self._error_until else ""
        return {**self.stage.figures(), "source": source, "error": error}
