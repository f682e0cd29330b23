"""Frames without waiting: a thread reads a source, and whoever shows its frames never stands still for it.

    with Feed(lambda: open_device("rtsp://192.168.0.7/stream"), reconnect=True) as feed:
        frame = feed.take(0.2)                 # None: nothing new; feed.status says why
        show(frame, age=time.monotonic() - frame.taken)

What happens to frames that come faster than they are taken is the policy. "newest": only the newest waits, the ones it
replaces are counted in `dropped`; the picture shows the present. "all": up to QUEUE frames wait in order and then the
reader waits too, so that none is lost here; a camera's driver or a stream's sender may then drop some, uncounted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from edgemtl.errors import FrameError
from edgemtl.media.names import without_secrets
from edgemtl.media.preprocess import Image

Policy = Literal["newest", "all"]
State = Literal["live", "stalled", "lost", "ended"]

QUEUE = 8
STALL_SECONDS = 10.0  # without a frame, an iteration gives up
MOST_NAMED = 100  # skipped files or frames whose reasons are kept
LONGEST_STEP = 2.0  # seconds between two frames of a recording; a longer one is a jump of its clock, or dull to watch
MOST_FPS = 1000.0  # frames per second; what states more, states a clock's rate
USUAL_FPS = 25.0  # of a recording that states no rate
QUIET_SECONDS = 2.0  # without a frame, the status says so
FIRST_WAIT, LAST_WAIT = 0.5, 15.0  # seconds between attempts to open a lost source again; each wait doubles


class Frame(NamedTuple):
    """image: uint8 BGR [H, W, 3]. time: seconds; of a recording from its start, of a live source as `taken`. name: of
    the file, or the frame's number. taken: `time.monotonic()` when the frame was taken, or read from a file.
    """

    image: Image
    time: float
    name: str
    taken: float = 0.0


class LeftOut:
    """What a source could not give: its `count` and the first MOST_NAMED {name: reason}; naming one twice is free."""

    def __init__(self) -> None:
        self.count = self._more = 0
        self.named: dict[str, str] = {}

    def add(self, name: str, reason: str, count: int = 1) -> None:
        """One more file or frame that was skipped, or `count` of them, and why."""
        if name in self.named:
            return
        self.count += count
        if len(self.named) < MOST_NAMED:
            self.named[name] = reason
        else:
            self._more += count

    def lines(self) -> list[str]:
        """A sentence for each that is named, and how many more there are."""
        return [*self.named.values(), *([f"and {self._more} more"] if self._more else [])]


class Source:
    """An iterator over frames that closes what it opened; `count` and `fps` are 0 where unknown.

    left_out: what was skipped because it cannot be read; complete when the iteration has ended. path: the file or
    folder, where it is one. names: of the frames, where they are known before.
    """

    def __init__(self, name: str, kind: str, *, count: int = 0, fps: float = 0.0) -> None:
        self.name, self.kind, self.count = name, kind, count
        self.fps = fps if 0 < fps < MOST_FPS else 0.0
        self.live = kind in ("camera", "stream")
        self.dropped = 0
        self.left_out = LeftOut()
        self.path: Path | None = None
        self.names: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop reading; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Status(NamedTuple):
    """live: frames come. stalled: none for a while. lost: closed, an attempt to open it again follows. ended: no more.

    `text` is a sentence for people, empty while all is well.
    """

    state: State
    text: str


class Feed(Source):
    """Reads what `opener` opens in a thread. The first opening happens here and raises FrameError.

    reconnect: open again when it ends or fails, waiting FIRST_WAIT seconds and then ever longer, up to LAST_WAIT.
    paced: give a recording's frames at their times instead of at once. loop: begin a recording again at its end.
    """

    def __init__(
        self,
        opener: Callable[[], Source],
        *,
        policy: Policy = "newest",
        reconnect: bool = False,
        paced: bool = False,
        loop: bool = False,
    ) -> None:
        first = opener()
        super().__init__(first.name, first.kind, count=0 if loop else first.count, fps=first.fps)
        self.left_out = first.left_out
        self.received = 0
        self._opener, self._reconnect, self._paced, self._loop = opener, reconnect, paced, loop
        self._room = 1 if policy == "newest" else QUEUE
        self._drops = policy == "newest"
        self._news = threading.Condition()
        self._waiting: deque[Frame] = deque()
        self._state: State = "live"
        self._reason = ""
        self._retry = self._due = 0.0
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(first,), name=f"edgemtl {self.kind}", daemon=True)
        self._thread.start()

    def take(self, seconds: float) -> Frame | None:
        """The next frame by the policy; None when there is none within `seconds`, or none will come any more."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._state == "ended", seconds)
            if not self._waiting:
                return None
            frame = self._waiting.popleft()
            self._news.notify_all()
            return frame

    @property
    def ended(self) -> bool:
        """No frame will come any more, and none waits."""
        with self._news:
            return self._state == "ended" and not self._waiting

    @property
    def status(self) -> Status:
        """How the source is now."""
        with self._news:
            quiet = time.monotonic() - self._last
            if self._state == "lost":
                left = max(0.0, self._retry - time.monotonic())
                soon = f"trying again in {left:.0f} s" if left > 0.5 else "trying again"
                return Status("lost", f"{self._reason}; {soon}")
            if self._state == "ended":
                return Status("ended", self._reason or f"{self.name} has ended")
            if quiet > QUIET_SECONDS and self.live and not self._waiting:
                return Status("stalled", f"{self.name} gave no frame for {quiet:.0f} s")
            left = self._due - time.monotonic()
            if left > QUIET_SECONDS / 2 and not self._waiting:
                return Status("live", f"the next frame of {self.name} is due in {left:.1f} s")
            return Status("live", "")

    def __iter__(self) -> Iterator[Frame]:
        """Every frame that `take` gives until the end; raises FrameError when it stalls or gave none at all."""
        given = 0
        while not self._stop.is_set():
            frame = self.take(STALL_SECONDS)
            if frame is not None:
                given += 1
                yield frame
            elif not self.ended:
                if not self._stop.is_set():
                    raise FrameError(f"{self.name} gave no frame for {STALL_SECONDS:.0f} s")
            elif given or self._stop.is_set():
                return
            else:
                raise FrameError(self._reason or f"{self.name} was opened but gave no frame")

    def close(self) -> None:
        """Stop the thread. One that hangs in a driver is left behind; it does not keep the process alive."""
        self._stop.set()
        with self._news:
            self._news.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(1.0)

    def _run(self, source: Source | None) -> None:
        wait = FIRST_WAIT
        while not self._stop.is_set():
            before, reason = self.received, f"{self.name} has ended"
            try:
                if source is None:
                    source = self._opener()
                    if not self._loop:  # each round of a loop would count the same again
                        source.left_out = self.left_out
                self._read(source)
            except Exception as e:  # whatever a driver or decoder throws: this thread must not die unheard
                reason = (
                    str(e)
                    if isinstance(e, FrameError)
                    else f"{self.name}: {type(e).__name__}: {without_secrets(str(e))}"
                )
            if source is not None:
                source.close()
                source = None
            gave = self.received > before
            if self._loop and gave:
                continue
            if not self._reconnect or self._stop.is_set():
                self._become("ended", reason if not gave else "")
                return
            wait = FIRST_WAIT if gave else wait
            self._become("lost", reason if not gave else f"{self.name} has stopped giving frames", wait)
            self._stop.wait(wait)
            wait = min(2 * wait, LAST_WAIT)
        self._become("ended")

    def _read(self, source: Source) -> None:
        last, due = None, time.monotonic()
        for frame in source:
            if self._paced:
                due += 0.0 if last is None else self._step(frame.time - last)
                last = frame.time
                self._due = due = max(due, time.monotonic() - LONGEST_STEP)  # what is late is made up for, but not all
                if self._stop.wait(max(0.0, due - time.monotonic())):
                    return
            if not self._put(frame if frame.taken else frame._replace(taken=time.monotonic())):
                return

    def _step(self, seconds: float) -> float:
        """How long a frame is shown, by its file's times where they can be meant: never longer than LONGEST_STEP."""
        if not seconds > 0:  # no times, times that go back, or NaN
            return min(1 / (self.fps or USUAL_FPS), LONGEST_STEP)
        return min(seconds, LONGEST_STEP)

    def _put(self, frame: Frame) -> bool:
        with self._news:
            if not self._drops:
                self._news.wait_for(lambda: len(self._waiting) < self._room or self._stop.is_set())
            if self._stop.is_set():
                return False
            if len(self._waiting) == self._room:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(frame)
            self.received += 1
            self._last = time.monotonic()
            self._state, self._reason = "live", ""
            self._news.notify_all()
        return True

    def _become(self, state: State, reason: str = "", wait: float = 0.0) -> None:
        with self._news:
            self._state, self._reason, self._retry = state, reason, time.monotonic() + wait
            self._news.notify_all()
