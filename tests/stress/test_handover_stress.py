"""What any thread hands to the spool's writer is taken once, and whoever reads gets a connection of his own."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

from mailer.spool.handover import Handover
from mailer.spool.readers import MOST_IDLE, Readers
from mailer.window import Bucket
from tests.stress.together import THREADS, many, together

ROUNDS = 2000


def test_everything_handed_over_is_taken_once() -> None:
    wakes: list[None] = []
    handover = Handover(lambda: wakes.append(None))
    taken: list[Any] = []
    left = THREADS
    lock = threading.Lock()  # guards left

    def hand_over(number: int) -> None:
        nonlocal left
        for round_number in range(ROUNDS):
            handover.announce((number, round_number), None, lambda outcomes: None)  # type: ignore[arg-type]  # any value
            handover.change(("change", number, round_number))  # type: ignore[arg-type]  # is passed on as it is
            if round_number % 100 == 0:
                handover.put_usage([Bucket(f"n{number}", 60, 0, round_number)])
        with lock:
            left -= 1

    def take() -> None:
        while True:
            with lock:
                is_last = left == 0
            group = handover.take(50)
            taken.extend(arrival.rows for arrival in group.arrivals)
            taken.extend(group.changes)
            handover.saved_usage(len(taken) % 2 == 0 or is_last)
            if is_last and not handover.has_more() and not group:
                return

    together([*[partial(hand_over, number) for number in range(THREADS)], take])
    handed = [(n, r) for n in range(THREADS) for r in range(ROUNDS)]
    changes = [("change", n, r) for n, r in handed]
    assert sorted(item for item in taken if len(item) == 2) == handed
    assert sorted(item for item in taken if len(item) == 3) == changes
    assert wakes


def test_nobody_is_given_anothers_connection(tmp_path: Path) -> None:
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        made.append(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))
        return made[-1]

    readers = Readers(tmp_path / "spool.db", connect, lambda reason: None)
    owner: dict[int, int] = {}

    def read(number: int) -> None:
        for _ in range(ROUNDS):
            with readers.reading() as connection:
                owner[id(connection)] = number
                assert owner[id(connection)] == number, "in two hands"

    many(read)
    assert len(made) <= MOST_IDLE
    readers.close()
    assert owner.keys() == {id(connection) for connection in made}
