"""Frames without waiting: policies, pace, and sources that stall, vanish and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from mjpeg_stream import Stream

from edgemtl.errors import FrameError
from edgemtl.media import feed as module
from edgemtl.media.feed import Feed, Frame, Source
from edgemtl.media.sources import open_feed, open_source

GREY = np.full((12, 16, 3), 90, np.uint8)


class Script(Source):
    """A source that gives `frames`, then does `after`; it gives frame n only when `gate` lets it."""

    def __init__(self, frames: int, after: Callable[[], None] = lambda: None, kind: str = "camera") -> None:
        super().__init__("camera 9", kind, count=0 if kind == "camera" else frames, fps=50.0)
        self.frames, self.after, self.closed = frames, after, 0
        self.gate = threading.Semaphore(1 << 20)

    def __iter__(self) -> Iterator[Frame]:
        for i in range(self.frames):
            self.gate.acquire()
            yield Frame(np.full_like(GREY, i), i / 50, str(i))
        self.after()

    def close(self) -> None:
        self.closed += 1


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class TestPolicies:
    def test_newest_replaces_and_counts(self) -> None:
        source = Script(10)
        with Feed(lambda: source) as feed:
            until(lambda: feed.received == 10)
            frame = feed.take(1)
            assert frame is not None
            assert (frame.name, feed.dropped) == ("9", 9)
            assert feed.take(0.01) is None

    def test_all_keeps_order_and_makes_the_reader_wait(self) -> None:
        with Feed(lambda: Script(module.QUEUE + 5), policy="all") as feed:
            until(lambda: feed.received == module.QUEUE)
            time.sleep(0.02)
            assert feed.received == module.QUEUE, "no more fit"
            names = [frame.name for frame in feed]
        assert names == [str(i) for i in range(module.QUEUE + 5)]
        assert feed.dropped == 0

    def test_a_frame_is_stamped_once(self) -> None:
        before = time.monotonic()
        with Feed(lambda: Script(1)) as feed:
            frame = feed.take(5)
        assert frame is not None
        assert before <= frame.taken <= time.monotonic()

    def test_taking_never_waits_longer_than_asked(self) -> None:
        source = Script(3)
        source.gate = threading.Semaphore(0)
        with Feed(lambda: source) as feed:
            began = time.monotonic()
            assert feed.take(0.02) is None
            assert time.monotonic() - began < 2
            source.gate.release(9)


class TestRecordings:
    def test_paced(self) -> None:
        began = time.monotonic()
        with Feed(lambda: Script(6, kind="video"), policy="all", paced=True) as feed:
            assert len(list(feed)) == 6
        assert time.monotonic() - began >= 0.1, "six frames at fifty a second"

    @pytest.mark.parametrize("times", [[0, 0.01, 3600, 3600.01], [0, 0, 0, 0], [0, 5, 1, float("nan")]])
    def test_no_time_in_a_file_is_waited_for_long(self, monkeypatch: pytest.MonkeyPatch, times: list[float]) -> None:
        """A jump, no times, times that go back: each frame comes, after a pause that is bounded and not nothing."""
        monkeypatch.setattr(module, "LONGEST_STEP", 0.05)

        class Jumps(Script):
            def __iter__(self) -> Iterator[Frame]:
                for i, at in enumerate(times):
                    yield Frame(GREY, at, str(i))

        began = time.monotonic()
        with Feed(lambda: Jumps(4, kind="video"), policy="all", paced=True) as feed:
            assert [frame.name for frame in feed] == ["0", "1", "2", "3"]
        assert time.monotonic() - began >= 0.03

    @pytest.mark.parametrize("fps", [90_000.0, -1.0, float("nan"), float("inf")])
    def test_a_rate_that_cannot_be_is_not_believed(self, fps: float) -> None:
        assert Source("v", "video", fps=fps).fps == 0

    def test_the_status_says_what_is_waited_for(self) -> None:
        class Slow(Script):
            def __iter__(self) -> Iterator[Frame]:
                yield Frame(GREY, 0.0, "0")
                yield Frame(GREY, 1e6, "1")

        with Feed(lambda: Slow(2, kind="video"), paced=True) as feed:
            assert feed.take(5) is not None
            until(lambda: "the next frame of camera 9 is due in" in feed.status.text)
            assert feed.status.state == "live"

    def test_looping(self) -> None:
        opened: list[Script] = []

        def again() -> Source:
            opened.append(Script(3, kind="video"))
            return opened[-1]

        with Feed(again, policy="all", loop=True) as feed:
            names = [frame.name for frame, _ in zip(feed, range(7), strict=False)]
            assert feed.count == 0, "nobody knows how many"
        assert names == ["0", "1", "2", "0", "1", "2", "0"]
        assert all(s.closed for s in opened[:2])

    def test_an_empty_one_does_not_loop_for_ever(self) -> None:
        with Feed(lambda: Script(0, kind="video"), loop=True) as feed:
            until(lambda: feed.ended)
            assert feed.status.state == "ended"


class TestLoss:
    def test_opening_what_is_not_there_fails_at_once(self) -> None:
        def missing() -> Source:
            raise FrameError("camera 9 cannot be opened")

        with pytest.raises(FrameError, match="camera 9 cannot"):
            Feed(missing, reconnect=True)

    @pytest.mark.parametrize("error", [FrameError("unplugged"), RuntimeError("a driver's bug")])
    def test_it_comes_back(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        """The second and third attempts fail; the fourth gives frames again, and waiting grew in between."""
        monkeypatch.setattr(module, "FIRST_WAIT", 0.02)
        times: list[float] = []

        def fail() -> None:
            raise error

        def camera() -> Source:
            times.append(time.monotonic())
            if len(times) in (2, 3):
                raise FrameError("camera 9 cannot be opened")
            return Script(2, fail)

        with Feed(camera, policy="all", reconnect=True) as feed:
            names = [frame.name for frame, _ in zip(feed, range(4), strict=False)]
        assert names == ["0", "1", "0", "1"]
        waits = np.diff(times[:4])
        assert waits[0] >= 0.02
        assert waits[1] >= 0.02
        assert waits[2] >= 0.04, "the wait doubles"

    def test_it_says_what_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FIRST_WAIT", 30.0)
        with Feed(lambda: Script(1), reconnect=True) as feed:
            until(lambda: feed.status.state == "lost")
            assert feed.status.text.startswith("camera 9 has stopped giving frames; trying again in ")
            assert feed.take(0.01) is not None, "what came before is still given"
            assert not feed.ended
            began = time.monotonic()
        assert time.monotonic() - began < 5, "closing does not wait for the next attempt"

    def test_a_driver_that_hangs_holds_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "QUIET_SECONDS", 0.01)
        hang = threading.Event()
        feed = Feed(lambda: Script(1, lambda: bool(hang.wait(60)) and None), reconnect=True)
        assert feed.take(5) is not None
        until(lambda: feed.status.state == "stalled")
        assert "gave no frame for" in feed.status.text
        began = time.monotonic()
        feed.close()
        assert time.monotonic() - began < 5
        hang.set()

    def test_iterating_a_stalled_one_ends_in_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "STALL_SECONDS", 0.01)
        source = Script(2)
        source.gate = threading.Semaphore(0)
        with Feed(lambda: source) as feed:
            with pytest.raises(FrameError, match="camera 9 gave no frame for"):
                next(iter(feed))
            source.gate.release(9)

    def test_iterating_one_that_gives_nothing(self) -> None:
        def fail() -> None:
            raise FrameError("camera 9 was opened but gave no frame")

        with Feed(lambda: Script(0, fail)) as feed, pytest.raises(FrameError, match="opened but gave no frame"):
            next(iter(feed))


class TestStream:
    """A real stream through OpenCV's own reader."""

    def test_killed_and_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "FIRST_WAIT", 0.05)
        with Stream() as stream, open_feed(stream.url) as feed:
            assert feed.live
            frame = feed.take(10)
            assert frame is not None
            assert frame.image.shape == (48, 64, 3)
            stream.kill()
            until(lambda: feed.status.state == "lost")
            assert "127.0.0.1" in feed.status.text
            while feed.take(0.01) is not None:
                pass
            stream.start()
            again = feed.take(20)
            assert again is not None
            assert again.taken > frame.taken
            assert feed.status.state == "live"

    def test_a_cut_frame_does_not_end_it(self) -> None:
        with Stream(cut=(5, 9, 10)) as stream, open_feed(stream.url, "all") as feed:
            for _ in range(20):
                assert feed.take(10) is not None
            assert feed.status.state == "live"
            assert feed.left_out.count == 3
            assert "cannot be decoded" in feed.left_out.lines()[0]

    def test_the_newest_only_and_then_the_end(self) -> None:
        with Stream() as stream, open_source(stream.url) as source:
            assert isinstance(source, Feed)
            until(lambda: source.received > 5)
            assert source.dropped >= 4
            stream.kill()
            assert len(list(source)) <= 2, "what waited, and what was on its way"
