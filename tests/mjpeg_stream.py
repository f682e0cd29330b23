"""A network stream for tests: MJPEG over HTTP, as many cameras send it, which can be killed and started again."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


class Stream:
    """`with Stream() as stream: open_feed(stream.url)`; each frame is brighter than the one before, its top left corner
    is purple. An address that ends in .html gives an empty page. Frames whose numbers are in `cut` arrive without data.
    """

    def __init__(self, fps: float = 50, size: tuple[int, int] = (48, 64), cut: tuple[int, ...] = ()) -> None:
        self._period, self._size, self._cut = 1 / fps, size, cut
        self._server: ThreadingHTTPServer | None = None
        self._sockets: list[socket.socket] = []
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream.mjpeg"

    def start(self) -> None:
        """Begin, on the port it had before."""
        stream = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    if self.path.endswith(".html"):
                        self.send_response(200)
                        self.send_header("Content-Type", "text/html")
                        self.end_headers()
                        return
                    stream._sockets.append(self.request)
                    stream._send(self)

        class Server(ThreadingHTTPServer):
            allow_reuse_address = daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # a client that leaves is no error

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _send(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        number = 0
        while True:
            image = np.full((*self._size, 3), number % 250, np.uint8)
            image[: self._size[0] // 3, : self._size[1] // 3] = (200, 30, 90)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            if number in self._cut:
                data = data[:2] + bytes(len(data) - 2)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            number += 1
            time.sleep(self._period)

    def kill(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()
        self._server = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
