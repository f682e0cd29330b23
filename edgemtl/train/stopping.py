"""SIGINT and SIGTERM as a request that a loop looks at between its steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """The first SIGINT or SIGTERM sets `stop`, the second acts as usual. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, old[signal.Signals(number)])

    for s in old:
        signal.signal(s, ask)
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
