"""Which tasks of a bundle are active, and which are prepared: the weights of both come and go here."""

from __future__ import annotations

import difflib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, EdgeMTLError, TaskError
from edgemtl.runtime.backends.base import Backend, Store
from edgemtl.runtime.mapping import Segment, WeightMap, check_budget, segments, sizes
from edgemtl.runtime.residency import Residency, Share
from edgemtl.runtime.switches import Switch

KEPT_SWITCHES = 100  # records of the last ones; an engine that runs for months must not grow


class Selection:
    """The active and the prepared tasks of one engine, which calls it from one thread at a time.

    make: gives the backend, `runner`. budget: most bytes of weights that active and prepared tasks may map.
    `switches` has the last changes of the active tasks. `whole` is False while a step is under way, and stays so when
    an exception ends it that nobody could undo, such as Ctrl-C; `mend` then makes the backend anew.
    """

    def __init__(self, bundle: Bundle, make: Callable[[], Backend], budget: int | None) -> None:
        self.active: tuple[str, ...] = ()
        self.prepared: tuple[str, ...] = ()
        self.switches: deque[Switch] = deque(maxlen=KEPT_SWITCHES)
        self.whole = True
        self._bundle, self._make, self._budget = bundle, make, budget
        self._config = bundle.manifest.model
        self._seen: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        self.runner = self._make()
        self.weights: Store = self.runner.store or WeightMap(self._bundle)
        # Whether weights come and go with the tasks.
        self._follows = self.runner.maps or self.runner.store is not None

    @contextmanager
    def step(self, *, undoes: bool = False) -> Iterator[None]:
        """Around everything that the backend does; its own exceptions become BackendError.

        undoes: of edgemtl's errors it is known that they leave everything as it was.
        """
        self.whole = False
        try:
            yield
        except EdgeMTLError:
            self.whole = self.whole or undoes
            raise
        except Exception as e:
            first = next(iter(str(e).splitlines()), "")[:300]
            raise BackendError(f"backend {self.runner.name!r} failed: {type(e).__name__}: {first}") from e
        self.whole = True

    def mend(self) -> None:
        """Make backend and mappings anew for the active tasks, if a step was broken off; so also if this was."""
        if self.whole:
            return
        self._bundle.check_unchanged()
        with suppress(Exception):
            self.runner.close()
        self.weights.unmap(self.weights.held)
        self.prepared = ()
        self._begin()
        with self.step():
            added = self._map(self.active, list(self.active))
            if self.active and (not self.switches or set(self.switches[-1].after) != set(self.active)):
                self.switches.append(Switch((), self.active, "cold", added if self._follows else None))
            self._settle()

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
        self._bundle.check_unchanged()
        if set(wanted) == set(self.active):
            self.active = wanted
            return
        start, before, needed = time.perf_counter(), self.active, segments(self._config, wanted)
        check_budget(self._bundle, wanted, self._budget)
        new = [t for t in wanted if t not in before]
        with self.step():
            self.weights.settle(needed)
            try:
                added = self._map(wanted, new)
            except EdgeMTLError:
                self.whole = True  # it has undone its part
                raise
            for task in before:
                if task not in wanted:
                    self.runner.release(task)
            dropped = self.weights.held - needed
            dropped_bytes = self.size(dropped)
            self.weights.unmap(dropped)
            self.active, self.prepared = wanted, ()
            self._settle()
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
        self._bundle.check_unchanged()
        both, now = (*self.active, *new), segments(self._config, self.active)
        if new:
            who = [*(f"{t} (active)" for t in self.active), *(f"{t} (to be prepared)" for t in new)]
            check_budget(self._bundle, both, self._budget, who)
        wanted = segments(self._config, both)
        with self.step(undoes=True):
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
        note = f"backend {self.runner.name!r} keeps its own copies"
        return Residency("not measured", {g: Share(None, n) for g, n in needed.items()}, model, note=note)

    def close(self) -> None:
        """Let go of the backend and of all weights; once broken off, it can be called again."""
        self.active = self.prepared = ()
        self.runner.close()
        self.weights.unmap(self.weights.held)

    def _settle(self) -> None:
        if self.runner.device is not None:
            self.runner.device.settled(self.active)

    def _map(self, wanted: tuple[str, ...], new: list[str]) -> int:
        """Map and bind what `new` tasks need; returns the bytes newly mapped. Undoes all of it when it fails."""
        added = segments(self._config, wanted) - self.weights.held if self._follows else set()
        if added:
            self.weights.map(added)
        bound: list[str] = []
        try:
            for task in new:
                self.runner.bind(task, self.weights.get if self._follows else self._bundle.tensor)
                bound.append(task)
        except BaseException:
            for task in bound:
                self.runner.release(task)
            self.weights.unmap(added)
            raise
        return self.size(added)
