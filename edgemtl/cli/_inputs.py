"""What `run` and `demo` take alike: a bundle and a source, and depths at the ends of the colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgemtl.media.names import SOURCE

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BUNDLE SOURCE",
        show_default=False,
        help=f"SOURCE: {SOURCE}. BUNDLE: NAME.edgemtl or an installed model's name; none: the default model.",
    ),
]


def split(command: str, words: Sequence[str] | None) -> tuple[Path, str | None]:
    """Bundle and source among a command's words.

    Of two, the first is the bundle. One alone is the source, for the default model, unless it ends in `.edgemtl` or is
    an installed model's name. Raises BundleError for more, and where the default model is needed but not installed.
    """
    from edgemtl.bundle import models
    from edgemtl.errors import BundleError

    words = words or []
    if len(words) > 2:
        raise BundleError(f"{command} takes a bundle and a source, not {len(words)} words: {' '.join(words)}")
    if words and (len(words) == 2 or words[0].endswith(models.SUFFIX) or words[0] in models.installed()):
        return Path(words[0]), words[1] if len(words) == 2 else None
    return models.default(), words[0] if words else None


def depth_range(text: str | None) -> tuple[float, float] | None:
    """Two depths in metres from --depth-range. Raises FrameError."""
    from edgemtl.errors import FrameError

    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not 0 <= low < high < 1e6:
        raise FrameError(f"--depth-range is two ascending depths in metres like 0.5,6, not {text!r}")
    return low, high
