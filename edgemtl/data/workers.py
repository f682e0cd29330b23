"""Processes that draw pictures side by side, one core each; one that is killed becomes a sentence."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from edgemtl.errors import DataError


@contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """So many fresh processes; what waits is cancelled at the end. Raises DataError where one was killed."""
    processes = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=one_thread)
    try:
        yield processes
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, most likely for want of memory; run the command again with fewer --workers"
        ) from error
    finally:
        processes.shutdown(wait=True, cancel_futures=True)


def one_thread() -> None:
    """Keep a process on one core: parallelism is over pictures. Ctrl-C is the parent's business."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
