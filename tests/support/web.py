"""A web server on loopback, over HTTPS, that answers as the test says and notes what it was asked: raw bytes, so that it can
do wrong all that a web server can.

One thread accepts and one more serves each connection; one condition guards the records. ``close`` ends every thread.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

WAIT_SECONDS = 20.0


class Request(NamedTuple):
    """``head``: the request line and the header lines."""

    method: str
    host: str
    path: str
    head: str
    body: bytes


Answerer = Callable[[Request], Iterable[bytes]]
"""Pieces of an answer, sent as they come; the connection is closed behind the last."""


def page(body: str | bytes, status: str = "200 OK", kind: str = "text/plain", more: str = "") -> Iterable[bytes]:
    """An ordinary answer; ``more``: further header lines, each with its CRLF."""
    data = body.encode() if isinstance(body, str) else body
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
    return [head.encode() + data]


class WebServer:
    """``answer`` may be exchanged at any time; ``requests`` are those seen. ``place``: address and port to listen on."""

    def __init__(self, answer: Answerer, context: ssl.SSLContext, place: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.answer = answer
        self._context = context
        self._listener = socket.create_server(place)
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()  # guards all below
        self.requests: list[Request] = []
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, name="web-accept", daemon=True)
        self._thread.start()

    def __enter__(self) -> WebServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        with self._changed:
            connections = [self._listener, *self._open]
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(WAIT_SECONDS)

    def wait_for(self, count: int) -> list[Request]:
        """The requests once there are ``count``."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, WAIT_SECONDS):
                raise AssertionError(f"{len(self.requests)} requests, not {count}")
            return list(self.requests)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="web", daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with self._changed:
            self._open.add(plain)
        try:
            plain.settimeout(WAIT_SECONDS)
            with self._context.wrap_socket(plain, server_side=True) as connection, connection.makefile("rb") as stream:
                with self._changed:
                    self._open.add(connection)
                request = _read(stream)
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                for piece in self.answer(request):
                    connection.sendall(piece)
        except (OSError, ValueError):
            pass  # the client has gone
        finally:
            with self._changed:
                self._open.clear()


def _read(stream: Iterable[bytes]) -> Request:
    lines = []
    for line in stream:
        if line == b"\r\n":
            break
        lines.append(line.decode().rstrip())
    method, path, _ = lines[0].split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = stream.read(int(fields.get("content-length", "0")))  # type: ignore[attr-defined]  # a file
    return Request(method, fields.get("host", ""), path, "\n".join(lines), body)
