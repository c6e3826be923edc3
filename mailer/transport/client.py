"""One conversation with one SMTP server, from the connection to its end: smtplib's client with a bounded reply reader,
time-outs that hold in total, and writes that take no more calls than the protocol needs.

A conversation belongs to one thread at a time and has no lock. It fails by raising one of ``faults.FOREIGN``; ``stage``
then says at which step. Sockets wait in real time, so the clock here is ``time.monotonic`` and no parameter.
"""

from __future__ import annotations

import contextlib
import math
import select
import smtplib
import socket
import ssl
import time
from collections.abc import Sequence

from mailer.mail.outcome import Reply, Stage
from mailer.transport.dial import SocketAddress, connect
from mailer.transport.faults import FOREIGN, Fault, lost, nonsense
from mailer.transport.wire import ReplyReader
from mailer.waits import STEP_SECONDS, bound_waits, rounded

LATE_REPLY_SECONDS = 2.0
"""How long to look for the reply that a server sent before it hung up in the middle of our content."""

FAREWELL_SECONDS = 0.5
"""How long to wait for the reply to QUIT: without it, closing looks like a reset to the server."""


class Conversation(smtplib.SMTP):
    """An SMTP conversation. ``timeout`` bounds each step, ``deadline`` (monotonic seconds) the whole.

    ``extensions``: the EHLO keywords in upper case; ``max_size``: the peer's SIZE, 0 when it states none.
    ``peer``: the server's name and address, where whoever opened it wrote them down for the log.
    ``tls``: its version, empty in clear text; ``is_verified``: the certificate was checked and is the server's.
    ``needs_reset``: a transaction was begun and not ended. ``sent``: messages begun here. ``idle_since``: see the pool.
    """

    def __init__(self, hostname: str, timeout: float) -> None:
        super().__init__(local_hostname=hostname, timeout=timeout)
        self.stage = Stage.CONNECT
        self.deadline = math.inf
        self.extensions: frozenset[str] = frozenset()
        self.max_size = 0
        self.peer = ""
        self.tls = ""
        self.is_verified = False
        self.needs_reset = False
        self.sent = 0
        self.idle_since = 0.0
        self._step_ends = 0.0  # monotonic; 0: the next wait begins a step
        self._bound = 0.0  # the time-out that the socket was told last
        self._poll: select.poll | None = None  # of ``sock``, made when first needed
        self._said: tuple[int, bytes] = (0, b"")
        self._reply = Reply(0, "", "")  # what ``_said`` is as a value
        self._replies = ReplyReader(self._receive)

    def __repr__(self) -> str:
        return f"Conversation(stage={self.stage.value}, sent={self.sent}, tls={self.tls or 'none'}, open={self.sock is not None})"

    # set-up

    def dial(self, addresses: Sequence[SocketAddress]) -> None:
        """Connect to the first address that answers (dial.py). Raises OSError."""
        self.stage = Stage.CONNECT
        self.tls = ""
        self.is_verified = False
        self._replies = ReplyReader(self._receive)
        self._step_ends = 0.0
        connection = connect(addresses, self._remaining())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # every write of ours waits for an answer
        self._use(connection)

    def greet(self) -> None:
        """The greeting, then EHLO. Raises Fault unless both are accepted."""
        code, text = self.getreply()
        if code != 220:
            raise Fault(received(code, text))
        self.introduce()

    def introduce(self) -> None:
        """EHLO: learn the extensions, forgetting earlier ones (RFC 3207 4.2)."""
        self.stage = Stage.EHLO
        code, text = self.ehlo()
        if code != 250:
            raise Fault(received(code, text))
        self.extensions = frozenset(name.upper() for name in self.esmtp_features)
        size = self.esmtp_features.get("size", "").strip()
        self.max_size = int(size) if size.isdigit() and len(size) < 19 else 0

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """STARTTLS and the handshake. After any failure the connection is broken: close it."""
        self.stage = Stage.TLS
        code, text = self.docmd("STARTTLS")
        if code != 220:
            raise Fault(received(code, text))
        if self.has_unread:
            # RFC 3207 4.2 and CVE-2011-0411: what was injected before the handshake must not count as said within it.
            raise nonsense("data before the TLS handshake")
        self.wrap(context, host)

    def wrap(self, context: ssl.SSLContext, host: str) -> None:
        """The TLS handshake, with the certificate checked against ``host``: a name or an address."""
        self.stage = Stage.TLS
        if self.sock is None:
            raise lost("connection is closed")
        self._step_ends = 0.0
        self.sock.settimeout(self._remaining())
        wrapped = context.wrap_socket(self.sock, server_hostname=host)
        self._use(wrapped)
        self.tls = wrapped.version() or "TLS"
        self.is_verified = context.verify_mode is ssl.CERT_REQUIRED
        self._replies = ReplyReader(self._receive)

    def _use(self, connection: socket.socket) -> None:
        self.sock = connection
        self._bound = 0.0
        self._poll = None

    # the wire

    def send(self, s: object) -> None:
        """Send all of ``s``. ``smtplib`` calls this for its own commands too."""
        if isinstance(s, bytes):
            data = s
        elif isinstance(s, str):
            data = s.encode()
        else:
            raise TypeError(f"cannot send {type(s).__name__}")
        self._step_ends = 0.0
        sent = self._send_some(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            rest = rest[self._send_some(rest) :]

    def getreply(self) -> tuple[int, bytes]:
        """The next reply: code and text. It is a step of its own: it must be complete within ``timeout``."""
        self._step_ends = 0.0
        return self._replies.read()

    def reply_of(self, code: int, text: bytes) -> Reply:
        """A reply as a value. The last one is remembered: most servers say the same words for each message."""
        said = code, text
        if said != self._said:
            self._said, self._reply = said, received(code, text)
        return self._reply

    def late_reply(self) -> Reply | None:
        """A refusal that arrived before the connection broke under our writing, or None."""
        self.deadline = min(self.deadline, time.monotonic() + LATE_REPLY_SECONDS)
        try:
            code, text = self.getreply()
        except FOREIGN:
            return None
        return received(code, text) if code >= 400 else None

    @property
    def has_unread(self) -> bool:
        """Whether the server has said more than it was asked."""
        return bool(self._replies.unread)

    @property
    def is_stale(self) -> bool:
        """Whether an idle connection cannot be used: it is readable, so the server closed it or said 421."""
        if self.sock is None or self._replies.unread:
            return True
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN)
        return bool(self._poll.poll(0))

    def leave(self) -> None:
        """QUIT, wait a moment for its reply (RFC 5321 4.1.1.10), and close."""
        if self.sock is not None:
            self.deadline = time.monotonic() + FAREWELL_SECONDS
            with contextlib.suppress(*FOREIGN):  # it is gone already: closing says the same
                self.docmd("QUIT")
        self.close()

    def _receive(self, count: int) -> bytes:
        try:
            return self._patient_socket().recv(count)
        except BlockingIOError:
            raise TimeoutError from None

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._patient_socket().send(data)
        except BlockingIOError:
            raise TimeoutError from None

    def _patient_socket(self) -> socket.socket:
        """The socket, which waits no longer than the step has left. Raises TimeoutError when that is nothing."""
        connection = self.sock
        if connection is None:
            raise lost("connection is closed")
        now, ends = time.monotonic(), self._step_ends  # as ``_remaining``, without a call more for each wait
        if not ends:
            ends = now + self.timeout
            self._step_ends = ends = ends if ends < self.deadline else self.deadline
        remaining = ends - now
        if remaining <= 0:
            raise TimeoutError
        if not self._bound - STEP_SECONDS < remaining <= self._bound:
            self._bound = rounded(remaining)
            bound_waits(connection, self._bound)
        return connection

    def _remaining(self) -> float:
        """Seconds that the step has left; the first time that they are asked for, it begins."""
        now = time.monotonic()
        self._step_ends = self._step_ends or min(now + self.timeout, self.deadline)
        if self._step_ends <= now:
            raise TimeoutError
        return self._step_ends - now


def received(code: int, text: bytes) -> Reply:
    """A reply from the peer as a value."""
    return Reply.received(code, text.decode("utf-8", "replace"))
