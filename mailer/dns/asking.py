"""One question to nameservers and the answer as bytes: UDP, and TCP where the answer was cut short (RFC 1035 4.2, RFC 7766).

Only the header of a message is looked at here (RFC 1035 4.1.1). Each server is asked in turn, and again, and an answer that
comes late still counts; the whole takes no longer than it may. Sockets live for one question, in the caller's thread: each
has a port of its own, which with the random id makes an answer hard to forge (RFC 5452). Never raises for what a server does.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from mailer.dns.nameservers import Nameserver

TRIES = 2  # of each server: a datagram may get lost
MAX_DATAGRAM_BYTES = 65_535
HEADER_BYTES = 12
IS_RESPONSE = 0x80  # QR, in the third byte
IS_TRUNCATED = 0x02  # TC, in the third byte
RCODE = 0x0F  # in the fourth byte
ANSWERS = (0, 3)  # NOERROR and NXDOMAIN: the server knows; all else is its trouble
TCP_SHARE = 0.5  # of the time left, so that a server that is deaf on TCP leaves some to the next


class Heard(NamedTuple):
    """``wire``: the message, empty where no server sent one; ``why`` says then what was wrong, for people. ``silent``: the
    servers that were waited for in vain."""

    wire: bytes
    server: Nameserver | None
    why: str
    silent: frozenset[Nameserver]


def rcode_of(wire: bytes) -> int:
    return wire[3] & RCODE


def ask(servers: Sequence[Nameserver], query: bytes, seconds: float) -> Heard:
    """The first answer that says yes or no; failing that, the first refusal (SERVFAIL, REFUSED), or why there is nothing."""
    with contextlib.ExitStack() as stack:
        return _Question(servers, query, time.monotonic() + seconds, stack).run()


class _Question:
    def __init__(self, servers: Sequence[Nameserver], query: bytes, deadline: float, stack: contextlib.ExitStack) -> None:
        self._query = query
        self._deadline = deadline
        self._stack = stack  # closes the sockets
        self._tries = [*servers] * TRIES
        self._sockets: dict[Nameserver, socket.socket] = {}
        self._out: set[Nameserver] = set()  # have refused, or cannot be reached
        self._silent: set[Nameserver] = set()
        self._refusal: tuple[bytes, Nameserver] | None = None
        self._trouble = "no answer"

    def run(self) -> Heard:
        next_at = 0.0
        while (now := time.monotonic()) < self._deadline:
            if now >= next_at and self._tries:
                share = (self._deadline - now) / len(self._tries)
                next_at = now + share if self._say() else now
                continue
            if not self._tries and self._out.issuperset(self._sockets):
                break  # all have been heard, and none knows
            heard, someone_left = self._listen(min(next_at, self._deadline) if self._tries else self._deadline)
            if heard is not None:
                return heard
            if someone_left:
                next_at = 0.0
        if self._refusal is not None:
            return self._heard(*self._refusal)
        return Heard(b"", None, self._trouble, frozenset(self._silent))

    def _heard(self, wire: bytes, server: Nameserver) -> Heard:
        return Heard(wire, server, "", frozenset(self._silent - {server}))

    def _say(self) -> bool:
        """Ask the server whose turn it is; whether there is something to wait for."""
        server = self._tries.pop(0)
        if server in self._out:
            return False
        try:
            connection = self._sockets.get(server)
            if connection is None:
                family = socket.AF_INET6 if server.is_ipv6 else socket.AF_INET
                connection = self._stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                self._sockets[server] = connection
                connection.setblocking(False)
                # Connected: only this server's datagrams come in, and "port unreachable" is heard of at once.
                connection.connect((server.host, server.port))
            connection.send(self._query)
        except OSError as error:
            self._give_up(server, error)
            return False
        self._silent.add(server)
        return True

    def _listen(self, until: float) -> tuple[Heard | None, bool]:
        """What is heard up to ``until``, and whether a server dropped out, so that the next should be asked at once."""
        poll = select.poll()
        by_number = {}
        for server, connection in self._sockets.items():
            if server not in self._out:
                poll.register(connection, select.POLLIN)
                by_number[connection.fileno()] = server
        gone = len(self._out)
        for number, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000 + 1):
            heard = self._receive(by_number[number])
            if heard is not None:
                return heard, False
        return None, len(self._out) > gone

    def _receive(self, server: Nameserver) -> Heard | None:
        try:
            wire = self._sockets[server].recv(MAX_DATAGRAM_BYTES)
            if not self._is_answer(wire):
                return None  # forged, or an answer to nothing of ours: the true one may still come
            if wire[2] & IS_TRUNCATED:
                wire = self._ask_by_tcp(server)
        except BlockingIOError:
            return None
        except OSError as error:
            self._give_up(server, error)
            return None
        if rcode_of(wire) in ANSWERS:
            return self._heard(wire, server)
        self._refusal = self._refusal or (wire, server)
        self._out.add(server)
        self._silent.discard(server)
        return None

    def _give_up(self, server: Nameserver, error: OSError) -> None:
        self._out.add(server)
        self._silent.discard(server)
        self._trouble = f"{server}: {error.strerror or 'time-out over TCP'}"

    def _is_answer(self, wire: bytes) -> bool:
        """Whether this answers our question: the id, and the question repeated, names without letter case (RFC 5452 9.1).
        A server in trouble may leave the question out."""
        if len(wire) < HEADER_BYTES or wire[:2] != self._query[:2] or not wire[2] & IS_RESPONSE:
            return False
        if wire[4:6] == b"\0\0" and rcode_of(wire) not in ANSWERS:
            return True
        end = self._query.index(b"\0", HEADER_BYTES) + 5  # the name ends in an empty label; type and class follow
        return wire[4:6] == b"\0\1" and wire[HEADER_BYTES:end].lower() == self._query[HEADER_BYTES:end].lower()

    def _ask_by_tcp(self, server: Nameserver) -> bytes:
        """The whole answer. Raises OSError."""
        now = time.monotonic()
        ends = now + (self._deadline - now) * TCP_SHARE
        with socket.create_connection((server.host, server.port), timeout=max(0.001, ends - now)) as connection:
            connection.sendall(len(self._query).to_bytes(2, "big") + self._query)
            wire = _read(connection, int.from_bytes(_read(connection, 2, ends), "big"), ends)
        if not self._is_answer(wire) or wire[2] & IS_TRUNCATED:
            raise ConnectionError(0, "not an answer to what was asked, over TCP")
        return wire


def _read(connection: socket.socket, count: int, ends: float) -> bytes:
    """Exactly ``count`` bytes. Raises OSError."""
    data = b""
    while len(data) < count:
        connection.settimeout(max(0.001, ends - time.monotonic()))
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError(0, "closed the connection in the middle of an answer")
        data += piece
        if time.monotonic() > ends:
            raise TimeoutError
    return data
