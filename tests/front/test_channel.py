"""Values cross from one process to the other whole and in order, whoever sends at the same time, and the end is told."""

from __future__ import annotations

import threading
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailer.front.channel import PACKET_BYTES, Channel, ChannelLost, Questions
from mailer.front.words import Word, envelope_of_value, envelope_to_value, error_of, fault_of
from mailer.mail.address import NULL_SENDER, Address
from mailer.mail.dsn import Dsn, Wish
from mailer.mail.envelope import Envelope, Options, Recipient
from mailer.spool.store import SpoolError, SpoolFull

SIZES = (0, 1, PACKET_BYTES - 100, PACKET_BYTES, PACKET_BYTES + 1, 3 * PACKET_BYTES)


@pytest.mark.parametrize("size", SIZES)
def test_value_of_any_size_arrives_as_it_was_sent(size: int) -> None:
    one, other = Channel.pair()
    value = (7, "text", bytes(range(256)) * (size // 256) + b"x" * (size % 256), None, [(1, 2.5)])
    sender = threading.Thread(target=one.send, args=(value,))
    sender.start()
    assert other.receive() == value
    sender.join()


def test_values_of_many_threads_arrive_whole_and_each_threads_in_its_order() -> None:
    one, other = Channel.pair()
    count, threads = 60, 8

    def send(name: int) -> None:
        for number in range(count):
            one.send((name, number, bytes([name]) * (SIZES[number % len(SIZES)])))

    senders = [threading.Thread(target=send, args=(name,)) for name in range(threads)]
    for sender in senders:
        sender.start()
    seen: dict[int, list[int]] = defaultdict(list)
    for _ in range(count * threads):
        value = other.receive()
        assert value is not None
        name, number, data = value
        assert data == bytes([name]) * SIZES[number % len(SIZES)]
        seen[name].append(number)
    for sender in senders:
        sender.join()
    assert all(numbers == list(range(count)) for numbers in seen.values())
    assert len(seen) == threads


def test_end_of_the_other_process_ends_the_values_and_refuses_more() -> None:
    one, other = Channel.pair()
    one.send((1,))
    one.close()
    assert other.receive() == (1,)
    assert other.receive() is None
    with pytest.raises(ChannelLost):
        other.send((2,))


def test_question_gets_its_own_answer_and_no_answer_is_an_error() -> None:
    one, other = Channel.pair()
    questions = Questions(one)

    def answer() -> None:
        first, second = other.receive(), other.receive()
        assert first is not None
        assert second is not None
        for value in (second, first):  # the other way round
            questions.answered(value[1], f"about {value[2]}")

    answers: dict[str, object] = {}

    def ask(about: str) -> None:
        answers[about] = questions.ask(Word.STORED_USAGE, about, timeout_seconds=30)

    threads = [threading.Thread(target=ask, args=(about,)) for about in ("a", "b")]
    threads.append(threading.Thread(target=answer))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"a": "about a", "b": "about b"}
    with pytest.raises(ChannelLost):
        questions.ask(Word.STORED_USAGE, "c", timeout_seconds=0.01)


def test_who_waits_for_an_answer_is_let_go_when_the_other_process_ends() -> None:
    one, other = Channel.pair()
    questions = Questions(one)
    failures: list[ChannelLost] = []

    def ask() -> None:
        try:
            questions.ask(Word.STORED_USAGE, "a")
        except ChannelLost as lost:
            failures.append(lost)

    thread = threading.Thread(target=ask)
    thread.start()
    assert other.receive() is not None  # it was asked
    questions.lost()
    thread.join()
    assert len(failures) == 1
    with pytest.raises(ChannelLost):
        questions.ask(Word.STORED_USAGE, "b")


DOMAINS = st.sampled_from(["example.org", "[127.0.0.1]", "bücher.example"])
ADDRESSES = st.builds(Address, st.text("abc.+é", min_size=1, max_size=8), DOMAINS)
BODIES = st.sampled_from(["", "7BIT", "8BITMIME"])
OPTIONS = st.builds(Options, BODIES, *[st.booleans()] * 3, *[st.text()] * 3, st.booleans())


@given(
    sender=st.one_of(ADDRESSES, st.just(NULL_SENDER)),
    recipients=st.lists(ADDRESSES, min_size=1, max_size=4),
    options=OPTIONS,
    at=st.floats(0, 4e9),
)
def test_new_envelope_crosses_unchanged(sender: Address, recipients: list[Address], options: Options, at: float) -> None:
    people = tuple(Recipient(index, address, updated_at=at) for index, address in enumerate(recipients))
    envelope = Envelope("id-1", sender, people, 12, at, options)
    assert envelope_of_value(envelope_to_value(envelope)) == envelope


@pytest.mark.parametrize("error", [SpoolFull("no room"), SpoolError("closed")])
def test_what_became_of_a_message_crosses_unchanged(error: SpoolError) -> None:
    found = error_of(fault_of(error))
    assert (type(found), str(found)) == (type(error), str(error))


def test_what_many_recipients_ask_about_reports_crosses_unchanged_in_pieces() -> None:
    people = tuple(Recipient(n, Address(f"r{n}", "example.org"), updated_at=1.0) for n in range(1000))
    dsn = Dsn("FULL", "x" * 100, tuple((r.address.text, Wish("NEVER", f"rfc822;{'y' * 480}{r.index}")) for r in people))
    envelope = Envelope("id-1", NULL_SENDER, people, 12, 1.0, Options(dsn=dsn.to_text(), require_tls=True))
    one, other = Channel.pair()
    sender = threading.Thread(target=one.send, args=((Word.ARRIVED, envelope_to_value(envelope), b"content"),))
    sender.start()
    value = other.receive()
    sender.join()
    assert value is not None
    assert len(envelope.options.dsn) > 3 * PACKET_BYTES
    assert envelope_of_value(value[1]) == envelope
    assert value[2] == b"content"
