"""Mapped weights read into memory ahead of time, by a thread: `WeightMap.prefault`.

The thread copies every page to a scrap of memory. Then each is in the process's page table, whatever the kernel, and
Python's lock is free meanwhile. It knows addresses and holds no view, so that the mappings can be closed once it has
stopped; also in a child process, which has the object but not the thread.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

CHUNK = 1 << 18  # bytes between two looks whether to stop


def address(mapped: mmap.mmap) -> int:
    """Of its first byte."""
    return np.frombuffer(mapped, np.uint8).ctypes.data


class Prefault:
    """Reads all of these mappings once, after `start`. None of them may be closed before `stop`, or its end.

    Its thread is a daemon: a process that ends, does not wait for a slow disk.
    """

    def __init__(self, maps: Iterable[mmap.mmap]) -> None:
        self._maps = [(mapped, address(mapped)) for mapped in maps]
        self._stop = self._reads = False
        self._process, self._ended = os.getpid(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgemtl-prepare", daemon=True)

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread to give."""
        self._thread.start()

    def wait(self) -> None:
        """Until everything has been read."""
        if self._thread.is_alive():  # in a child process it is not
            self._thread.join()

    def stop(self) -> None:
        """Return once it reads no more; also when an exception broke off `start`, and nobody knows if it has begun.

        Either this sees that it reads, or it will see that it must not.
        """
        self._stop = True
        if self._reads and self._process == os.getpid():  # in a child process nobody reads
            self._ended.wait()

    def _run(self) -> None:
        self._reads = True
        try:
            self._read(ctypes.create_string_buffer(CHUNK))
        finally:
            self._ended.set()

    def _read(self, scrap: ctypes.Array[ctypes.c_char]) -> None:
        for mapped, _ in self._maps:
            if self._stop:
                return
            with suppress(OSError):
                mapped.madvise(mmap.MADV_WILLNEED)  # the disk may bring all of them at once
        for mapped, start in self._maps:
            for at in range(0, len(mapped), CHUNK):
                if self._stop:
                    return
                ctypes.memmove(scrap, start + at, min(CHUNK, len(mapped) - at))
