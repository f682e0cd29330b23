"""A fresh process for everything that is measured or made: what it said, or why it failed in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

STALLED = "no result after"


class ProcessError(Exception):
    """A process that gave nothing; the message is the reason, `said` the lines that it printed before."""

    def __init__(self, reason: str, said: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason, self.said = reason, list(said)


def child(module: str, request: dict[str, Any], timeout: float, env: dict[str, str] | None = None) -> list[str]:
    """Standard output of `python -m module REQUEST`, line by line. Raises ProcessError."""
    command = [sys.executable, "-m", module, json.dumps(request)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})}) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            raise ProcessError(f"{STALLED} {timeout:.0f} s", out.splitlines()) from None
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = (err.strip().splitlines() or ["it printed nothing"])[-1][:200]
        how = f"killed by signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise ProcessError(f"{how}: {last}", out.splitlines())
    return out.splitlines()


def environment(threads: int) -> dict[str, str]:
    """Variables of a measuring process: the thread count for every library that reads one."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")
    return dict.fromkeys(names, str(threads))
