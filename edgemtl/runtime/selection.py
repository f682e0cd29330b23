"""Which tasks of a bundle are active, and which are prepared: the weights of both come and go here."""

from __future__ import annotations

import difflib
import time
from collections import deque
from collections.abc import Iterable

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import TaskError
from edgemtl.runtime.backends.base import Backend, Store
from edgemtl.runtime.mapping import Segment, WeightMap, check_budget, segments, sizes
from edgemtl.runtime.residency import Residency, Share
from edgemtl.runtime.switches import Switch

KEPT_SWITCHES = 100  # records of the last ones; an engine that runs for months must not grow


class Selection:
    """The active and the prepared tasks of one engine, which calls it from one thread at a time.

    budget: most bytes of weights that both together may map. `switches` has the last changes of the active tasks.
    """

    def __init__(self, bundle: Bundle, runner: Backend, budget: int | None) -> None:
        self.active: tuple[str, ...] = ()
        self.prepared: tuple[str, ...] = ()
        self.switches: deque[Switch] = deque(maxlen=KEPT_SWITCHES)
        self.weights: Store = runner.store or WeightMap(bundle)
        self._bundle, self._runner, self._budget = bundle, runner, budget
        self._config = bundle.manifest.model
        self._follows = runner.maps or runner.store is not None  # whether weights come and go with the tasks
        self._seen: set[str] = set()

    def known(self, tasks: Iterable[str]) -> tuple[str, ...]:
        """Each task once. Raises TaskError, with the nearest spelling, for one that the bundle does not have."""
        names = self._config.task_names
        for task in tasks:
            if task not in names:
                near = difflib.get_close_matches(str(task), names, 1, 0.5)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise TaskError(f"the bundle has no task {task!r}{hint}; it has {', '.join(names)}")
        return tuple(dict.fromkeys(tasks))

    def activate(self, tasks: tuple[str, ...]) -> None:
        """See `Engine.activate`."""
        wanted = self.known(tasks)
        if not wanted:
            raise TaskError(f"activate needs a task: {', '.join(self._config.task_names)}")
        if set(wanted) == set(self.active):
            self.active = wanted
            return
        start, before, needed = time.perf_counter(), self.active, segments(self._config, wanted)
        check_budget(self._bundle, wanted, self._budget)
        new = [t for t in wanted if t not in before]
        self.weights.settle(needed)
        added = self._map(wanted, new)
        for task in before:
            if task not in wanted:
                self._runner.release(task)
        dropped = self.weights.held - needed
        dropped_bytes = self.size(dropped)
        self.weights.unmap(dropped)
        self.active, self.prepared = wanted, ()
        if self._runner.device is not None:
            self._runner.device.settled(wanted)
        switch = Switch(before, wanted, "warm" if self._seen.issuperset(new) else "cold")
        if self._follows:
            switch.mapped, switch.dropped = added, dropped_bytes
            switch.upload = self.weights.upload if added else None
        self._seen.update(new)
        self.switches.append(switch)
        switch.seconds = time.perf_counter() - start

    def prepare(self, tasks: tuple[str, ...]) -> None:
        """See `Engine.prepare`."""
        new = tuple(t for t in self.known(tasks) if t not in self.active)
        if not self._follows or (new and new == self.prepared):
            return
        both, now = (*self.active, *new), segments(self._config, self.active)
        if new:
            who = [*(f"{t} (active)" for t in self.active), *(f"{t} (to be prepared)" for t in new)]
            check_budget(self._bundle, both, self._budget, who)
        wanted = segments(self._config, both)
        self.prepared = ()
        self.weights.unmap(self.weights.held - wanted)
        try:
            self.weights.map(wanted - self.weights.held)
            self.weights.prefault(wanted - now)
        except BaseException:
            self.weights.unmap(self.weights.held - now)
            raise
        self.prepared = new

    def size(self, wanted: Iterable[Segment]) -> int:
        """Bytes of these segments of the bundle's weights."""
        return sum(sizes(self._bundle, wanted).values())

    def residency(self) -> Residency:
        """See `Engine.residency`."""
        model = sum(p.size for part in self._bundle.parts.values() for p in part.values())
        if self._follows:
            return self.weights.residency(model)
        needed = sizes(self._bundle, segments(self._config, self.active))
        note = f"backend {self._runner.name!r} keeps its own copies"
        return Residency("not measured", {g: Share(None, n) for g, n in needed.items()}, model, note=note)

    def close(self) -> None:
        """Let go of the backend and of all weights."""
        self.active = self.prepared = ()
        self._runner.close()
        self.weights.unmap(self.weights.held)

    def _map(self, wanted: tuple[str, ...], new: list[str]) -> int:
        """Map and bind what `new` tasks need; returns the bytes newly mapped. Undoes all of it when it fails."""
        added = segments(self._config, wanted) - self.weights.held if self._follows else set()
        if added:
            self.weights.map(added)
        bound: list[str] = []
        try:
            for task in new:
                self._runner.bind(task, self.weights.get if self._follows else self._bundle.tensor)
                bound.append(task)
        except BaseException:
            for task in bound:
                self._runner.release(task)
            self.weights.unmap(added)
            raise
        return self.size(added)
