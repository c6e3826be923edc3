"""A large backlog, submitted fast: as many sessions as it takes, each sending with PIPELINING."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

from tests.support.relay import WAIT_SECONDS, Relay

SESSIONS = 8  # side by side, so that their messages share commits


def submit_many(relay: Relay, count: int, sender: str, to: str = "to@example.org") -> None:
    """Submit so many messages of one sender; returns when all are accepted."""
    errors: list[Exception] = []
    left = iter(range(count))
    lock = threading.Lock()  # guards left

    def work() -> None:
        try:
            _session(relay.smtp_port, _numbers(left, lock), sender, to)
        except (OSError, AssertionError) as error:
            errors.append(error)

    threads = [threading.Thread(target=work, name=f"backlog-{n}") for n in range(SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _numbers(left: Iterator[int], lock: threading.Lock) -> Iterator[int]:
    while True:
        with lock:
            number = next(left, None)
        if number is None:
            return
        yield number


def _session(port: int, numbers: Iterator[int], sender: str, to: str) -> None:
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as connection, connection.makefile("rb") as replies:
        _expect(replies.readline(), b"220")
        connection.sendall(b"HELO backlog.test\r\n")
        _expect(replies.readline(), b"250")
        for number in numbers:
            connection.sendall(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode())
            for code in (b"250", b"250", b"354"):
                _expect(replies.readline(), code)
            connection.sendall(f"Subject: backlog\r\n\r\nnumber {number}\r\n.\r\n".encode())
            _expect(replies.readline(), b"250")


def _expect(line: bytes, code: bytes) -> None:
    if not line.startswith(code):
        raise AssertionError(f"expected {code!r}, the relay says {line!r}")
