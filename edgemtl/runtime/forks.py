"""os.fork while engines are at work: the fork waits for their calls, so that the child's copies are in one piece.

Without this a child that is made while another thread is in a call has a lock that nobody will release.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

WAIT_S = 10.0  # for a call to end; then the child's copy makes its backend anew


class Engine(Protocol):
    """What has a lock that calls hold."""

    lock: Any  # threading.RLock

    def forked(self, idle: bool) -> None: ...


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_one = threading.RLock()  # of several threads that fork, one at a time
_held: list[tuple[Engine, bool]] = []


def watch(engine: Engine) -> None:
    """Have `engine.forked` called in children."""
    _engines.add(engine)


def _before() -> None:
    _one.acquire()
    for engine in list(_engines):
        _held.append((engine, engine.lock.acquire(timeout=WAIT_S)))


def _in_parent() -> None:
    while _held:
        engine, locked = _held.pop()
        if locked:
            engine.lock.release()
    _one.release()


def _in_child() -> None:
    while _held:
        engine, locked = _held.pop()
        engine.forked(locked)
    _one.release()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
