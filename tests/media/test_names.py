"""What is shown of a name or an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.errors import FrameError
from edgemtl.media.names import shown_name, without_secrets
from edgemtl.media.sources import open_source


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("rtsp://10.0.0.1:554/stream", "rtsp://10.0.0.1:554/stream"),
        ("rtsp://admin:word@10.0.0.1/s", "rtsp://…@10.0.0.1/s"),
        ("rtsp://admin:pa/ss@host/", "rtsp://…@host/"),
        ("rtsp://admin:p@?#;/ss@host/", "rtsp://…@host/"),
        ("http://admin@host/s", "http://…@host/s"),
        ("http://host/s?token=word&channel=1", "http://host/s?…"),
        ("rtsp://host:554/user=admin_password=word_channel=1.sdp", "rtsp://host:554?…"),
        ("SRT://u:word@host:9/", "SRT://…@host:9/"),
        ("admin:pa/ss@host/s", "…@host/s"),
        ("rtsp//admin:pa/ss@host/s", "…@host/s"),
        ("//admin:word@host/s", "…@host/s"),
        ("host/s?token=word", "host/s?…"),
        ("a/b@2x.png", "a/b@2x.png"),
        ("what?/why?.png", "what?/why?.png"),
        ("a\x1bb.png", "a\N{REPLACEMENT CHARACTER}b.png"),
    ],
)
def test_shown(given: str, shown: str) -> None:
    assert shown_name(given) == shown


@pytest.mark.parametrize("given", ["nope://u:word@127.0.0.1:9/x?key=word", "u:word@127.0.0.1:9/x"])
def test_an_error_has_no_secret(given: str) -> None:
    with pytest.raises(FrameError) as caught:
        open_source(given)
    assert "word" not in str(caught.value)


def test_a_path() -> None:
    assert shown_name(Path("a/b.png")) == "a/b.png"


def test_a_message_of_another_library() -> None:
    given = "cap.cpp: cannot open 'rtsp://u:pa/ss@h/x?key=word' in time"
    assert without_secrets(given) == "cap.cpp: cannot open 'rtsp://…@h/x?… in time"
