"""The HTTP port: binds it, accepts connections and gives each a thread, as many as ``MAX_CONNECTIONS``.

One thread (``web``) accepts; each connection has a thread of its own while it lasts. One lock guards the set of open
connections. A port that cannot be had is a ``WebListenError`` that names the key: it never moves to another port. Beyond
``MAX_CONNECTIONS`` a client gets 503, a peer that may not ask gets 403, both before anything is read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from mailer.config.schema import Config
from mailer.mail.outcome import MailerError
from mailer.policy.access import is_loopback, plain_address
from mailer.service import Service
from mailer.web.application import Application
from mailer.web.connection import Connection, Patience, send_and_close
from mailer.web.guard import Guard
from mailer.web.request import error_response
from mailer.web.site import Site

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
"""Open at a time: orchestrators, a scraper or two and some people; more would only be threads for a flood."""
_ROOMY_CONNECTIONS = MAX_CONNECTIONS // 2  # up to here a connection may stay open for further requests
_BACKLOG = 128
_POLL_SECONDS = 0.25  # how soon a stop is noticed
_PAUSE_SECONDS = 0.2
"""After an accept that failed for want of descriptors: time for a connection to end, instead of spinning."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_COMPLAINT_SECONDS = 60.0  # lines about strangers and failed accepts come at most so often
STOP_SECONDS = 3.0
"""How long stopping waits for answers under way."""


class WebListenError(MailerError):
    """The HTTP port cannot be listened on; the text says why and which key to change."""


class WebServer:
    """Serves an application's pages over HTTP between ``start`` and ``stop``."""

    def __init__(
        self,
        config: Config,
        application: Application,
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._site = Site(application, Guard.of(config))
        self._patience = patience
        self._clock = clock
        self._listener: _Listener | None = None
        self._service: Service | None = None

    def __repr__(self) -> str:
        return f"WebServer(listener={self._listener!r})"

    @property
    def port(self) -> int:
        """The port in use: the one picked where the configuration says 0. 0 before ``start``."""
        return self._listener.port if self._listener is not None else 0

    def start(self) -> None:
        """Bind the port and serve. Raises WebListenError."""
        host, port = self._config.health_check_host, self._config.health_check_port
        self._listener = _Listener(_address(host), port, self._site, self._patience, self._clock)
        self._service = Service("web", self._listener)
        self._service.start()
        log.info("http.listening host=%s port=%d", host, self.port)
        security = self._config.security
        if not is_loopback(_address(host)) and security.allow_local_only and not security.allowed_networks:
            log.warning("http.loopback_only host=%s reason=%s", host, "security.allowLocalOnly admits this machine alone")

    def configure(self, config: Config) -> None:
        """Take over the access rules of a reloaded configuration. Host and port are bound once: they need a restart."""
        self._config = config
        self._site.guard = Guard.of(config)

    def stop(self) -> None:
        """Accept no more, let answers under way end, hang up. Any number of times."""
        if self._listener is None or self._service is None:
            return
        self._service.stop()
        self._service.join(STOP_SECONDS)
        self._listener.close(STOP_SECONDS)
        self._listener = self._service = None


class _Listener(socketserver.ThreadingTCPServer):
    """The bound port and the connections that came in through it."""

    allow_reuse_address = True
    request_queue_size = _BACKLOG
    daemon_threads = True
    block_on_close = False  # ``close`` waits, with a limit
    timeout = _POLL_SECONDS

    def __init__(self, host: str, port: int, site: Site, patience: Patience, clock: Callable[[], float]) -> None:
        self.site = site
        self.patience = patience
        self.now = clock
        self._complained_at = float("-inf")
        self._changed = threading.Condition()  # guards _open; told when a connection ends
        self._open: set[socket.socket] = set()
        self._stopping = threading.Event()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Connection)
        except (OSError, OverflowError) as error:
            raise WebListenError(_explain(host, port, error)) from None

    def __repr__(self) -> str:
        return f"_Listener(port={self.port}, open={len(self._open)})"

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def may_linger(self) -> bool:
        return len(self._open) <= _ROOMY_CONNECTIONS and not self._stopping.is_set()

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # "::" takes IPv4 as well, whatever the system's default is.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def step(self, now: float) -> float | None:
        """Accept one connection, or none within the poll's time."""
        del now
        self.handle_request()
        return 0.0

    def close(self, timeout_seconds: float) -> None:
        """Close the port, hang up on idle clients, wait for the others."""
        self._stopping.set()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)  # a waiting reader sees the end; an answer still goes out
            self._changed.wait_for(lambda: not self._open, timeout_seconds)

    def get_request(self) -> tuple[socket.socket, object]:
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._complain("http.accept_failed error=%s", str(error))
                self._stopping.wait(_PAUSE_SECONDS)
            raise  # socketserver goes on

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether the peer may ask, and there is room for it."""
        connection, peer = _of(request, client_address)
        if not self.site.guard.admits(peer):
            self._complain("http.refused client=%s reason=%s", plain_address(peer), "security.allowLocalOnly or allowedNetworks")
            text = "this address may not ask here; see security.allowLocalOnly and security.allowedNetworks"
            send_and_close(connection, error_response(HTTPStatus.FORBIDDEN, text, self.now()))
            return False
        with self._changed:
            if len(self._open) < MAX_CONNECTIONS:
                self._open.add(connection)
                return True
        self._complain("http.too_many_connections limit=%d", MAX_CONNECTIONS)
        send_and_close(connection, error_response(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", self.now()))
        return False

    def shutdown_request(self, request: object) -> None:
        connection, _ = _of(request)
        with self._changed:  # closing waits for nothing, and ``close`` must not shut a descriptor that has become another's
            super().shutdown_request(connection)
            self._open.discard(connection)
            self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """A page or a connection failed in a way that nobody foresaw. Called within the handler of that exception."""
        connection, peer = _of(request, client_address)
        if isinstance(sys.exception(), OSError):
            log.debug("http.connection_lost client=%s", plain_address(peer))
            return
        log.exception("http.fault client=%s", plain_address(peer))
        text = "an internal fault; the log has the details"
        send_and_close(connection, error_response(HTTPStatus.INTERNAL_SERVER_ERROR, text, self.now()))

    def _complain(self, line: str, *args: object) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAINT_SECONDS:
            self._complained_at = now
            log.warning(line, *args)


def _of(request: object, client_address: object = None) -> tuple[socket.socket, str]:
    """What socketserver hands over, which it types loosely: the connection and its peer's IP address."""
    if not isinstance(request, socket.socket):
        raise TypeError(f"not a connection: {request!r}")
    return request, str(client_address[0]) if isinstance(client_address, tuple) else ""


def _address(host: str) -> str:
    """The IP address to bind for ``healthCheckHost``. Raises WebListenError."""
    if not host:
        return "0.0.0.0"  # noqa: S104 - what an empty host means to every server; who may ask is another question
    if host.lower() == "localhost":
        return "127.0.0.1"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise WebListenError(f"healthCheckHost: cannot listen on {host!r}: {error}; name an address of this machine") from None
    return str(found[0][4][0])


def _explain(host: str, port: int, error: Exception) -> str:
    """Why the port cannot be bound, and what to do about it."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"cannot serve HTTP on {place}: the port is taken by another process; stop that one or change healthCheckPort"
    if number in (errno.EACCES, errno.EPERM):
        return f"cannot serve HTTP on {place}: not allowed; set healthCheckPort to a port from 1024 on"
    if number == errno.EADDRNOTAVAIL:
        return f"cannot serve HTTP on {place}: this machine has no such address; change healthCheckHost"
    return f"cannot serve HTTP on {place}: {error}; change healthCheckHost or healthCheckPort"
