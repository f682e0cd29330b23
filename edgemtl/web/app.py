"""The page, and one WebSocket per browser: figures as text, pictures as JPEG, commands back.

Who may connect. A page of another site, open in the same browser, can reach 127.0.0.1 too; it must neither watch the
camera nor switch tasks. So the Host of every request must be this machine by number or as localhost (a name that an
attacker pointed here is refused: DNS rebinding), and a WebSocket's Origin must be that same host.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from edgemtl.web.hub import Command, Hub

STATIC = Path(__file__).parent / "static"
FILES = {"/": "index.html", "/page.js": "page.js", "/page.css": "page.css"}
AHEAD = 2  # pictures on their way to a browser that it has not yet said to have seen
PATIENCE = 10.0  # seconds for it to say so
FIGURES_SECONDS = 0.15  # at least, between figures
MOST = 4096  # bytes of a command
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def build(hub: Hub) -> ASGIApp:
    """The application that serves `hub`."""

    async def page(request: Request) -> Response:
        return FileResponse(STATIC / FILES[request.url.path], headers=HEADERS)

    async def figures(request: Request) -> Response:
        return JSONResponse({"about": hub.about, "figures": hub.news.figures}, headers=HEADERS)

    async def picture(request: Request) -> Response:
        data = hub.news.picture
        if data is None:
            return PlainTextResponse("no picture yet", 503, headers=HEADERS)
        return Response(data, media_type="image/jpeg", headers=HEADERS)

    async def live(socket: WebSocket) -> None:
        await socket.accept()
        await _Watcher(hub, socket).run()

    routes = [Route(path, page) for path in FILES]
    routes += [Route("/figures.json", figures), Route("/picture.jpg", picture)]
    return Guard(Starlette(routes=[*routes, WebSocketRoute("/live", live)]))


class Guard:
    """Lets through only requests to this machine by number, localhost or its own name, from its own page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = HTTPConnection(scope).headers
        host, origin = headers.get("host", ""), headers.get("origin")
        if not _own(host):
            why = "this page answers to its address by number or to localhost only"
        elif origin is not None and origin != f"http://{host}":
            why = "another site's page may not use this one"
        elif origin is None and scope["type"] == "websocket":
            why = "a WebSocket must say which page it belongs to"
        else:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008, why)
        else:
            await PlainTextResponse(why, 403)(scope, receive, send)


def _own(host: str) -> bool:
    """Whether a Host header names this machine in a way that no DNS server of an attacker's can."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    own = socket.gethostname().lower()
    if name.lower() in ("localhost", own, f"{own.partition('.')[0]}.local"):  # the last by mDNS, which asks no server
        return True
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        return True
    return False


class _Watcher:
    """One browser."""

    def __init__(self, hub: Hub, socket: WebSocket) -> None:
        self._hub, self._socket = hub, socket
        self._wake = asyncio.Event()
        self._seen = asyncio.Event()
        self._sent = self._acknowledged = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()

        def listener() -> None:
            with contextlib.suppress(RuntimeError):  # the server's loop has just ended
                loop.call_soon_threadsafe(self._wake.set)

        self._hub.listen(listener)
        tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hub.leave(listener)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # it left, or did not answer: nothing to tell anybody
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.close()

    async def _send(self) -> None:
        await self._socket.send_text(json.dumps({"about": self._hub.about}))
        self._wake.set()
        shown: bytes | None = None
        due = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            news = self._hub.news
            if not news.number:
                continue
            if time.monotonic() >= due:  # laying out figures costs a browser more than a picture does
                due = time.monotonic() + FIGURES_SECONDS
                await self._socket.send_text(json.dumps({"figures": news.figures, "watchers": self._hub.watchers}))
            if news.picture is None or news.picture is shown:
                continue
            shown = news.picture
            self._sent += 1
            await self._socket.send_bytes(shown)
            async with asyncio.timeout(PATIENCE):
                while self._sent - self._acknowledged >= AHEAD:
                    self._seen.clear()
                    await self._seen.wait()

    async def _receive(self) -> None:
        while True:
            text = await self._socket.receive_text()
            try:
                asked = json.loads(text) if len(text) <= MOST else None
                if isinstance(asked, dict) and set(asked) == {"seen"} and isinstance(asked["seen"], int):
                    self._acknowledged = min(max(self._acknowledged, asked["seen"]), self._sent)
                    self._seen.set()
                elif not self._hub.ask(Command.model_validate(asked)):
                    await self._refuse("too many commands at once")
            except (ValueError, ValidationError, RecursionError):
                await self._refuse("a command has tasks, blend or experts, nothing else")

    async def _refuse(self, why: str) -> None:
        message: dict[str, Any] = {"refused": why}
        await self._socket.send_text(json.dumps(message))
