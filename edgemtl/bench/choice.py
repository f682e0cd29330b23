"""What the benchmark's command line asks for, checked before anything runs: engines, precisions, threads, files."""

from __future__ import annotations

import difflib
from pathlib import Path

from edgemtl.bench.engines import ENGINES
from edgemtl.errors import ConfigError

PRECISIONS = ("fp32", "int8")
CPUS = {"": "cpu", "avx2": "x86_64-avx2"}  # word of --cpu -> target of the compiler
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
            near = difflib.get_close_matches(word, known, 1, 0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"there is no engine {word!r}{hint}; choose of {', '.join(known)}")
    return tuple(n for n in ENGINES if n in names)


def threads(text: str) -> tuple[int, ...]:
    """Thread counts, each once. Raises ConfigError."""
    words = _words(text)
    if not words or not all(t.isascii() and t.isdigit() and 0 < int(t) <= 1024 for t in words):
        raise ConfigError(f"thread counts are whole numbers from 1, like 2 or 1,2; not {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def cpu(text: str) -> str:
    """The compiler's target that everything is held to. Raises ConfigError."""
    if text not in CPUS:
        raise ConfigError(f"--cpu is avx2, not {text!r}; leave it out for all that this CPU can do")
    return CPUS[text]


def file(option: str, path: Path | None) -> None:
    """Make sure that the file can be written, so that nothing is lost after ten minutes. Raises ConfigError."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as e:
        raise ConfigError(f"{option} {path} cannot be written: {e.strerror or e}") from None


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (word.strip() for word in text.split(","))))
