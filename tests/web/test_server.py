"""The server as a browser and as an attacker's page meet it, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import pytest

from edgemtl.errors import WebError
from edgemtl.web import server as module
from edgemtl.web.hub import Hub, News
from edgemtl.web.server import Server, parse_address, warning

pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "edgemtl[web]"')
client = pytest.importorskip("websockets.sync.client", reason='websockets is not installed: pip install "edgemtl[web]"')

from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

MDNS = f"{socket.gethostname().partition('.')[0]}.local:{{port}}"
ABOUT = {"tasks": {"depth": {}}}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Hub, int]]:
    """One server for all tests, because each takes a while to stop."""
    hub = Hub(ABOUT)
    with Server(hub, "127.0.0.1", 0) as server:
        yield hub, int(server.url.rsplit(":", 1)[1].strip("/"))


@pytest.fixture
def hub(served: tuple[Hub, int]) -> Iterator[Hub]:
    """Its hub, as if new."""
    hub = served[0]
    hub.news = News(0, None, {})
    yield hub
    until(lambda: not hub.watched)
    hub.commands()


@pytest.fixture
def port(served: tuple[Hub, int]) -> int:
    return served[1]


def get(port: int, path: str = "/", **headers: str) -> tuple[int, str, bytes]:
    status, found, body = fetch(port, path, **headers)
    return status, found.get("content-type", ""), body


def fetch(port: int, path: str, **headers: str) -> tuple[int, Message, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def connect(port: int, origin: str | None = "") -> Any:
    origin = f"http://127.0.0.1:{port}" if origin == "" else origin
    return client.connect(f"ws://127.0.0.1:{port}/live", origin=origin, open_timeout=10, close_timeout=2)


def handshake(port: int) -> bytes:
    """What a browser sends to open the WebSocket."""
    own = f"127.0.0.1:{port}"
    fields = {"Host": own, "Origin": f"http://{own}", "Upgrade": "websocket", "Connection": "Upgrade"}
    fields |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    lines = ["GET /live HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode()


Make = Callable[..., "Browser"]


class Browser:
    """A browser that keeps what it is told, and says that it has seen the pictures if `polite`."""

    def __init__(self, socket: Any, polite: bool) -> None:
        self.socket = socket
        self.about = json.loads(self.socket.recv(timeout=10))["about"]
        self.polite, self.pictures, self.texts = polite, [], []

    def read(self, until: Any, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not until(self):
            message = self.socket.recv(timeout=max(0.01, end - time.monotonic()))
            if isinstance(message, str):
                self.texts.append(json.loads(message))
                continue
            self.pictures.append(message)
            if self.polite:
                self.socket.send(json.dumps({"seen": len(self.pictures)}))

    def figures(self) -> list[Any]:
        return [t["figures"] for t in self.texts if "figures" in t]


@pytest.fixture
def browser() -> Iterator[Callable[..., Browser]]:
    """Makes browsers, and closes them."""
    with contextlib.ExitStack() as stack:

        def make(port: int, polite: bool = True) -> Browser:
            return Browser(stack.enter_context(connect(port)), polite)

        yield make


class TestPage:
    @pytest.mark.parametrize(
        ("path", "kind", "holds"),
        [
            ("/", "text/html", b"<canvas"),
            ("/page.js", "javascript", b"WebSocket"),
            ("/page.css", "text/css", b"canvas"),
        ],
    )
    def test_files(self, port: int, path: str, kind: str, holds: bytes) -> None:
        status, type_, body = get(port, path)
        assert status == 200
        assert kind in type_
        assert holds in body
        assert b"https://" not in body, "nothing from elsewhere: it works offline"

    def test_nothing_else_is_served(self, hub: Hub, port: int) -> None:
        for path in ("/page.py", "/../server.py", "/%2e%2e/server.py", "/static/index.html", "/docs"):
            assert get(port, path)[0] == 404

    def test_picture_and_figures_without_a_browser(self, hub: Hub, port: int) -> None:
        assert get(port, "/picture.jpg")[0] == 503
        hub.publish(b"jpeg", {"fps": 3})
        assert get(port, "/picture.jpg") == (200, "image/jpeg", b"jpeg")
        assert json.loads(get(port, "/figures.json")[2]) == {"about": ABOUT, "figures": {"fps": 3}}


class TestLive:
    def test_pictures_figures_and_commands(self, hub: Hub, port: int, browser: Make) -> None:
        user = browser(port)
        assert user.about == ABOUT
        hub.publish(b"one", {"fps": 1})
        user.read(lambda b: b.pictures == [b"one"] and b.figures() == [{"fps": 1}])
        user.socket.send(json.dumps({"tasks": ["depth"], "blend": 0.5}))
        for command in until(hub.commands):
            assert (command.tasks, command.blend, command.experts) == (("depth",), 0.5, None)
        hub.publish(None, {"fps": 0})
        time.sleep(0.2)
        hub.publish(None, {"fps": 0})
        user.read(lambda b: b.figures()[-1] == {"fps": 0})
        assert user.pictures == [b"one"], "the same picture is not sent again"

    def test_a_second_browser_sees_the_same(self, hub: Hub, port: int, browser: Make) -> None:
        first = browser(port)
        hub.publish(b"one", {"fps": 1})
        first.read(lambda b: b.pictures)
        second = browser(port)
        second.read(lambda b: b.pictures == [b"one"] and b.texts[-1]["watchers"] == 2)
        hub.publish(b"two", {"fps": 1})
        for user in (first, second):
            user.read(lambda b: b.pictures == [b"one", b"two"])
        second.socket.close()
        until(lambda: hub.watchers == 1)

    def test_a_slow_browser_misses_pictures_and_holds_up_nobody(self, hub: Hub, port: int, browser: Make) -> None:
        slow, quick = browser(port, polite=False), browser(port)
        for i in range(20):
            hub.publish(f"{i}".encode(), {})
            quick.read(lambda b, i=i: b.pictures[-1:] == [f"{i}".encode()])
        assert len(quick.pictures) == 20
        slow.read(lambda b: len(b.pictures) == 2)
        slow.socket.send(json.dumps({"seen": 2}))
        slow.read(lambda b: len(b.pictures) == 3)
        assert slow.pictures[-1] == b"19", "the newest one, not the oldest"

    def test_a_browser_that_never_answers_is_let_go(
        self, hub: Hub, port: int, browser: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edgemtl.web.app.PATIENCE", 0.05)
        user = browser(port, polite=False)
        hub.publish(b"one", {})
        user.read(lambda b: len(b.pictures) == 1)
        hub.publish(b"two", {})
        with pytest.raises(ConnectionClosed):
            user.read(lambda b: False)
        until(lambda: hub.watchers == 0)

    @pytest.mark.parametrize(
        "text", ["", "no json", "[]", '{"tasks": ["a", "b", "c"]}', '{"seen": "x"}', '{"x": 1}', "9" * 5000, "[" * 4000]
    )
    def test_nonsense_is_refused_and_nothing_breaks(self, hub: Hub, port: int, browser: Make, text: str) -> None:
        user = browser(port)
        user.socket.send(text)
        user.read(lambda b: any("refused" in t for t in b.texts))
        hub.publish(b"one", {})
        user.read(lambda b: b.pictures == [b"one"])
        assert hub.commands() == []

    def test_browsers_that_vanish_or_talk_rubbish_leave_nothing_in_the_log(
        self, hub: Hub, port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        rubbish = (b"", b"\x88\x80\0\0\0\0", b"\x81\x81\0\0\0\0\xff", b"\x82\x82\0\0\0\0{}", b"\xff" * 9)
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)  # uvicorn's own do not reach the root
        for i, sent in enumerate(rubbish * 6):
            browser = socket.create_connection(("127.0.0.1", port))
            browser.sendall(handshake(port))
            until(lambda: hub.watchers)
            hub.publish(bytes(60000), {"n": i})
            with contextlib.suppress(OSError):
                browser.sendall(sent)
            if i % 2:  # cut off, not closed
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            browser.close()
            for n in range(4):
                hub.publish(bytes(60000), {"n": n})
            until(lambda: not hub.watchers)
        logging.getLogger("uvicorn.error").removeHandler(caplog.handler)
        assert [r.getMessage() for r in caplog.records] == []

    def test_the_end_is_told(self, hub: Hub, browser: Make) -> None:
        with Server(hub, "127.0.0.1", 0) as server:
            user = browser(int(server.url.rsplit(":", 1)[1].strip("/")))
        with pytest.raises((ConnectionClosed, OSError)):
            user.read(lambda b: False)


class TestOtherSites:
    """What a page of another site, open in the same browser, can send."""

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "evil.local"],
    )
    def test_a_name_pointed_here_is_refused(self, port: int, host: str) -> None:
        assert get(port, "/picture.jpg", Host=host)[0] == 403
        assert get(port, "/", Host=host)[0] == 403

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost:{port}", "[::1]:{port}", socket.gethostname(), MDNS])
    def test_this_machine_is_not(self, port: int, host: str) -> None:
        assert get(port, "/", Host=host.format(port=port))[0] == 200

    @pytest.mark.parametrize(
        "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}", None]
    )
    def test_a_websocket_of_another_page_is_refused(self, hub: Hub, port: int, origin: str | None) -> None:
        with pytest.raises(InvalidStatus) as caught, connect(port, origin and origin.format(port=port)):
            pass
        assert caught.value.response.status_code == 403
        assert not hub.watched

    def test_nor_may_it_fetch(self, port: int) -> None:
        assert get(port, "/figures.json", Origin="http://evil.example")[0] == 403

    def test_pages_cannot_put_it_in_a_frame(self, port: int) -> None:
        assert "frame-ancestors 'none'" in fetch(port, "/")[1].get("content-security-policy", "")


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("127.0.0.1:8000", ("127.0.0.1", 8000)),
            ("8001", ("127.0.0.1", 8001)),
            ("localhost:80", ("127.0.0.1", 80)),
            ("[::1]:80", ("::1", 80)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),
        ],
    )
    def test_good(self, text: str, found: tuple[str, int]) -> None:
        assert parse_address(text) == found

    @pytest.mark.parametrize(
        "text", ["", "x", "127.0.0.1", "127.0.0.1:", "example.org:80", "127.0.0.1:65536", "1.2.3.4:-1"]
    )
    def test_bad(self, text: str) -> None:
        with pytest.raises(WebError, match="write it like 127.0.0.1:8000"):
            parse_address(text)

    def test_only_the_network_is_warned_of(self) -> None:
        assert warning("127.0.0.1") is None
        assert warning("::1") is None
        for host in ("0.0.0.0", "192.168.0.7", "::"):
            assert "no password" in (warning(host) or "")

    def test_a_port_in_use(self, hub: Hub, port: int) -> None:
        with pytest.raises(WebError, match=f"cannot serve a page on 127.0.0.1:{port}: .*; try another port"):
            Server(hub, "127.0.0.1", port)

    def test_a_missing_package_is_named(self, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "PACKAGES", ("starlette", "no_such_package"))
        with pytest.raises(WebError, match=r'the page needs no_such_package: pip install "edgemtl\[web\]"'):
            Server(hub, "127.0.0.1", 0)

    def test_no_thread_is_left(self, hub: Hub) -> None:
        before = set(threading.enumerate())
        with Server(hub, "127.0.0.1", 0):
            assert set(threading.enumerate()) > before
        assert set(threading.enumerate()) == before


def until(true: Any, seconds: float = 10) -> Any:
    """Wait for something that another thread does; gives what it found."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)
    return found
