"""Fair fetching, and that it costs what it returns: counted in instructions of SQLite's machine, not in time."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailer.spool.fetch import Fetcher
from mailer.spool.readers import Readers
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder
from mailer.spool.tables import READY, WAITING, connect_reader
from tests.spool.messages import T0, defer, ids, many_messages, submit

T = TypeVar("T")

BACKLOG = 40_000
FEW_INSTRUCTIONS = 60_000  # a scan of the backlog is half a million
_TICK = 100  # instructions between two calls of SQLite's progress handler


class Counting:
    """A Fetcher on a database of its own connection, which counts the machine's instructions."""

    def __init__(self, data_dir: Path) -> None:
        path = data_dir / "spool" / "mailer.db"
        self.instructions = 0

        def connect() -> sqlite3.Connection:
            connection = connect_reader(path)
            connection.set_progress_handler(self._tick, _TICK)
            return connection

        self.readers = Readers(path, connect, pytest.fail)
        self.fetcher = Fetcher(self.readers, lambda lanes, now: None)

    def _tick(self) -> int:
        self.instructions += _TICK
        return 0

    def cost(self, call: Callable[[], T]) -> tuple[T, int]:
        before = self.instructions
        result = call()
        return result, self.instructions - before


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    SqliteSpool.open(tmp_path).close()
    return tmp_path


def test_longest_due_of_a_sender_comes_first_and_the_future_not_at_all(spool: SqliteSpool) -> None:
    submit(spool, "late", at=T0 + 2)
    submit(spool, "early", at=T0 - 2)
    submit(spool, "deferred", at=T0)
    defer(spool, "deferred", T0 + 60)
    assert ids(spool.fetch_due(T0 + 10, 10, (), ())) == ["early", "late"]
    assert ids(spool.fetch_due(T0 + 60, 10, (), ())) == [*["early", "deferred", "late"][:1], "late", "deferred"]


def test_held_messages_and_closed_lanes_are_passed_over(spool: SqliteSpool) -> None:
    for number in range(30):
        submit(spool, f"m{number:02}", at=T0 + number)
    submit(spool, "elsewhere", lane="closed")
    held = {f"m{number:02}" for number in range(25)}
    assert ids(spool.fetch_due(T0 + 99, 10, held, ["closed"])) == [f"m{number}" for number in range(25, 30)]
    assert sorted(spool.lanes()) == ["closed", "p"]
    assert spool.fetch_due(T0 + 99, 10, {f"m{number:02}" for number in range(30)}, {"closed"}) == []


def test_senders_take_turns_over_consecutive_calls(spool: SqliteSpool) -> None:
    """One sender's bulk must not come before another's single message."""
    for number in range(50):
        submit(spool, sender="bulk@example.com", at=T0 + number)
    for name in ("a", "z"):
        submit(spool, sender=f"{name}@example.com", at=T0 + 100)
    senders = []
    held: set[str] = set()
    for _ in range(6):
        (stored,) = spool.fetch_due(T0 + 200, 1, held, ())
        held.add(stored.envelope.id)
        senders.append(stored.envelope.sender.local_part)
    assert Counter(senders) == {"bulk": 4, "a": 1, "z": 1}
    assert set(senders[:3]) == {"a", "bulk", "z"}


def test_lanes_take_turns_over_consecutive_calls(spool: SqliteSpool) -> None:
    for lane in ("one", "two", "three"):
        for number in range(20):
            submit(spool, at=T0 + number, lane=lane, sender=f"s{number}@example.com")
    held: set[str] = set()
    lanes: list[str] = []
    for _ in range(12):
        found = spool.fetch_due(T0 + 99, 1, held, ())
        held.update(ids(found))
        lanes += [stored.lane for stored in found]
    assert Counter(lanes) == {"one": 4, "two": 4, "three": 4}
    assert all(len(set(lanes[i : i + 3])) == 3 for i in range(0, 12, 3))


def test_null_sender_has_its_turn_too(spool: SqliteSpool) -> None:
    submit(spool, "report", sender="")
    submit(spool, "other")
    assert sorted(ids(spool.fetch_due(T0, 5, (), ()))) == ["other", "report"]
    assert ids(spool.fetch_due(T0, 5, ["other"], ())) == ["report"]


def test_clock_set_back_does_not_make_new_mail_wait(spool: SqliteSpool) -> None:
    submit(spool, "new", at=T0)
    assert ids(spool.fetch_due(T0 - 86400, 5, (), ())) == ["new"]
    assert spool.oldest_due(T0 - 86400) == T0 - 86400


def test_next_due_merges_lanes_without_repeats(spool: SqliteSpool) -> None:
    for number, due in enumerate([60, 30, 60, 90, 10]):
        message_id = submit(spool, lane=f"lane{number % 2}")
        defer(spool, message_id, T0 + due)
    assert spool.next_due(T0, 10) == [T0 + 10, T0 + 30, T0 + 60, T0 + 90]
    assert spool.next_due(T0 + 10, 2) == [T0 + 30, T0 + 60]
    assert spool.next_due(T0 + 90, 10) == []
    assert spool.oldest_due(T0 + 29) == T0 + 10
    assert spool.oldest_due(T0 + 9) is None


def test_thousands_that_become_due_at_once_are_all_fetched(tmp_path: Path, empty: Path) -> None:
    many_messages(empty, (("p", f"s{i % 7}@e.com", T0, WAITING) for i in range(5000)))
    spool = SqliteSpool.open(tmp_path)
    assert spool.fetch_due(T0 - 1, 100, (), ()) == []
    held: set[str] = set()
    while found := spool.fetch_due(T0, 1000, held, ()):
        held.update(ids(found))
    assert len(held) == 5000
    spool.close()


def test_parked_messages_are_fetched_like_any(spool: SqliteSpool) -> None:
    submit(spool, "parked")
    defer(spool, "parked", T0 + 60, holder=Holder.FILE)
    (stored,) = spool.fetch_due(T0 + 60, 5, (), ())
    assert stored.holder is Holder.FILE


@pytest.mark.parametrize(
    ("name", "senders", "turn", "held"),
    [("one sender", 1, READY, 3000), ("as many senders", BACKLOG, READY, 3000), ("all later", BACKLOG, WAITING, 0)],
)
def test_fetching_from_a_long_backlog_costs_little(empty: Path, name: str, senders: int, turn: int, held: int) -> None:
    due = T0 + 900 if turn == WAITING else T0
    many_messages(empty, (("p", f"s{i % senders:06}@e.com", due + i / 1000, turn) for i in range(BACKLOG)))
    counting = Counting(empty)
    limit = 100
    holding = {f"m{number}" for number in range(1, held + 1)}
    found, cost = counting.cost(lambda: counting.fetcher.fetch_due(T0 + 800, limit, holding, ()))
    assert len(found) == (0 if turn == WAITING else limit)
    assert cost < FEW_INSTRUCTIONS + 100 * held
    for question in (
        lambda: counting.fetcher.next_due(T0, 10),
        counting.fetcher.lanes,
        lambda: counting.fetcher.oldest_due(T0 + 800),
    ):
        _, cost = counting.cost(question)
        assert cost < FEW_INSTRUCTIONS / 10
    counting.readers.close()


def test_sender_with_one_message_is_served_beside_one_with_a_long_backlog(empty: Path) -> None:
    bulk = [("p", "bulk@e.com", T0 + i / 1000, READY) for i in range(BACKLOG)]
    many_messages(empty, [*bulk, ("p", "single@e.com", T0 + 9999, READY)])
    counting = Counting(empty)
    found, cost = counting.cost(lambda: counting.fetcher.fetch_due(T0 + 10_000, 10, (), ()))
    assert f"m{BACKLOG + 1}" in ids(found)
    assert cost < FEW_INSTRUCTIONS
    counting.readers.close()


def test_closed_lane_with_a_long_backlog_costs_nothing(empty: Path) -> None:
    closed = [("closed", f"s{i}@e.com", T0, i % 2) for i in range(BACKLOG)]
    many_messages(empty, [*closed, ("open", "a@e.com", T0, READY)])
    counting = Counting(empty)
    found, cost = counting.cost(lambda: counting.fetcher.fetch_due(T0, 10, (), {"closed"}))
    assert ids(found) == [f"m{BACKLOG + 1}"]
    assert cost < FEW_INSTRUCTIONS / 10
    counting.readers.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 20)), max_size=40),
    st.integers(1, 12),
    st.sets(st.integers(1, 40)),
)
def test_every_due_message_is_fetched_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[int, int, int]], limit: int, holding: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    SqliteSpool.open(folder).close()
    many_messages(folder, [(f"lane{a}", f"s{b}@e.com", T0 + c, c % 2) for a, b, c in messages])
    spool = SqliteSpool.open(folder)
    held = {f"m{number}" for number in holding}
    expected = [f"m{i}" for i, (_, _, c) in enumerate(messages, 1) if (c <= 10 or c % 2 == READY) and f"m{i}" not in held]
    fetched: list[str] = []
    while found := ids(spool.fetch_due(T0 + 10, limit, {*held, *fetched}, ())):
        assert len(found) <= limit
        fetched += found
    spool.close()
    assert sorted(fetched) == sorted(expected)
