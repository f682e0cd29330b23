"""Files that appear under their names only when they are whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """`with replacing(path) as new:` write the file `new`, which becomes `path` at the end.

    On any failure, Ctrl-C included, `path` is as before and nothing stays behind. A link is followed: what it names is
    replaced. durable: it also lasts through a power cut. Raises OSError, also where `path` is a folder or a device.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is a folder or a device, no file", str(path))
    begin = os.fsencode(target.name)[:200].decode(errors="ignore")  # whose own name may be as long as names can be
    new = target.with_name(f".{begin}.{secrets.token_hex(4)}.tmp")
    try:
        yield new
        if durable:
            _sync(new)
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        with contextlib.suppress(OSError):  # not every file system can
            _sync(target.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
