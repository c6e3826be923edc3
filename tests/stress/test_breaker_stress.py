"""A breaker opens once, and lets one message probe, however many ask at the same moment."""

from __future__ import annotations

import threading

import pytest

from mailer.transport import breaker as module
from mailer.transport.breaker import CLOSED, FAULTS_TO_OPEN, OPEN, PROBING, Breaker
from tests.stress.together import THREADS, many

ROUNDS = 200
NOW = 1_700_000_000.0


def test_it_opens_once_and_one_message_probes() -> None:
    breaker = Breaker()
    turn = threading.Barrier(THREADS)
    opened = [0] * THREADS
    probes = [0] * THREADS
    closed = [0] * THREADS

    def use(number: int) -> None:
        now = NOW
        for _ in range(ROUNDS):
            turn.wait()
            opened[number] += breaker.fault(now) == OPEN
            now += 1000.0
            turn.wait()
            may_try, state = breaker.admit(now)
            assert may_try == (state == PROBING)
            probes[number] += may_try
            turn.wait()
            closed[number] += breaker.success() == CLOSED
            turn.wait()
            assert breaker.admit(now) == (True, None)

    assert FAULTS_TO_OPEN <= THREADS
    many(use)
    assert (sum(opened), sum(probes), sum(closed)) == (ROUNDS, ROUNDS, ROUNDS)


def test_every_fault_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    each = 10 * ROUNDS
    monkeypatch.setattr(module, "FAULTS_TO_OPEN", THREADS * each)
    breaker = Breaker()
    opened = [0] * THREADS

    def fail(number: int) -> None:
        for _ in range(each):
            opened[number] += breaker.fault(NOW) == OPEN

    many(fail)
    assert (sum(opened), breaker.state) == (1, OPEN), "it opens with the very last of them"


def test_a_probe_that_did_not_take_place_leaves_room_for_one_more() -> None:
    breaker = Breaker()
    for _ in range(FAULTS_TO_OPEN):
        breaker.fault(NOW)
    under_way = threading.Semaphore(1)

    def probe(_: int) -> None:
        for _ in range(ROUNDS):
            if breaker.admit(NOW + 1000.0)[0]:
                assert under_way.acquire(blocking=False), "two probes at once"
                under_way.release()
                breaker.release(NOW + 1000.0)

    many(probe)
    assert breaker.state == OPEN
    assert breaker.admit(NOW + 1000.0) == (True, PROBING)
