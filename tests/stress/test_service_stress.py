"""A wake is never lost: what a caller did before it is seen by a step, though the service would rest for a minute."""

from __future__ import annotations

import threading

import pytest

from mailer.service import Service
from tests.stress.together import WAIT_SECONDS, many

ROUNDS = 3000  # of all together


class Counter:
    """A body that counts what was handed in, and tells each caller."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _asked
        self._asked: list[threading.Event] = []
        self.seen = 0  # the service's thread

    def ask(self) -> threading.Event:
        answer = threading.Event()
        with self._lock:
            self._asked.append(answer)
        return answer

    def step(self, now: float) -> float:
        with self._lock:
            asked, self._asked = self._asked, []
        for answer in asked:
            self.seen += 1
            answer.set()
        return WAIT_SECONDS * 2


@pytest.mark.parametrize("askers", [1, 3])
def test_no_wake_is_lost(askers: int) -> None:
    body, rounds = Counter(), ROUNDS // askers
    service = Service("stress", body)
    service.start()
    turn = threading.Barrier(askers)

    def ask(_: int) -> None:
        for _ in range(rounds):
            turn.wait(WAIT_SECONDS)  # so that some ask while others are being answered
            answer = body.ask()
            service.wake()
            assert answer.wait(WAIT_SECONDS / 2), "the service sleeps over a wake"

    many(ask, askers)
    service.stop()
    assert service.join(WAIT_SECONDS)
    assert body.seen == ROUNDS
