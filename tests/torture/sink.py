"""The provider of the run: an SMTP server that enters every message in the book before it answers for it.

It keeps no content, only what ``messages.read`` makes of it. One thread accepts, one serves each connection; a lock guards
the set of open connections. It never fails of what the relay does: a connection that breaks is over, the book stays.
What it says can be changed while it runs: ``mood`` is read anew for every message.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from types import TracebackType

from tests.torture.book import Book
from tests.torture.messages import NEVER, REFUSED, read

READ_BYTES = 256 * 1024
BACKLOG = 256
END_SECONDS = 10.0
_END = b"\r\n.\r\n"
_EHLO = b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"


class Mood(enum.Enum):
    """How the sink meets a message."""

    TAKES = "takes"
    DEFERS = "defers"  # every message after its dot
    DEFERS_SOME = "defers every third"
    CLOSED = "closed"  # hangs up on every connection
    VANISHES_SOME = "vanishes"  # takes every tenth message and hangs up without a word: the relay must try again


class Sink:
    """See the module. ``hang_ups``: recipients of messages taken whose 250 was never sent, so the relay has to
    send to them again."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.mood = Mood.TAKES
        self.hang_ups = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()  # guards _open, _threads, _count and hang_ups
        self._count = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="sink", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Sink(port={self.port}, mood={self.mood.value}, open={len(self._open)})"

    def close(self) -> None:
        """End every connection and thread."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(END_SECONDS)
        self.hang_up()
        for thread in self._threads:
            thread.join(END_SECONDS)

    def hang_up(self) -> None:
        """End every connection there is, also amid an answer: the relay cannot know then that its message was taken."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.mood is Mood.CLOSED:
                connection.close()
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._serve, args=(connection,), name="sink-connection", daemon=True)
            with self._lock:
                self._open.add(connection)
                self._threads = [t for t in self._threads if t.is_alive()] + [thread]
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            _Connection(self, connection).run()
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def note_cut(self, recipients: int) -> None:
        """The 250 of a message that is entered could not be sent: by a relay that died, or since we hung up."""
        with self._lock:
            if self.mood is Mood.CLOSED:
                self.hang_ups += recipients

    def judge_message(self, recipients: int) -> Mood:
        """What is done with the next message: TAKES, DEFERS, or VANISHES_SOME for taken without a word."""
        with self._lock:
            mood, number = self.mood, self._count
            self._count += 1
            vanishes = mood is Mood.VANISHES_SOME and number % 10 == 0
            self.hang_ups += recipients if vanishes else 0
        if mood in (Mood.CLOSED, Mood.DEFERS) or (mood is Mood.DEFERS_SOME and number % 3 == 0):
            return Mood.DEFERS
        return Mood.VANISHES_SOME if vanishes else Mood.TAKES


class _Connection:
    """One conversation. Raises OSError when it is over."""

    def __init__(self, sink: Sink, connection: socket.socket) -> None:
        self._sink = sink
        self._socket = connection
        self._unread = b""
        self._sender = ""
        self._recipients: list[str] = []

    def run(self) -> None:
        self._socket.sendall(b"220 sink.test ESMTP\r\n")
        while True:
            answers = []
            while b"\r\n" in self._unread:
                line, _, self._unread = self._unread.partition(b"\r\n")
                answers.append(self._answer(line))
                if answers[-1].startswith((b"354", b"221")):
                    break
            self._socket.sendall(b"".join(answers))
            if answers and answers[-1].startswith(b"221"):
                return
            if answers and answers[-1].startswith(b"354"):
                self._take(self._content())
            else:
                self._read()

    def _answer(self, line: bytes) -> bytes:
        verb, _, argument = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                return _EHLO
            case b"MAIL":
                self._sender, self._recipients = _address(argument), []
                return b"250 2.1.0 ok\r\n"
            case b"RCPT":
                return self._judge_recipient(_address(argument))
            case b"DATA":
                return b"354 go ahead\r\n" if self._recipients else b"554 5.5.1 no valid recipients\r\n"
            case b"RSET":
                self._recipients = []
                return b"250 2.0.0 ok\r\n"
            case b"NOOP" | b"HELO":
                return b"250 2.0.0 ok\r\n"
            case b"QUIT":
                return b"221 2.0.0 bye\r\n"
        return b"500 5.5.1 what\r\n"

    def _judge_recipient(self, address: str) -> bytes:
        if address.endswith(f"@{REFUSED}"):
            return b"550 5.1.1 no such user\r\n"
        if address.endswith(f"@{NEVER}"):
            return b"451 4.2.1 not now\r\n"
        self._recipients.append(address)
        return b"250 2.1.5 ok\r\n"

    def _take(self, wire: bytes) -> None:
        content = (b"\r\n" + wire).replace(b"\r\n..", b"\r\n.")[2:]
        fate, recipients = self._sink.judge_message(len(self._recipients)), tuple(self._recipients)
        if fate is Mood.DEFERS:
            self._socket.sendall(b"451 4.3.0 not now\r\n")
            return
        self._sink.book.came(read(content, self._sender, recipients))
        self._recipients = []
        if fate is Mood.VANISHES_SOME:
            raise ConnectionAbortedError
        try:
            self._socket.sendall(b"250 2.0.0 taken\r\n")
        except OSError:
            self._sink.note_cut(len(recipients))
            raise

    def _content(self) -> bytes:
        """Everything up to the dot, dot-stuffed; what follows it stays unread."""
        pieces, seen = bytearray(b"\r\n" + self._unread), 0
        while (end := pieces.find(_END, max(0, seen - len(_END)))) < 0:
            seen = len(pieces)
            self._unread = b""
            self._read()
            pieces += self._unread
        self._unread = bytes(pieces[end + len(_END) :])
        return bytes(pieces[2 : end + 2])

    def _read(self) -> None:
        piece = self._socket.recv(READ_BYTES)
        if not piece:
            raise ConnectionResetError
        self._unread += piece


def _address(argument: bytes) -> str:
    return argument.partition(b"<")[2].partition(b">")[0].decode("ascii", "replace")
