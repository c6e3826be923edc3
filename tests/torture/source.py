"""The load: sessions that submit without a pause, over connections kept for a while or used once, across every restart.

A message counts as accepted only when the last byte of its 250 was read; one whose reply was not is unknown, and may come
or not. One thread a session, each with messages of its own; the book has the only shared state. A session whose connection
breaks tries again until the relay serves. How it fails: it does not; what it was told stands in the book, and ``silences``
counts the replies that did not come within ``REPLY_SECONDS``: a relay that hangs.
"""

from __future__ import annotations

import random
import socket
import threading
from dataclasses import dataclass
from types import TracebackType

from tests.torture.book import Book
from tests.torture.messages import NEVER, REFUSED, TAKEN, Message, on_the_wire, sender_of

REPLY_SECONDS = 60.0
"""Longer than any pause of a shared machine; a reply that takes so long is taken for a hang."""
RETRY_SECONDS = 0.02
END_SECONDS = REPLY_SECONDS + 10.0
READ_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent. ``kept``: messages a connection; every second session uses each connection once where ``mixed``.
    ``sizes``: bytes, drawn at random. ``never`` and ``refused``: one message in so many has such a recipient (0: none).
    ``pause_seconds``: between two messages of a session."""

    sessions: int = 8
    kept: int = 25
    mixed: bool = True
    sizes: tuple[int, ...] = (1_000,) * 10 + (4_000,) * 8 + (40_000, 300_000)
    never: int = 0
    refused: int = 0
    pause_seconds: float = 0.0


class Source:
    """Sessions against a port; see the module."""

    def __init__(self, port: int, book: Book, load: Load, seed: int = 1) -> None:
        self._port = port
        self._book = book
        self._load = load
        self._ends = threading.Event()
        self._lock = threading.Lock()  # guards silences
        self.silences = 0
        first = len(book.entries)  # tokens differ from those of an earlier source
        self._threads = [
            threading.Thread(target=self._session, args=(n, first, random.Random(f"{seed}/{first}/{n}")), name=f"source-{n}")
            for n in range(load.sessions)
        ]

    def __enter__(self) -> Source:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(END_SECONDS)

    def __repr__(self) -> str:
        return f"Source(port={self._port}, sessions={len(self._threads)}, silences={self.silences})"

    def _session(self, session: int, first: int, chance: random.Random) -> None:
        number = 0
        kept = 1 if self._load.mixed and session % 2 else self._load.kept
        while not self._ends.is_set():
            try:
                with Connection(self._port) as connection:
                    for _ in range(kept):
                        if self._ends.is_set():
                            break
                        number += 1
                        connection.submit(self._message(f"s{session}-{first}-{number}", chance), self._book)
                        self._ends.wait(self._load.pause_seconds)
                    connection.leave()
            except TimeoutError:
                with self._lock:
                    self.silences += 1
            except OSError:
                self._ends.wait(RETRY_SECONDS)

    def _message(self, token: str, chance: random.Random) -> Message:
        load = self._load
        domains: tuple[str, ...] = (TAKEN,)
        if load.never and chance.randrange(load.never) == 0:
            domains = (NEVER,)
        elif load.refused and chance.randrange(load.refused) == 0:
            domains = (TAKEN, REFUSED, TAKEN)
        return Message(token, sender_of(token), domains, chance.choice(load.sizes))


class Connection:
    """A client's connection. Every method raises OSError when it breaks, TimeoutError when a reply does not come."""

    def __init__(self, port: int) -> None:
        self._unread = b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._expect_2xx()
            self._socket.sendall(b"EHLO app.test\r\n")
            self._expect_2xx()
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()

    def submit(self, message: Message, book: Book) -> int:
        """Submit one message and enter what came of it; the code of the last reply."""
        recipients = message.recipients
        commands = [f"MAIL FROM:<{message.sender}>\r\n", *(f"RCPT TO:<{to}>\r\n" for to in recipients), "DATA\r\n"]
        self._socket.sendall("".join(commands).encode())
        codes = [self.reply()[0] for _ in commands]
        if codes[-1] != 354:
            self._socket.sendall(b"RSET\r\n")
            self.reply()
            return codes[-1]
        book.sent(message)
        self._socket.sendall(on_the_wire(message.content()))
        code, text = self.reply()
        if code == 250:
            book.accepted(message.token, text.split()[-1])
        else:
            book.refused(message.token, code)
        return code

    def leave(self) -> None:
        self._socket.sendall(b"QUIT\r\n")
        self.reply()

    def reply(self) -> tuple[int, str]:
        """One whole reply, to the last byte of its last line."""
        text = []
        while True:
            line = self._line()
            text.append(line[4:])
            if line[3:4] != "-":
                code = int(line[:3])
                if code == 421:
                    raise ConnectionAbortedError(line)
                return code, "\n".join(text)

    def _expect_2xx(self) -> None:
        code, text = self.reply()
        if not 200 <= code <= 299:
            raise ConnectionRefusedError(f"{code} {text}")

    def _line(self) -> str:
        while b"\r\n" not in self._unread:
            piece = self._socket.recv(READ_BYTES)
            if not piece:
                raise ConnectionResetError("the relay hung up")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line.decode("ascii", "replace")
