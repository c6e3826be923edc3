"""Between the two processes: every value arrives once and whole, every question gets its own answer, and an end lets go."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from pathlib import Path

from mailer.front.channel import PACKET_BYTES, Channel, ChannelLost, Questions
from mailer.front.hearing import RemoteIntake
from mailer.front.words import Word, envelope_of_value
from mailer.mail.content import MemoryContent
from mailer.spool.places import Places
from mailer.spool.store import SpoolError
from tests.spool.messages import envelope
from tests.stress.together import THREADS, WAIT_SECONDS, many, together

ROUNDS = 150
LARGE_EVERY = 2


def text_of(number: int, round_number: int) -> bytes:
    size = PACKET_BYTES * 5 // 4 if round_number % LARGE_EVERY == 0 else 10
    return f"{number}-{round_number} ".encode() * (size // 8)


def test_every_value_arrives_once_whole_and_in_its_senders_order() -> None:
    ours, theirs = Channel.pair()
    arrived: list[tuple[int, int]] = []

    def send(number: int) -> None:
        for round_number in range(ROUNDS):
            ours.send((number, round_number, text_of(number, round_number)))

    def receive() -> None:
        for _ in range(THREADS * ROUNDS):
            value = theirs.receive()
            assert value is not None
            number, round_number, text = value
            assert text == text_of(number, round_number)
            arrived.append((number, round_number))

    together([*[partial(send, number) for number in range(THREADS)], receive])
    for number in range(THREADS):
        assert [r for n, r in arrived if n == number] == list(range(ROUNDS))
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_every_question_gets_its_own_answer_and_none_waits_for_ever() -> None:
    ours, theirs = Channel.pair()
    questions = Questions(ours)
    answered = Counter[int]()
    lost = Counter[int]()

    def ask(number: int) -> None:
        for round_number in range(ROUNDS * 2):
            try:
                answer = questions.ask(Word.STORED_USAGE, f"{number}-{round_number}", timeout_seconds=WAIT_SECONDS / 2)
            except ChannelLost:
                lost[number] += 1
                return
            assert answer == f"{number}-{round_number}"
            answered[number] += 1

    def answer_all() -> None:
        """Answers one behind, so that they come out of order; then goes, with questions unanswered."""
        kept: list[tuple[int, str]] = []
        for _ in range(THREADS * ROUNDS // 2):
            value = theirs.receive()
            assert value is not None
            kept.append((value[1], value[2]))
            if len(kept) > 3:
                questions.answered(*kept.pop(1))
        questions.lost()
        theirs.close()

    together([*[partial(ask, number) for number in range(THREADS)], answer_all])
    assert lost == Counter(range(THREADS))
    assert 0 < answered.total() <= THREADS * ROUNDS // 2
    ours.close()


def test_every_session_hears_of_its_own_message(tmp_path: Path) -> None:
    ours, theirs = Channel.pair()
    intake = RemoteIntake(ours, Places(tmp_path))
    kept = Counter[str]()
    refused = Counter[str]()
    let_go = threading.Barrier(THREADS + 1)

    def accept(number: int) -> None:
        for round_number in range(ROUNDS):
            name = f"m{number}-{round_number}"
            try:
                intake.accept(envelope(name), MemoryContent(name.encode()))
            except SpoolError as error:
                refused[str(error)] += 1  # the name, if it is the right one
            else:
                kept[name] += 1
        let_go.wait(WAIT_SECONDS)
        try:
            intake.accept(envelope(f"late-{number}"), MemoryContent(b""))
        except SpoolError:
            refused[f"late-{number}"] += 1

    def keep() -> None:
        for _ in range(THREADS * ROUNDS):
            value = theirs.receive()
            assert value is not None
            name = envelope_of_value(value[1]).id
            assert value[2] == name.encode()
            intake.settled([(name, (False, name) if name.endswith("7") else None)])
        theirs.end()
        intake.lost()
        let_go.wait(WAIT_SECONDS)  # only now: who is under way at the end hears nothing, as its process ends too

    together([*[partial(accept, number) for number in range(THREADS)], keep])
    names = [f"m{number}-{round_number}" for number in range(THREADS) for round_number in range(ROUNDS)]
    assert kept == Counter(name for name in names if not name.endswith("7"))
    assert refused == Counter([name for name in names if name.endswith("7")] + [f"late-{number}" for number in range(THREADS)])
    many(lambda _: ours.end())
    ours.close()
    theirs.close()
