"""A wake is never lost: what a caller did before it is seen by a step, though the service would rest for a minute."""

from __future__ import annotations

import threading

from mailer.service import Service
from tests.stress.together import THREADS, WAIT_SECONDS, many

ROUNDS = 500


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


def test_no_wake_is_lost() -> None:
    body = Counter()
    service = Service("stress", body)
    service.start()

    def ask(_: int) -> None:
        for _ in range(ROUNDS):
            answer = body.ask()
            service.wake()
            assert answer.wait(WAIT_SECONDS / 2), "the service sleeps over a wake"

    many(ask)
    service.stop()
    assert service.join(WAIT_SECONDS)
    assert body.seen == THREADS * ROUNDS
