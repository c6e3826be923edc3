"""The judgement: each kind of fault that the run is there to find is found when it is fed one, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.torture.book import DEAD, Book
from tests.torture.judge import Verdict, judge
from tests.torture.messages import NEVER, REFUSED, TAKEN, Message, on_the_wire, read, sender_of


def message(token: str = "s1-0-1", domains: tuple[str, ...] = (TAKEN,), size: int = 1000) -> Message:
    return Message(token, sender_of(token), domains, size)


def relayed(content: bytes, id_: str) -> bytes:
    """What a relay makes of a message: a Received line more."""
    trace = f"Received: from app.test by relay.test\r\n\twith ESMTP id {id_};\r\n\tWed, 1 Jan 2025 00:00:00 +0000\r\n"
    return trace.encode() + content


def arrive(book: Book, sent: Message, id_: str = "id1", content: bytes = b"", recipients: tuple[str, ...] = ()) -> None:
    book.came(read(relayed(content or sent.content(), id_), sent.sender, recipients or tuple(sent.recipients)))


def accepted(book: Book, sent: Message, id_: str = "id1") -> None:
    book.sent(sent)
    book.accepted(sent.token, id_)


@pytest.fixture
def book() -> Book:
    """One message promised and arrived."""
    made = Book()
    accepted(made, message("s9-0-9"), "id9")
    arrive(made, message("s9-0-9"), "id9")
    return made


def faults_of(book: Book, allowed: int = 0) -> tuple[int, int, int]:
    verdict = judge(book, allowed)
    return verdict.lost, verdict.mixed, verdict.duplicates


@pytest.mark.parametrize("size", [1, 70, 4096, 300_000])
def test_message_that_arrived_as_it_was_sent_is_in_order(book: Book, size: int) -> None:
    accepted(book, message(size=size))
    arrive(book, message(size=size))
    assert judge(book, 0) == Verdict(accepted=2, arrived=2, lost=0, mixed=0, duplicates=0, allowed=0)
    assert judge(book, 0).is_ok


def test_promised_message_that_never_came_is_lost(book: Book) -> None:
    accepted(book, message())
    assert faults_of(book) == (1, 0, 0)
    assert "s1-0-1 (id id1)" in judge(book, 0).examples[0]
    assert not judge(book, 0).is_ok


def test_recipient_who_got_nothing_is_a_loss_though_another_got_it(book: Book) -> None:
    sent = message(domains=(TAKEN, TAKEN))
    accepted(book, sent)
    arrive(book, sent, recipients=(sent.recipients[0],))
    assert faults_of(book) == (1, 0, 0)


def test_message_whose_250_was_not_read_may_come_or_not(book: Book) -> None:
    for token in ("s1-0-1", "s1-0-2"):
        book.sent(message(token))
    arrive(book, message("s1-0-2"), "id2")
    assert faults_of(book) == (0, 0, 0)
    assert judge(book, 0).accepted == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b"s1-0-1/5", b"s1-0-2/5", id="a line of another message"),
        pytest.param(b"/7 s1", b"/7 S1", id="one letter"),
        pytest.param(b"Subject: s1-0-1", b"Subject: s1-0-2", id="the header of another message"),
        pytest.param(b"\r\n.s1", b"\r\ns1", id="a dot that went missing"),
        pytest.param(b"\r\n.s1", b"\r\n..s1", id="a dot that was doubled"),
    ],
)
def test_changed_bytes_are_mixed_up(book: Book, old: bytes, new: bytes) -> None:
    sent = message()
    accepted(book, sent)
    assert old in sent.content()
    arrive(book, sent, content=sent.content().replace(old, new, 1))
    assert faults_of(book) == (0, 1, 0)


def test_message_cut_short_is_mixed_up(book: Book) -> None:
    accepted(book, message())
    arrive(book, message(), content=message().content()[:-70])
    assert faults_of(book) == (0, 1, 0)


def test_whole_message_under_the_envelope_of_another_is_mixed_up(book: Book) -> None:
    one, other = message("s1-0-1"), message("s1-0-2")
    accepted(book, one, "id1")
    accepted(book, other, "id2")
    arrive(book, other, "id2")
    arrive(book, one, "id1", recipients=tuple(other.recipients))
    lost, mixed, _ = faults_of(book)
    assert lost == 1
    assert mixed >= 1


def test_message_of_another_sender_is_mixed_up(book: Book) -> None:
    accepted(book, message())
    arrive(book, replace(message(), sender="s2@example.com"), content=message().content())
    assert faults_of(book) == (0, 1, 0)


def test_message_under_another_id_than_promised_is_mixed_up(book: Book) -> None:
    accepted(book, message(), "id1")
    arrive(book, message(), "id2")
    assert faults_of(book) == (0, 1, 0)


def test_two_messages_under_one_id_are_mixed_up(book: Book) -> None:
    for token in ("s1-0-1", "s1-0-2"):
        book.sent(message(token))
        arrive(book, message(token), "id1")
    assert faults_of(book) == (0, 1, 0)


def test_message_that_nobody_sent_is_mixed_up(book: Book) -> None:
    arrive(book, message("s7-7-7"), "id7")
    assert faults_of(book) == (0, 1, 0)


def test_arrival_that_is_no_message_of_ours_is_mixed_up(book: Book) -> None:
    book.came(read(b"Subject: hello\r\n\r\nhello\r\n", "a@example.com", ()))
    assert faults_of(book) == (0, 1, 0)


def test_message_that_came_though_it_was_refused_is_mixed_up(book: Book) -> None:
    book.sent(message())
    book.refused("s1-0-1", 451)
    arrive(book, message())
    assert faults_of(book) == (0, 1, 0)
    assert not judge(book, 0).is_ok


def test_every_copy_beyond_the_first_is_a_duplicate_and_too_many_are_a_fault(book: Book) -> None:
    accepted(book, message())
    for _ in range(3):
        arrive(book, message())
    assert faults_of(book) == (0, 0, 2)
    assert judge(book, 2).is_ok
    assert not judge(book, 1).is_ok


def test_refused_recipient_is_not_awaited_and_must_get_nothing(book: Book) -> None:
    sent = message(domains=(TAKEN, REFUSED))
    accepted(book, sent)
    arrive(book, sent, recipients=(sent.recipients[0],))
    assert faults_of(book) == (0, 0, 0)
    arrive(book, sent, recipients=(sent.recipients[1],))
    assert faults_of(book) == (0, 1, 0)


def test_message_that_nobody_takes_must_lie_among_the_dead(book: Book) -> None:
    sent = message(domains=(NEVER,))
    accepted(book, sent)
    assert faults_of(book) == (1, 0, 0)
    book.came(read(relayed(sent.content(), "id1"), sent.sender, tuple(sent.recipients)), DEAD)
    assert faults_of(book) == (0, 0, 0)


def test_message_among_the_dead_that_should_have_been_delivered_is_lost_and_in_the_wrong_place(book: Book) -> None:
    accepted(book, message())
    book.came(read(relayed(message().content(), "id1"), message().sender, tuple(message().recipients)), DEAD)
    assert faults_of(book) == (1, 1, 0)


def test_only_some_examples_are_named(book: Book) -> None:
    for number in range(10):
        accepted(book, message(f"s1-0-{number}"), f"id1{number}")
    assert len(judge(book, 0).examples) == 4
    assert "7 more" in judge(book, 0).examples[-1]


def test_what_is_owed_is_known_at_any_time(book: Book) -> None:
    assert book.owed() == []
    accepted(book, message())
    assert [token for token, _, _ in book.owed()] == ["s1-0-1"]
    assert not book.wait_for_sink(0.01)
    arrive(book, message())
    assert book.wait_for_sink(0.01)


def test_arrival_before_its_250_is_read_is_not_owed(book: Book) -> None:
    book.sent(message())
    arrive(book, message())
    book.accepted("s1-0-1", "id1")
    assert book.owed() == []


def test_dots_are_doubled_on_the_wire() -> None:
    assert on_the_wire(b".a\r\n.\r\nb\r\n") == b"..a\r\n..\r\nb\r\n.\r\n"
