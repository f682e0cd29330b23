"""Names for people: printable whatever bytes they have, and without what an address must keep secret."""

from __future__ import annotations

import re
from pathlib import Path

SOURCE = "an image, a video, a folder of images, a camera's number, or rtsp://…"
ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def shown_name(path: str | Path) -> str:
    """A path or address, printable and without secrets."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown_address(str(path)))


def without_secrets(text: str) -> str:
    """A message of another library, its addresses as `shown_address` shows them."""
    return re.sub(r"\b[a-z][a-z0-9+.-]*://\S+", lambda found: shown_address(found[0]), text, flags=re.IGNORECASE)


def shown_address(text: str) -> str:
    """An address without user, password, query or fragment; a path as it is.

    A password may hold any character, so all up to the last @ belongs to the user part; which values of a query are
    secret nobody can tell, so none is shown. What lacks its scheme ("user:word@host", "host/s?key=word") or has it
    wrong is cut alike, for it may be an address.
    """
    scheme = ADDRESS.match(text)
    if not scheme:
        return re.sub(r"\?[^/?]*=.*", "?…", re.sub(r"^.*:.*@", "…@", text, flags=re.DOTALL), flags=re.DOTALL)
    rest = text[scheme.end() :]
    _user, at, rest = rest.rpartition("@")
    plain = re.split(r"[?#;]|/[^/?#;]*=", rest, maxsplit=1)  # some cameras take "/user=…_password=…"
    return f"{scheme[0]}{'…@' if at else ''}{plain[0]}{'?…' if len(plain) > 1 else ''}"
