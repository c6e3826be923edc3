"""One question at a time for each key, everybody gets its answer, and there is never more than may be kept."""

from __future__ import annotations

import random
import threading
import time
from functools import partial

from mailer.dns.memory import Memory
from tests.stress.together import many

ROUNDS = 400
KEYS = 12
MAX_ENTRIES = 6


def test_no_key_is_asked_for_twice_at_once_and_no_answer_goes_astray() -> None:
    memory: Memory[int, tuple[int, int]] = Memory(MAX_ENTRIES, time.monotonic)
    under_way = [threading.Lock() for _ in range(KEYS)]  # one is held while its key is asked for
    asked = [0] * KEYS

    def ask(key: int, draw: random.Random) -> tuple[tuple[int, int], float]:
        assert under_way[key].acquire(blocking=False), "asked for twice at once"
        try:
            asked[key] += 1
            if draw.random() < 0.1:
                raise OSError("broken")
            return (key, asked[key]), draw.choice((0.0, 0.001, 60.0))
        finally:
            under_way[key].release()

    def use(number: int) -> None:
        draw = random.Random(number)
        for _ in range(ROUNDS):
            key = draw.randrange(KEYS)
            try:
                told = memory.recall(key, partial(ask, key, draw))
            except OSError:
                continue
            assert told[0] == key
            assert 0 < told[1] <= asked[key]
            assert len(memory) <= MAX_ENTRIES
            if draw.random() < 0.01:
                memory.forget()

    many(use)
    assert "asking=0" in repr(memory)
    assert sum(asked) > KEYS
