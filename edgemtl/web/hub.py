"""Between the thread that makes pictures and the browsers that look at them; it knows nothing of the network.

The newest picture and figures wait here, older ones are forgotten: a slow browser sees fewer pictures, not older ones,
and never slows the others down. Commands go the other way and wait in order.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import Field

from edgemtl.config import Strict, TaskName

COMMANDS = 64  # waiting; more than that from browsers is refused


class Command(Strict):
    """What a browser may ask for; what is left out stays as it is.

    tasks: one to show, or two side by side. blend: 0 camera to 1 map. experts: the expert map's block, -1 for none.
    """

    tasks: tuple[TaskName, ...] | None = Field(None, min_length=1, max_length=2)
    blend: float | None = Field(None, ge=0, le=1)
    experts: int | None = Field(None, ge=-1, le=4096)


class News(NamedTuple):
    """number: counts publications. picture: JPEG, None before the first. figures: plain data."""

    number: int
    picture: bytes | None
    figures: dict[str, Any]


class Hub:
    """`publish` and `commands` are for the thread that makes pictures; the rest is for the server's thread."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.news = News(0, None, {})
        self._lock = threading.Lock()
        self._listeners: set[Callable[[], None]] = set()
        self._commands: queue.Queue[Command] = queue.Queue(COMMANDS)

    @property
    def watched(self) -> bool:
        """Whether anybody looks: without, there is no need to encode pictures."""
        return bool(self._listeners)

    @property
    def watchers(self) -> int:
        """Browsers connected now."""
        return len(self._listeners)

    def publish(self, picture: bytes | None, figures: dict[str, Any]) -> None:
        """The newest picture (None: the last one stays) and figures, for everybody."""
        with self._lock:
            self.news = News(self.news.number + 1, picture or self.news.picture, figures)
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def commands(self) -> list[Command]:
        """What browsers asked for since the last call, in order."""
        out = []
        while not self._commands.empty():
            out.append(self._commands.get_nowait())
        return out

    def ask(self, command: Command) -> bool:
        """Leave a command; False when too many wait."""
        try:
            self._commands.put_nowait(command)
        except queue.Full:
            return False
        return True

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, from the publishing thread, after each publication."""
        with self._lock:
            self._listeners.add(listener)

    def leave(self, listener: Callable[[], None]) -> None:
        """Undo `listen`."""
        with self._lock:
            self._listeners.discard(listener)
