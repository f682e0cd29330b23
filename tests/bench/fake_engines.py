"""Engines whose latency is known, that stall, crash or answer wrongly; opened by name in real measuring processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MS = 4.0  # of a frame of `steady`
LATE_MS = 20.0  # of every tenth frame of `hiccup`

Load = Callable[[], Callable[[], Any]]


def _map() -> Any:
    return np.ones((1, 2, 3), np.float32)


def _wait(ms: float) -> None:
    end = time.perf_counter() + 1e-3 * ms
    while time.perf_counter() < end:
        pass


def steady(want: dict[str, Any], image: Any) -> Load:
    def call() -> Any:
        _wait(MS)
        return _map()

    return lambda: call


def double(want: dict[str, Any], image: Any) -> Load:
    def call() -> Any:
        _wait(2 * MS)
        return _map()

    return lambda: call


def hiccup(want: dict[str, Any], image: Any) -> Load:
    frames = iter(range(10**9))

    def call() -> Any:
        _wait(LATE_MS if next(frames) % 10 == 9 else MS)
        return _map()

    return lambda: call


def stalls(want: dict[str, Any], image: Any) -> Load:
    def call() -> Any:
        time.sleep(3600)

    return lambda: call


def crashes(want: dict[str, Any], image: Any) -> Load:
    def call() -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)

    return lambda: call


def refuses(want: dict[str, Any], image: Any) -> Load:
    raise RuntimeError("this machine has no such instruction")


def wrong(want: dict[str, Any], image: Any) -> Load:
    return lambda: lambda: 2 * _map()
