"""A listening port: binds it, says what to do when that fails, and accepts connections on a thread of its own.

``socketserver.ThreadingTCPServer`` does the accepting; what a connection is given to is the caller's ``Receive``. An
accept that fails because descriptors or memory ran out is tried again after a pause, without spinning.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import threading
from collections.abc import Callable

from mailer.mail.outcome import MailerError

log = logging.getLogger(__name__)

BACKLOG = 1024  # connections that may wait for accept; the kernel cuts it to net.core.somaxconn
PAUSE_SECONDS = 0.1
"""After an accept that failed for want of descriptors: time for a session to end."""
POLL_SECONDS = 0.1
"""How often socketserver looks whether it should stop; that delays the stop, not the accepting."""
COMPLAINT_SECONDS = 60.0
"""Log lines about that come at most so often."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
FIRST_UNPRIVILEGED_PORT = 1024

Receive = Callable[[socket.socket, str], None]
"""Takes over an accepted connection and its peer's IP address; must not block, nor raise but OSError and RuntimeError."""


class ListenError(MailerError):
    """A port cannot be listened on; the text says which, why and what to do."""


class Listener(socketserver.ThreadingTCPServer):
    """One bound address, accepting on a thread of its own between ``start`` and ``stop``."""

    def __init__(self, receive: Receive, clock: Callable[[], float], sock: socket.socket) -> None:
        """Accept from ``sock``, which is bound and listening. See ``bind``."""
        self._receive = receive
        self._clock = clock
        self._complained_at = float("-inf")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(sock.getsockname()[:2], socketserver.BaseRequestHandler, bind_and_activate=False)
        self.socket.close()  # socketserver has made one of its own
        sock.setblocking(False)  # a client that has gone before it was accepted must not hold up this thread
        self.socket = sock
        self.server_address = sock.getsockname()[:2]

    def __repr__(self) -> str:
        return f"Listener(port={self.port}, accepting={self._thread is not None})"

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread = threading.Thread(
            target=self.serve_forever, name=f"smtp-accept-{self.port}", kwargs={"poll_interval": POLL_SECONDS}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Accept no more and close the port. Any number of times."""
        self._stopping.set()
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
            self._thread = None
        self.server_close()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        try:
            request, address = self.socket.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._complain(error)
                self._stopping.wait(PAUSE_SECONDS)
            raise  # socketserver goes on to the next
        return request, address[:2]

    def process_request(self, request: object, client_address: object) -> None:
        """Hand the connection over instead of starting a thread for it."""
        assert isinstance(request, socket.socket)  # noqa: S101 - for the type checker: it is what get_request returned
        assert isinstance(client_address, tuple)  # noqa: S101 - as above
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._receive(request, client_address[0])
        except (OSError, RuntimeError) as error:  # the peer is gone already, or there are no more threads
            self._complain(error)
            request.close()

    def server_close(self) -> None:
        self.socket.close()

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if now - self._complained_at >= COMPLAINT_SECONDS:
            self._complained_at = now
            log.warning("smtp.accept_failed port=%d why=%r", self.port, str(error))


def bind(host: str, port: int) -> socket.socket:
    """A socket listening at an IP address. ``::`` takes IPv4 as well. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::")
    except (OSError, OverflowError, ValueError) as error:
        raise ListenError(explain(host, port, error)) from None


def addresses_of(host: str) -> tuple[str, ...]:
    """The IP addresses to bind for ``smtpHost``; the first must succeed, the others may be missing on this machine."""
    if host.lower() == "localhost":
        return ("127.0.0.1", "::1")  # clients try either first
    if not host:
        return ("0.0.0.0",)  # noqa: S104 - what an empty host means to every server
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    except OSError:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {host!r}: {error}; set smtpHost to an address of this machine") from None
        return (str(found[0][4][0]),)
    return (host,)


def explain(host: str, port: int, error: Exception) -> str:
    """Why a port cannot be bound, and what to do about it."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return f"cannot listen on {place}: the port is taken by another process; stop that one or choose another port"
    if number in (errno.EACCES, errno.EPERM) and port < FIRST_UNPRIVILEGED_PORT:
        return (
            f"cannot listen on {place}: ports below {FIRST_UNPRIVILEGED_PORT} need a right. In a systemd unit set "
            "AmbientCapabilities=CAP_NET_BIND_SERVICE, or a .socket unit; or allow it for everybody with "
            f"sysctl net.ipv4.ip_unprivileged_port_start={port}; or choose another port, such as 2525"
        )
    if number == errno.EADDRNOTAVAIL:
        return f"cannot listen on {place}: no network interface of this machine has that address; correct smtpHost"
    return f"cannot listen on {place}: {error}"


def close_quietly(sock: socket.socket, farewell: bytes = b"") -> None:
    """Say ``farewell`` to a client that is not wanted, without waiting for it, and close."""
    with contextlib.suppress(OSError):
        if farewell:
            sock.setblocking(False)
            sock.send(farewell)
            sock.shutdown(socket.SHUT_WR)
    sock.close()
