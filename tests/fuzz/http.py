"""The HTTP server: what a client sends over one connection, up to its end.

Invariants: what comes back is whole answers and nothing else; no 5xx but those that say something true (501 for a
transfer coding, 503 of a health page, 505 for a version); the connection ends by itself; a handler never raises.
"""

from __future__ import annotations

import re
import socket
from functools import cache

from mailer.config.schema import Config
from mailer.web.connection import Connection, Patience
from mailer.web.guard import Guard
from mailer.web.site import Site
from tests.web.program import NOW, Program

_HEAD = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]+\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [ -~]*\r\n)*)\r\n")
_LENGTH = re.compile(rb"^Content-Length: ([0-9]+)\r$", re.MULTILINE)
_TRUE_FAULTS = {501, 503, 505}
WAIT_SECONDS = 10.0


class _Owner:
    """What a connection needs of its server."""

    may_linger = True
    patience = Patience(idle=WAIT_SECONDS, request=WAIT_SECONDS, answer=WAIT_SECONDS, linger=WAIT_SECONDS)

    def __init__(self) -> None:
        self.site = Site(Program(), Guard.of(Config()))

    def now(self) -> float:
        return NOW


class _OverPair(Connection):
    """A connection over a pair of sockets that are no TCP ones: a new port for each input would use them up."""

    disable_nagle_algorithm = False


@cache
def _owner() -> _Owner:
    return _Owner()


def check(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)  # the answers wait here to be read
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        _OverPair(theirs, ("127.0.0.1", 1), _owner())  # type: ignore[arg-type]  # it asks no more of a server
        theirs.close()
        ours.settimeout(WAIT_SECONDS)
        said = b""
        while piece := ours.recv(1 << 20):
            said += piece
    _check_answers(said, may_be_head=b"HEAD " in data)


def _check_answers(said: bytes, may_be_head: bool) -> None:
    at = 0
    while at < len(said):
        head = _HEAD.match(said, at)
        assert head is not None, said[at : at + 300]
        at = head.end()
        status = int(head[1])
        if status == 100:
            continue
        assert status < 500 or status in _TRUE_FAULTS, said[head.start() :]
        length = _LENGTH.search(head[2])
        assert length is not None, head[0]
        is_head = may_be_head and (at == len(said) or said.startswith(b"HTTP/1.1 ", at))
        if not is_head:
            assert len(said) - at >= int(length[1]), "an answer is cut short"
            at += int(length[1])
