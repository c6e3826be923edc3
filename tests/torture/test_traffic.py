"""Load and provider of the run against each other, without a relay: exact to the message, whatever the connection does."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.torture.book import Book
from tests.torture.judge import judge
from tests.torture.messages import REFUSED, TAKEN, Message, sender_of
from tests.torture.sink import Mood, Sink
from tests.torture.source import Connection, Load, Source

WAIT_SECONDS = 20.0


class OneReply:
    """A server that takes one message and answers it with these bytes, then hangs up."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> OneReply:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(WAIT_SECONDS)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 hello\r\n")
            replies = {b"EHLO": b"250 ok\r\n", b"MAIL": b"250 ok\r\n", b"RCPT": b"250 ok\r\n", b"DATA": b"354 go\r\n"}
            while (line := lines.readline()) != b".\r\n":
                connection.sendall(replies.get(line[:4], b""))
            connection.sendall(self._answer)


def one(token: str = "s0-0-1", *domains: str) -> Message:
    return Message(token, sender_of(token), domains or (TAKEN,), 500)


def test_load_and_provider_agree_on_every_message() -> None:
    book = Book()
    with Sink(book) as sink, Source(sink.port, book, Load(sessions=4, kept=5, refused=5, sizes=(500, 5_000, 300_000))):
        assert book.wait_until(lambda: book.arrivals >= 100, WAIT_SECONDS)
    # The sink names no id, so every message comes under "" and is promised as "taken".
    verdict = judge(book, 0)
    assert (verdict.lost, verdict.duplicates) == (0, 0)
    assert verdict.accepted == len(book.entries) == verdict.arrived
    assert book.faults == []


def test_message_is_accepted_once_its_whole_250_is_read() -> None:
    book = Book()
    with OneReply(b"250-2.0.0 well\r\n250 2.0.0 queued as id7\r\n") as server, Connection(server.port) as connection:
        assert connection.submit(one(), book) == 250
    assert book.entries["s0-0-1"].id == "id7"


@pytest.mark.parametrize("answer", [b"", b"250 2.0.0 queued as id7", b"250-2.0.0 queued as id7\r\n", b"421 4.3.2 bye\r\n"])
def test_message_whose_250_is_not_whole_stays_unknown(answer: bytes) -> None:
    book = Book()
    with OneReply(answer) as server, Connection(server.port) as connection, pytest.raises(OSError, match=r".*"):
        connection.submit(one(), book)
    assert (book.promised, book.entries["s0-0-1"].id, book.entries["s0-0-1"].code) == (0, "", 0)


def test_message_that_was_refused_is_entered_as_refused() -> None:
    book = Book()
    with OneReply(b"452 4.3.1 full\r\n") as server, Connection(server.port) as connection:
        assert connection.submit(one(), book) == 452
    assert (book.promised, book.entries["s0-0-1"].code) == (0, 452)


@pytest.mark.parametrize(("mood", "code", "arrivals"), [(Mood.TAKES, 250, 1), (Mood.DEFERS, 451, 0), (Mood.DEFERS_SOME, 451, 0)])
def test_sink_takes_or_defers_by_its_mood(mood: Mood, code: int, arrivals: int) -> None:
    book = Book()
    with Sink(book) as sink, Connection(sink.port) as connection:
        sink.mood = mood
        assert connection.submit(one(), book) == code
        assert book.arrivals == arrivals


def test_sink_that_vanishes_has_entered_the_message_and_counts_it() -> None:
    book = Book()
    with Sink(book) as sink, Connection(sink.port) as connection:
        sink.mood = Mood.VANISHES_SOME
        with pytest.raises(ConnectionResetError):
            connection.submit(one(), book)
        assert (book.arrivals, sink.hang_ups, book.promised) == (1, 1, 0)


def test_sink_refuses_the_recipient_that_is_to_be_refused() -> None:
    book = Book()
    with Sink(book) as sink, Connection(sink.port) as connection:
        assert connection.submit(one("s0-0-1", TAKEN, REFUSED), book) == 250
    assert list(book.copies) == [("s0-0-1", "s0-0-1.0@example.org", "provider")]


def test_sink_that_is_closed_greets_nobody() -> None:
    with Sink(Book()) as sink:
        sink.mood = Mood.CLOSED
        with pytest.raises(OSError, match=r".*"):
            Connection(sink.port)
