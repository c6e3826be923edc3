"""One SMTP client as applications are: it connects, waits for each answer, sends one message and leaves.

A plain socket, so that what is timed is the relay and not a library. No threads. Fails with ``BenchError``.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.traffic import BenchError

ANSWER_SECONDS = 60.0
LINE = b"X" * 78 + b"\r\n"


@dataclass(frozen=True, slots=True)
class Submission:
    """``seconds``: from before the connection until the 250 for the content; ``accepted_at``: that moment (monotonic)."""

    seconds: float
    accepted_at: float


def message(size_bytes: int) -> bytes:
    """A header and lines of 80 bytes, about ``size_bytes`` in all, with the final dot."""
    head = b"From: sender@bench.test\r\nTo: recipient@bench.test\r\nSubject: one\r\n\r\n"
    return head + LINE * (size_bytes // len(LINE)) + b".\r\n"


def submit(port: int, content: bytes) -> Submission:
    """Send one message over a connection of its own. Raises BenchError when it is not accepted."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _expect(connection, b"220")
        for command, code in (
            (b"EHLO client.test\r\n", b"250"),
            (b"MAIL FROM:<sender@bench.test>\r\n", b"250"),
            (b"RCPT TO:<recipient@bench.test>\r\n", b"250"),
            (b"DATA\r\n", b"354"),
            (content, b"250"),
        ):
            connection.sendall(command)
            _expect(connection, code)
        accepted_at = time.monotonic()
        connection.sendall(b"QUIT\r\n")
        _expect(connection, b"221")
    return Submission(accepted_at - begun, accepted_at)


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """So many connections that were greeted and then say nothing, for the time of a block."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS))
            _expect(connection, b"220")
        yield


def _expect(connection: socket.socket, code: bytes) -> None:
    answer = b""
    while not answer.endswith(b"\n") or answer[answer.rfind(b"\n", 0, -1) + 1 :][3:4] == b"-":
        piece = connection.recv(4096)
        if not piece:
            raise BenchError(f"the relay closed the connection after {answer!r}, where {code!r} was expected")
        answer += piece
    if not answer.startswith(code):
        raise BenchError(f"the relay answered {answer!r}, where {code!r} was expected")
