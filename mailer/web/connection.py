"""One HTTP connection: reads requests within their time, sends answers, and ends.

Runs in a thread of its own, which ``server.py`` starts. ``http.server`` gives it its life cycle and writes the head of an
answer; requests are read by ``request.py``, which bounds all of it. A client that is too slow gets 408, one that is silent
is hung up on without a word; a fault of the connection ends it and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol, cast

from mailer.policy.access import plain_address
from mailer.web.request import HttpFault, Request, Response, error_response, read_request
from mailer.web.site import PROBES, Site

log = logging.getLogger(__name__)

_LINGER_BYTES = 256 * 1024
"""Read and dropped behind an answer that ends the connection: closing on unread bytes would destroy the answer."""

_EVERY_ANSWER = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may take, in seconds: between requests, for one whole request, to take an answer, to hang up."""

    idle: float = 30.0  # two scrapes, 15 s apart, over one connection
    request: float = 10.0
    answer: float = 10.0
    linger: float = 1.0


class Owner(Protocol):
    """What a connection needs of its server."""

    @property
    def site(self) -> Site: ...
    @property
    def patience(self) -> Patience: ...
    @property
    def may_linger(self) -> bool:
        """Whether a connection may stay open for a further request."""
        ...

    def now(self) -> float: ...


class Connection(BaseHTTPRequestHandler):
    """The conversation with one client."""

    protocol_version = "HTTP/1.1"
    server_version = "mailer"
    sys_version = ""  # the interpreter's version is nobody's business
    disable_nagle_algorithm = True  # head and body are two writes

    def setup(self) -> None:
        super().setup()
        threading.current_thread().name = "web-connection"
        self._owner = cast(Owner, self.server)
        self.rfile.close()
        self._input = _TimedInput(self.connection)
        self.rfile = self._reader = io.BufferedReader(self._input)
        self._has_asked = False

    def handle_one_request(self) -> None:
        """Read one request and answer it; afterwards ``close_connection`` says whether there may be another."""
        self.close_connection = True
        try:
            patience = self._owner.patience
            self._input.allow(patience.idle if self._has_asked else patience.request)
            if not self._reader.peek(1):
                return
            self._has_asked = True
            self._input.allow(patience.request)
        except OSError:
            return
        started = time.monotonic()
        try:
            request = read_request(self._reader, self._send_continue)
        except HttpFault as fault:
            self._refuse(fault.status, str(fault))
            return
        except TimeoutError:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
            return
        except OSError:
            return
        if request is None:
            return
        response = self._owner.site.answer(request, self._owner.now())
        self.close_connection = not (request.keep_alive and self._owner.may_linger)
        self._send(response, is_head=request.method == "HEAD")
        self._log(request, response, time.monotonic() - started)

    def log_message(self, format: str, *args: object) -> None:
        """``http.server`` has nothing to say that is not said here."""

    def _send_continue(self) -> None:
        self.connection.settimeout(self._owner.patience.answer)
        self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Answer what is no request, and hang up."""
        self._send(error_response(status, text, self._owner.now()), is_head=False)
        log.debug("http.bad_request client=%s status=%d error=%s", self._peer, status, text)

    def _send(self, response: Response, is_head: bool) -> None:
        self.request_version = self.protocol_version  # what is sent does not depend on what was read
        self.send_response_only(response.status)
        self.send_header("Server", self.server_version)
        self.send_header("Date", self.date_time_string(int(self._owner.now())))
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        for name, value in (*_EVERY_ANSWER, *response.fields):
            self.send_header(name, value)
        is_last = self.close_connection
        if is_last:
            self.send_header("Connection", "close")
        try:
            self.connection.settimeout(self._owner.patience.answer)
            self.end_headers()
            if not is_head:
                self.wfile.write(response.body)
            if is_last:
                self._hang_up()
        except OSError:
            self.close_connection = True

    def _hang_up(self) -> None:
        """End our half and drop what the client still sends, for a while, so that the answer arrives."""
        self.connection.shutdown(socket.SHUT_WR)
        self._input.allow(self._owner.patience.linger)
        left = _LINGER_BYTES
        while left > 0 and (piece := self._reader.read1(left)):
            left -= len(piece)

    @property
    def _peer(self) -> str:
        return plain_address(str(self.client_address[0]))

    def _log(self, request: Request, response: Response, seconds: float) -> None:
        if request.path not in PROBES and log.isEnabledFor(logging.DEBUG):
            log.debug(
                "http.request client=%s method=%s path=%s status=%d took=%.1fms",
                self._peer,
                request.method,
                request.path,
                response.status,
                1000 * seconds,
            )


class _TimedInput(io.RawIOBase):
    """A socket's bytes until a deadline: a client that sends a byte now and then does not gain time by it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0  # monotonic

    def allow(self, seconds: float) -> None:
        """From now on reading may take so long in all."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]  # narrower than any buffer
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


def send_and_close(connection: socket.socket, response: Response) -> None:
    """Answer a client without reading its request and without waiting for it."""
    head = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
    fields = (("Content-Type", response.content_type), ("Content-Length", str(len(response.body))), ("Connection", "close"))
    head += "".join(f"{name}: {value}\r\n" for name, value in (*fields, *_EVERY_ANSWER))
    with contextlib.suppress(OSError):
        connection.settimeout(0)
        connection.send(head.encode() + b"\r\n" + response.body)
