"""The spool's writer under many threads: what any of them was told is durable, is; every callback comes once; counts agree."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from functools import partial
from pathlib import Path

from mailer.mail.envelope import State
from mailer.spool import tables
from mailer.spool.places import Places
from mailer.spool.readers import Readers
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Record, SpoolError
from mailer.window import Bucket
from tests.spool.messages import T0, WAIT_SECONDS, ids, submit
from tests.stress.together import THREADS, many, together

ROUNDS = 60


def test_every_submission_and_every_record_is_kept_and_answered_once(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    lock = threading.Lock()  # guards the next two
    answered: Counter[str] = Counter()
    names: list[str] = []
    all_answered = threading.Semaphore(0)

    def use(number: int) -> None:
        for round_number in range(ROUNDS):
            name = submit(spool, f"m{number}-{round_number}", lane=f"lane{number % 3}")
            assert spool.find(name) is not None, "not there when its submission returned"

            def done(name: str = name) -> None:
                with lock:
                    answered[name] += 1
                all_answered.release()

            state, due_at = (State.SUCCESS, None) if round_number % 2 else (State.RETRYING, T0 + 100)
            spool.record(Record(name, state, due_at, at=T0), done)
            with lock:
                names.append(name)

    def disturb() -> None:
        for round_number in range(ROUNDS):
            spool.save_usage([Bucket("n", 60, int(T0) // 60 * 60, round_number)])
            spool.make_due(T0)
            assert spool.load_usage("n")[0].count == round_number
            spool.fetch_due(T0, 10, frozenset(), frozenset())

    together([*[partial(use, number) for number in range(THREADS)], disturb])
    for _ in names:
        assert all_answered.acquire(timeout=WAIT_SECONDS)
    totals = spool.totals()
    assert answered == Counter(names)
    assert (totals.queued, totals.successful) == (THREADS * ROUNDS / 2, THREADS * ROUNDS / 2)
    spool.close()
    again = SqliteSpool.open(tmp_path)
    due = [name for lane in range(3) for name in ids(again.fetch_due(T0 + 200, 10**6, frozenset(), other_lanes(lane)))]
    assert sorted(due) == sorted(name for name in names if int(name.rpartition("-")[2]) % 2 == 0)
    assert again.totals() == totals
    again.close()


def other_lanes(lane: int) -> frozenset[str]:
    return frozenset(f"lane{number}" for number in range(3) if number != lane)


def test_closing_amid_submissions_answers_each(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    taken: list[str] = []
    refused: list[str] = []
    some_taken = threading.Semaphore(0)

    def use(number: int) -> None:
        for round_number in range(10 * ROUNDS):
            name = f"m{number}-{round_number}"
            try:
                submit(spool, name)
            except SpoolError:
                refused.append(name)
                return
            taken.append(name)
            some_taken.release()

    def close() -> None:
        for _ in range(2 * THREADS):
            assert some_taken.acquire(timeout=WAIT_SECONDS)
        spool.close()

    together([*[partial(use, number) for number in range(THREADS)], close])
    assert len(refused) == THREADS
    again = SqliteSpool.open(tmp_path)
    assert set(ids(again.fetch_due(T0 + 1, 10**6, frozenset(), frozenset()))) == set(taken)
    again.close()


def test_no_connection_is_read_by_two_threads_and_all_are_closed(tmp_path: Path) -> None:
    SqliteSpool.open(tmp_path).close()
    path = Places(tmp_path).database
    made: list[sqlite3.Connection] = []
    lock = threading.Lock()  # guards in_hand
    in_hand: set[int] = set()

    def connect() -> sqlite3.Connection:
        made.append(tables.connect_reader(path))
        return made[-1]

    readers = Readers(path, connect, lambda reason: None)

    def read(number: int) -> None:
        for round_number in range(10 * ROUNDS):
            with readers.reading(is_snapshot=bool(round_number % 2)) as connection:
                with lock:
                    assert id(connection) not in in_hand, "in two hands"
                    in_hand.add(id(connection))
                assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
                with lock:
                    in_hand.remove(id(connection))
            if number == 0 and round_number % 10 == 0:
                readers.forget()

    many(read)
    readers.close()
    assert all(is_closed(connection) for connection in made)


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False
