"""Serves a hub from a thread of its own, so that the caller's loop of pictures goes on."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import socket
import threading
from types import TracebackType
from typing import Self

from edgemtl.errors import WebError
from edgemtl.web.hub import Hub

PACKAGES = ("starlette", "uvicorn", "websockets")


def parse_address(text: str) -> tuple[str, int]:
    """Address and port of "127.0.0.1:8000", "8000" or "[::1]:8000". Raises WebError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 16:
        raise WebError(f"{text!r} is no address to serve a page on; write it like 127.0.0.1:8000")
    return host, number


def warning(host: str) -> str | None:
    """What to say before serving on `host`; None where only this machine can look."""
    if ipaddress.ip_address(host).is_loopback:
        return None
    return (
        f"{host} is open to the network: whoever can reach this machine sees the camera and can switch tasks;"
        " there is no password and no encryption"
    )


def _ours(record: logging.LogRecord) -> bool:
    """Whether a log record is about this program; what a browser did wrong, or that it left, is nobody's news."""
    return not any(words in str(record.msg) for words in ("Invalid UTF-8 sequence received", "socket.send() raised"))


class Server:
    """`with Server(hub, "127.0.0.1", 8000) as server: server.url`; port 0 takes any free one. Raises WebError."""

    def __init__(self, hub: Hub, host: str, port: int) -> None:
        missing = [p for p in PACKAGES if importlib.util.find_spec(p) is None]
        if missing:
            raise WebError(f'the page needs {", ".join(missing)}: pip install "edgemtl[web]"')
        import uvicorn

        from edgemtl.web.app import build

        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addFilter(_ours)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen()  # from here on browsers wait instead of being refused
        except OSError as e:
            self._socket.close()
            raise WebError(f"cannot serve a page on {host}:{port}: {e.strerror}; try another port") from None
        bound = self._socket.getsockname()[1]
        self.url = f"http://[{host}]:{bound}/" if ":" in host else f"http://{host}:{bound}/"
        config = uvicorn.Config(
            build(hub),
            log_level="error",
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=1 << 16,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="edgemtl web", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def close(self) -> None:
        """Stop serving; browsers are told that the page has gone."""
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
