"""Runs a command for people: every error is one sentence, on any terminal, and shows no secret of an address."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import typer

from edgemtl.cli import _text
from edgemtl.errors import EdgeMTLError
from edgemtl.media.names import shown_name

_USAGE = typer.BadParameter.__bases__[0]  # typer's base of what was typed wrong


def guarded(command: Callable[[], Any]) -> NoReturn:
    """Run `command`, which gives its exit code or None, and end the process: with 2 and a sentence when it refuses, or
    the system does, with 130 on Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as edgemtl/__main__.py left it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")  # what a terminal cannot show becomes "?"
    code, said = 0, ""
    try:
        found = command()
        code = found if isinstance(found, int) else 0
    except KeyboardInterrupt:
        code, said = 130, "stopped"
    except (EdgeMTLError, OSError) as e:
        code, said = 2, f"error: {_sentence(e)}"
    except Exception as e:
        if not isinstance(e, _USAGE):
            raise
        usage: Any = e
        usage.message = hidden(usage.message)
        usage.show()
        code = 2
    code, said = _flushed(code, said)
    if said:
        print(_text.clean(hidden(said)), file=sys.stderr)
    sys.exit(code)


def hidden(text: str) -> str:
    """A message without the secrets of what was typed, wherever it repeats that."""
    for given in sys.argv[1:]:
        for form in {given, str(Path(given))}:  # a path has lost a slash of "//"
            if shown_name(given) != given:
                text = text.replace(form, shown_name(given))
    return text


def _sentence(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    reason = error.strerror or str(error)
    names = [shown_name(os.fsdecode(n)) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
    return f"{' to '.join(names)}: {reason}" if names else f"a file or standard output cannot be used: {reason}"


def _flushed(code: int, said: str) -> tuple[int, str]:
    """Exit code and message once standard output has taken all, or has turned out to be full or gone."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as e:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own end would fail again
        if isinstance(e, BrokenPipeError):  # whoever reads has seen enough
            return 1, ""
        return 2, f"error: standard output cannot be written: {e.strerror}"
    return code, said
