"""What the benchmark's command line asks for, checked before anything runs: engines, precisions, threads, files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgemtl.bench.engines import ENGINES
from edgemtl.errors import ConfigError

PRECISIONS = ("fp32", "int8")
FAMILIES = tuple(dict.fromkeys(e.family for e in ENGINES.values()))


def engines(text: str, precision: str) -> tuple[str, ...]:
    """The engines that `text` means, in the table's order: families (all their engines of these precisions) or single
    engines; empty: every family. Raises ConfigError for a word that is none of them.
    """
    wanted = _words(precision)
    if not wanted or not set(wanted) <= set(PRECISIONS):
        raise ConfigError(f"--precision is fp32, int8 or fp32,int8, not {precision!r}")
    names: set[str] = set()
    for word in _words(text) or FAMILIES:
        if word in FAMILIES:
            names |= {e.name for e in ENGINES.values() if e.family == word and e.precision in wanted}
        elif word in ENGINES:
            names.add(word)
        else:
            known = (*FAMILIES, *(n for n in ENGINES if n not in FAMILIES))
            raise ConfigError(f"there is no engine {word!r}{_near(word, known)}; choose of {', '.join(known)}")
    return tuple(n for n in ENGINES if n in names)


def threads(text: str) -> tuple[int, ...]:
    """Thread counts, each once. Raises ConfigError."""
    words = _words(text)
    if not words or not all(t.isascii() and t.isdigit() and 0 < int(t) <= 1024 for t in words):
        raise ConfigError(f"thread counts are whole numbers from 1, like 2 or 1,2; not {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def tasks(text: str, known: Sequence[str], bundle: Path) -> tuple[str, ...]:
    """Tasks of the bundle; "all" or nothing means every one. Raises ConfigError."""
    words = _words(text)
    if not words or words == ("all",):
        return tuple(known)
    for word in words:
        if word not in known:
            raise ConfigError(f"{bundle.name} has no task {word!r}{_near(word, known)}; it has {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def files(wanted: Iterable[tuple[str, Path | None]]) -> None:
    """Make sure that every (option, file) can be written, so that nothing is lost after ten minutes.

    Makes missing folders. Raises ConfigError, which names the option.
    """
    seen: dict[Path, str] = {}
    for option, path in wanted:
        if path is None:
            continue
        if path.is_dir():
            raise ConfigError(f"{option} {path} is a folder; give a file, such as {option} {path / 'benchmark.json'}")
        if (place := path.resolve()) in seen:
            raise ConfigError(f"{option} and {seen[place]} both name {path}; give each a file of its own")
        seen[place] = option
        there = path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab"):
                pass
            if not there:
                path.unlink()
        except OSError as e:
            raise ConfigError(f"{option} {path} cannot be written: {e.strerror or e}") from None


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))
