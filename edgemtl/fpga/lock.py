"""One process at a time drives a board: a second one would load the bitstream under the frames of the first."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from edgemtl.errors import BoardError

REMOTE = "PYNQ_REMOTE_DEVICES"  # pynq's variable: the address of a board elsewhere
FOLDER = Path("/run/lock") if os.access("/run/lock", os.W_OK) else Path(tempfile.gettempdir())
_held: dict[Path, int] = {}  # file descriptors, open until this process ends


def claim(name: str) -> None:
    """Make this process the user of the board `name` until it ends; again in the same process does nothing.

    Raises BoardError where another process has it, by its number, or where the lock cannot be written.
    """
    path = FOLDER / f"edgemtl-{''.join(c if c.isalnum() else '-' for c in name)}.lock"
    if path in _held:
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise BoardError(f"cannot write {path}, which keeps other processes off the board: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.pread(file, 20, 0).decode(errors="replace").strip()
        os.close(file)
        raise BoardError(f"process {owner or 'of another user'} drives the board {name}: end it first") from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    _held[path] = file
