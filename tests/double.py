"""A backend that maps weights like a real one and computes nothing much: for what an engine promises with every one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.runtime.backends.base import Backend, Choice, Get, Ran


class Double(Backend):
    """Maps weights like a real one, keeps views of them, and computes nothing much."""

    name = "double"
    maps = True
    forks = True
    CAPABILITIES: dict[str, Any] = {}  # noqa: RUF012
    fail_on: str | None = None

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        self.config, self.log = bundle.manifest.model, []
        self.views: dict[str, list[Any]] = {}
        self.inputs: list[Any] = []

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        return Choice(None, "a double")

    def bind(self, task: str, get: Get) -> None:
        if task == self.fail_on:
            held = get("trunk", "cls_token")
            raise BackendError(f"no {task} today, {held.size}")
        self.log.append(f"+{task}")
        self.views[task] = [get("trunk", "cls_token"), get(f"task.{task}", "head.out")]

    def release(self, task: str) -> None:
        self.log.append(f"-{task}")
        del self.views[task]

    def run(self, image: Any, tasks: Sequence[str]) -> Ran:
        self.inputs.append(image.copy())
        maps = {}
        for t in tasks:
            shape = (self.config.task(t).channels, *self.config.map_size)
            maps[t] = np.full(shape, self.views[t][0].sum(), np.float32)
        return Ran(maps, dict.fromkeys(tasks, 0.001))

    def close(self) -> None:
        self.views.clear()
