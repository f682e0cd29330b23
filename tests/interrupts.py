"""KeyboardInterrupt at a chosen line, as Ctrl-C would raise it, for tests of what an exception leaves behind."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import edgemtl

PACKAGE = str(Path(edgemtl.__file__).parent)


@cache
def _guards(file: str) -> frozenset[int]:
    """Lines of `with self.lock`. Their end is a line too, but Python looks for signals at calls and jumps, and there is
    none between a block's last call and its lock's release.
    """
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return frozenset(
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr).endswith("lock")
    )


def interrupted_at(line: int, call: Callable[[], object], sources: tuple[str, ...] = (".py",)) -> bool:
    """Whether `call` ended before KeyboardInterrupt came in the `line`-th line that it runs of edgemtl's files, or of
    those whose names end in `sources`.
    """
    count = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal count
        file = frame.f_code.co_filename
        if not (file.startswith(PACKAGE) and file.endswith(sources)):
            return None
        seen: set[int] = set()

        def lines(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if event == "line":
                if frame.f_lineno in _guards(file):
                    if frame.f_lineno in seen:
                        return lines
                    seen.add(frame.f_lineno)
                count += 1
                if count == line:
                    raise KeyboardInterrupt
            return lines

        return lines

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return False
    finally:
        sys.settrace(before)
    return True
