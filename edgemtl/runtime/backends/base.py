"""What a backend is: seven methods, a table of what it can do, and how it says why it cannot run.

A backend is found through the entry-point group "edgemtl.backends"; another package can add one.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from edgemtl.bundle.manifest import Program
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError
from edgemtl.media.preprocess import Colour, Geometry
from edgemtl.runtime import cpu
from edgemtl.runtime.mapping import Segment
from edgemtl.runtime.residency import Residency

if TYPE_CHECKING:
    from edgemtl.fpga.counters import FrameCount
    from edgemtl.runtime.cuda.maps import DeviceMap
    from edgemtl.runtime.cuda.weights import Upload

Array = np.ndarray[Any, np.dtype[np.float32]]
Get = Callable[[str, str], Array]  # (part, tensor) -> packed weight
Tap = Callable[[np.ndarray[Any, np.dtype[np.int64]]], Any]  # room for routings; an empty one ends it


class Cell(NamedTuple):
    """One answer of the capability table, with its reason."""

    verdict: Literal["sparse-kept", "yes", "cannot"]
    note: str


FEATURES = ("sparse experts", "shared prefix", "mapped weights", "residency")


class Choice(NamedTuple):
    """The program of a bundle that a backend would run (None: it needs none), and why that one."""

    program: Program | None
    why: str


@dataclass
class Ran:
    """What a run gave: raw maps [channels, h, w] by task, and seconds by function ("prefix" and each task).

    Of an accelerator also its counters by task, and the bytes that the host wrote to it beside the frame's pixels. Of a
    frame that was prepared on the device its place in the input, and the seconds that this took.
    """

    maps: dict[str, Array]
    seconds: dict[str, float]
    counts: dict[str, FrameCount] = field(default_factory=dict)
    written: int | None = None
    place: Geometry | None = None
    prepared: float = 0


def no_program(backend: str, bundle: Bundle) -> BackendError:
    """The error of a backend for which `bundle` holds nothing."""
    held = ", ".join(sorted({f"{p.backend} ({p.target})" for p in bundle.manifest.programs}))
    return BackendError(
        f"the bundle holds no program for backend {backend!r} (it holds {held or 'no program at all'});"
        " see edgemtl compile --help"
    )


class Store(Protocol):
    """Where weights are kept that come and go with the active tasks: mappings, or a device's memory. `upload`: the last
    copy to a device that `map` began, if there is one. `prefault` begins to bring mapped segments into memory, in the
    background; `settle` waits for that, if all that it brings is wanted; `unmap` ends it.
    """

    @property
    def upload(self) -> Upload | None: ...

    @property
    def held(self) -> Set[Segment]: ...

    def map(self, wanted: Iterable[Segment]) -> None: ...

    def unmap(self, unwanted: Iterable[Segment]) -> None: ...

    def prefault(self, wanted: Iterable[Segment]) -> None: ...

    def settle(self, wanted: Set[Segment]) -> None: ...

    def get(self, part: str, tensor: str) -> Any: ...

    def residency(self, model: int) -> Residency: ...


class OnDevice(Protocol):
    """What a backend can do besides whose device has memory that other libraries use, too."""

    def settled(self, tasks: Sequence[str]) -> None:
        """`tasks` are the active ones now: what their first frame would have to make, can be made here."""

    def run_tensor(self, image: Any, tasks: Sequence[str], colour: Colour) -> Ran:
        """Like `Backend.run`, for a tensor on the device (it has `__dlpack__`): an input, float32 [1, 3, H, W], or a
        frame, uint8 [height, width, 3] in the order `colour`. Raises FrameError for anything else.
        """

    def leave(self, image: Any, tasks: Sequence[str], colour: Colour) -> dict[str, DeviceMap]:
        """The same for maps that stay on the device, and for an image that may also be what `Backend.run` takes.
        Returns when the image has been read, perhaps before the frame is over.
        """


class Backend(ABC):
    """Runs the programs of one bundle. The engine calls it from one thread at a time.

    `packages` must be importable for it to work; `extra` is the pip extra that brings them. With `maps`, `bind` gets
    views of mapped weights, of which `release` must leave none; otherwise the backend reads what it needs itself, or
    has a `store` of its own, which the engine fills and empties. `input`: the memory that it wants images in. An
    `exact` one computes in integers and gives the integer goldens of its program bit for bit. `runs`: the backend whose
    programs it runs, where that is another. `forks`: it goes on in a child that `os.fork` made between two calls.
    """

    name: ClassVar[str]
    runs: ClassVar[str] = ""
    exact: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    maps: ClassVar[bool] = False
    forks: bool = False
    store: Store | None = None
    input: Array | None = None
    CAPABILITIES: ClassVar[dict[str, Cell]]

    @abstractmethod
    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        """Make ready to bind tasks; raises BackendError when the program cannot be run here."""

    @classmethod
    def unusable(cls) -> str | None:
        """Why this machine cannot use the backend, with the command that helps; None when it can. Imports nothing."""
        missing = [p for p in cls.packages if importlib.util.find_spec(p) is None]
        if missing:
            return f'{" and ".join(missing)} is not installed: pip install "edgemtl[{cls.extra}]"'
        return None

    @classmethod
    def refuses(cls, program: Program) -> str | None:
        """Why one of its programs cannot run on this machine; None when it can."""
        return cpu.obstacle(program)

    @classmethod
    @abstractmethod
    def choose(cls, bundle: Bundle) -> Choice:
        """The program it would run; raises BackendError, saying what the bundle holds, when there is none."""

    @abstractmethod
    def bind(self, task: str, get: Get) -> None:
        """Make `task` ready to run; `get(part, tensor)` gives its weights. Raises BackendError or BundleError."""

    @property
    def device(self) -> OnDevice | None:
        """What takes images that lie on the backend's device, if it has one of its own."""
        return None

    @property
    def tap(self) -> Callable[[str], Tap | None] | None:
        """`tap(task)` is a function that makes the program of `task` copy its routings into an int64 array, as long as
        that has room; None when the program has none. The backend itself has None, where no program of it can tell.
        See `edgemtl.runtime.expert_map`.
        """
        return None

    @abstractmethod
    def release(self, task: str) -> None:
        """Let go of everything that only `task` needed; code may stay loaded."""

    @abstractmethod
    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        """Raw maps of bound tasks for image [1, 3, H, W], normalised.

        A map may lie in memory that the backend uses again once the array is gone: who keeps one, copies it.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; once more, of what was left when an exception ended it."""


def programs_of(backend: type[Backend], bundle: Bundle) -> list[Program]:
    """The bundle's programs that are for `backend`."""
    return [p for p in bundle.manifest.programs if p.backend == (backend.runs or backend.name)]
