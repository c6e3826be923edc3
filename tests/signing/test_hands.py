"""Signatures are made by threads of their own where the others share a processor."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mailer.signing import hands as module
from mailer.signing.hands import Hands
from mailer.signing.signature import SigningError

ALLOWED = os.sched_getaffinity(0)
TWO = frozenset({*ALLOWED, max(ALLOWED) + 1})
"""At least two, though this machine may have one: the kernel takes those that there are."""


def name_of_thread(_digest: bytes) -> bytes:
    return threading.current_thread().name.encode()


def processors_of_thread(_digest: bytes) -> bytes:
    return repr(sorted(os.sched_getaffinity(0))).encode()


@pytest.fixture
def hands() -> Hands:
    return Hands(TWO)


def test_with_one_processor_a_signature_is_made_where_it_is_asked_for() -> None:
    for few in (Hands(), Hands({0})):
        assert few.take(name_of_thread)(b"") == threading.current_thread().name.encode()


def test_with_more_it_is_made_by_a_thread_that_may_run_on_any_of_them(hands: Hands) -> None:
    assert hands.take(name_of_thread)(b"").startswith(b"signer-")
    assert hands.take(processors_of_thread)(b"") == repr(sorted(ALLOWED)).encode()
    hands.close()


def test_each_gets_its_own_answer(hands: Hands) -> None:
    sign = hands.take(lambda digest: digest[::-1])
    digests = [b"%d-digest" % number for number in range(500)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(sign, digests)) == [digest[::-1] for digest in digests]
    hands.close()


def test_threads_are_started_once_and_end_when_closed(hands: Hands) -> None:
    before = set(threading.enumerate())
    hands.take(name_of_thread)
    mine = set(threading.enumerate()) - before
    hands.take(processors_of_thread)
    assert set(threading.enumerate()) - before == mine
    assert len(mine) == min(len(TWO), module.MAX_THREADS)
    hands.close()
    for thread in mine:
        thread.join(30)
        assert not thread.is_alive()


def test_a_fault_is_no_signature_and_spoils_no_other(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)

    def fail(_digest: bytes) -> bytes:
        raise ValueError("no such thing")

    broken = hands.take(fail)
    with pytest.raises(SigningError, match="no signature came within"):
        broken(b"")
    monkeypatch.setattr(module, "ANSWER_SECONDS", 30.0)
    assert hands.take(bytes.upper)(b"a") == b"A"
    hands.close()
