"""Envelopes, recipients and message ids."""

from __future__ import annotations

import os
import re
import threading

import pytest

from mailer.mail.address import Address
from mailer.mail.envelope import NULL_SENDER, Envelope, Options, Recipient, State, is_message_id, new_message_id


def recipient(index: int, state: State) -> Recipient:
    return Recipient(index, Address(f"r{index}", "x.test"), state)


def test_owed_are_the_recipients_whose_fate_is_open() -> None:
    recipients = tuple(recipient(index, state) for index, state in enumerate(State))
    envelope = Envelope("id", NULL_SENDER, recipients, 0, 0.0)
    assert {one.state for one in envelope.owed} == {State.PENDING, State.SENDING, State.RETRYING}


@pytest.mark.parametrize(("state", "is_final"), [(state, state.name in ("SUCCESS", "FAILED")) for state in State])
def test_only_success_and_failed_are_final(state: State, is_final: bool) -> None:
    assert state.is_final is is_final


def test_an_envelope_is_a_value() -> None:
    def make() -> Envelope:
        return Envelope("id", Address("a", "x.test"), (recipient(0, State.PENDING),), 3, 1.0, Options(body="8BITMIME"))

    assert make() == make()
    assert hash(make()) == hash(make())


def test_an_id_is_fit_for_a_file_name_and_for_the_failed_store() -> None:
    for now in (0.0, 1.0, 1_700_000_000.123, 32_000_000_000.0):
        assert re.fullmatch(r"[0-9a-z]{17}", new_message_id(now))
        assert is_message_id(new_message_id(now))


@pytest.mark.parametrize("text", ["a", "A-b_c.d", "1700000000000", "x" * 64, "a..b"])
def test_what_the_go_program_used_as_an_id_is_one(text: str) -> None:
    assert is_message_id(text)


@pytest.mark.parametrize("text", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "a\0", "x" * 65, "é", "٣", "a\\b"])
def test_what_could_leave_the_folder_is_no_id(text: str) -> None:
    assert not is_message_id(text)


def test_ids_sort_by_time() -> None:
    times = [0.0, 0.001, 1.0, 1_700_000_000.0, 1_700_000_000.001, 1_900_000_000.0]
    ids = [new_message_id(now) for now in times]
    assert ids == sorted(ids)


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_message_id(1_700_000_000.0) for _ in range(5000)}) == 5000


def test_ids_made_on_both_sides_of_a_fork_differ() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, new_message_id(1_700_000_000.0).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with os.fdopen(reading, "rb") as theirs:
        os.close(writing)
        assert theirs.read().decode() != new_message_id(1_700_000_000.0)


def test_ids_made_by_many_threads_differ() -> None:
    made: list[list[str]] = [[] for _ in range(8)]

    def make(into: list[str]) -> None:
        into.extend(new_message_id() for _ in range(500))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for into in made for one in into}) == 4000
