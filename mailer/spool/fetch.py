"""What is due, fairly: lanes take turns, and within a lane senders do, however many messages or senders there are.

Messages that have become due stand in an index of (lane, sender, due_at). From the sender last served, a few seeks find the
next senders, and each gives its longest due message; so a call costs what it returns and what is ``held``, never what
waits. Messages whose time has come since are promoted into that index first, by the writer.

Threads: any; one lock guards where the turns stand, and is not held over reads. Fails with ``SpoolError``.
"""

from __future__ import annotations

import heapq
import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator

from mailer.spool.readers import Readers
from mailer.spool.rows import RECIPIENT_AS_JSON, STORED_AS_JSON, stored_of
from mailer.spool.store import Room, Stored
from mailer.spool.tables import READY, WAITING

MOST_RECIPIENTS = 20_000  # in one answer, so that 500 messages of 1,000 recipients do not fill the memory
SENDERS_A_READ = 64  # one call into SQLite for all of them
HEAD_ROWS = 4  # of each sender that is found, its first messages come along
_GROWTH = 4  # whoever needs more of one sender reads so many times more at once: 4,000 held messages in six reads

_NEXT_LANE = "SELECT min(lane) FROM messages WHERE turn = ? AND lane > ?"
_FIRST_LANE = "SELECT min(lane) FROM messages WHERE turn = ?"
_FIRST_DUE = "SELECT min(due_at) FROM messages WHERE turn = ? AND lane = ?"
_NEXT_DUE = "SELECT min(due_at) FROM messages WHERE turn = ? AND lane = ? AND due_at > ?"
_LINE = """
SELECT json_group_array(json_array(seq, id, recipients)) FROM (
  SELECT seq, id, recipients FROM messages WHERE turn = 0 AND lane = ?1 AND sender = {sender}
  ORDER BY due_at, seq LIMIT {limit})"""
_LONGER_LINE = _LINE.format(sender="?2", limit="?3")
_SENDERS = """
WITH RECURSIVE found (sender) AS (
  SELECT (SELECT min(sender) FROM messages WHERE turn = 0 AND lane = ?1 AND sender {operator} ?2)
  UNION ALL
  SELECT (SELECT min(m.sender) FROM messages m WHERE m.turn = 0 AND m.lane = ?1 AND m.sender > found.sender)
  FROM found WHERE found.sender IS NOT NULL LIMIT ?3
)
SELECT json_group_array(json_array(sender, json(({heads})))) FROM found WHERE sender IS NOT NULL"""
_HEADS = _LINE.format(sender="found.sender", limit=HEAD_ROWS)
_SENDERS_FROM = _SENDERS.format(operator=">=", heads=_HEADS)
_SENDERS_AFTER = _SENDERS.format(operator=">", heads=_HEADS)
_OF_SEQS = "WHERE seq IN (SELECT value FROM json_each(?))"
_MESSAGES = f"SELECT json_group_array({STORED_AS_JSON}) FROM messages {_OF_SEQS}"  # noqa: S608 - constants
_RECIPIENTS = f"SELECT json_group_array({RECIPIENT_AS_JSON}) FROM recipients {_OF_SEQS}"  # noqa: S608 - constants

Head = tuple[int, str, int]
"""A message in its sender's line: seq, id, number of recipients."""


class Fetcher:
    """Answers the schedule's questions. ``promote`` makes the lanes' messages that are due by then fetchable."""

    def __init__(self, readers: Readers, promote: Callable[[list[str], float], None]) -> None:
        self._readers = readers
        self._promote = promote
        self._lock = threading.Lock()  # guards the next two
        self._last_lane = ""
        self._last_sender: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Fetcher(last_lane={self._last_lane!r}, lanes={len(self._last_sender)})"

    def fetch_due(
        self, now: float, limit: int, held: Collection[str], closed: Collection[str], room: Room | None = None
    ) -> list[Stored]:
        """See ``store.Store.fetch_due``."""
        overdue = self._overdue_lanes(now, closed)
        if overdue:
            self._promote(overdue, now)
        known = held if isinstance(held, set | frozenset | dict) else frozenset(held)
        with self._lock:
            last_lane, last_sender = self._last_lane, dict(self._last_sender)
        with self._readers.reading(is_snapshot=True) as connection:
            lanes = [lane for lane in _lanes(connection, READY) if lane not in closed]
            start = next((i for i, lane in enumerate(lanes) if lane > last_lane), 0)
            lines = [_turns(connection, lane, last_sender.get(lane), known, room) for lane in lanes[start:] + lanes[:start]]
            picked, served = _take_turns(lines, limit)
            found = _load(connection, picked)
        with self._lock:
            if served:
                self._last_lane = served[-1][0]
            self._last_sender.update(served)
            for lane in self._last_sender.keys() - set(lanes) - set(closed):
                del self._last_sender[lane]
        return found

    def _overdue_lanes(self, now: float, closed: Collection[str]) -> list[str]:
        with self._readers.reading() as connection:
            return [
                lane
                for lane in _lanes(connection, WAITING)
                if lane not in closed and connection.execute(_FIRST_DUE, (WAITING, lane)).fetchone()[0] <= now
            ]

    def lanes_later_than(self, latest: float) -> list[str]:
        """The lanes in which something waits for a time later than that."""
        with self._readers.reading() as connection:
            return [
                lane
                for lane in _lanes(connection, WAITING)
                if connection.execute(_NEXT_DUE, (WAITING, lane, latest)).fetchone()[0] is not None
            ]

    def next_due(self, after: float, limit: int) -> list[float]:
        """See ``store.Store.next_due``: the lanes' times merged, one seek for each time that is returned."""
        with self._readers.reading(is_snapshot=True) as connection:
            lines = [_times(connection, turn, lane, after) for turn in (READY, WAITING) for lane in _lanes(connection, turn)]
            times = (time for time, _ in itertools.groupby(heapq.merge(*lines)))
            return list(itertools.islice(times, limit))

    def oldest_due(self, now: float) -> float | None:
        """See ``store.Store.oldest_due``. What has been due stays due when the clock is set back."""
        with self._readers.reading(is_snapshot=True) as connection:
            found = [
                min(time, now) if turn == READY else time
                for turn in (READY, WAITING)
                for lane in _lanes(connection, turn)
                if (time := connection.execute(_FIRST_DUE, (turn, lane)).fetchone()[0]) <= now or turn == READY
            ]
        return min(found, default=None)

    def lanes(self) -> list[str]:
        with self._readers.reading(is_snapshot=True) as connection:
            return sorted({*_lanes(connection, READY), *_lanes(connection, WAITING)})


def load_stored(connection: sqlite3.Connection, seqs: list[int]) -> list[Stored]:
    """The messages of these rows, in this order; those that are gone are left out."""
    wanted = json.dumps(seqs)
    messages = {row[0]: row for row in json.loads(connection.execute(_MESSAGES, (wanted,)).fetchone()[0])}
    recipients: dict[int, list[list[object]]] = {seq: [] for seq in seqs}
    for row in json.loads(connection.execute(_RECIPIENTS, (wanted,)).fetchone()[0]):
        recipients[row[0]].append(row)
    return [stored_of(messages[seq], recipients[seq]) for seq in seqs if seq in messages]


def _load(connection: sqlite3.Connection, picked: list[Head]) -> list[Stored]:
    return load_stored(connection, [seq for seq, _, _ in picked]) if picked else []


def _lanes(connection: sqlite3.Connection, turn: int) -> list[str]:
    """The lanes that have messages with this turn: one seek each."""
    lanes: list[str] = []
    lane = connection.execute(_FIRST_LANE, (turn,)).fetchone()[0]
    while lane is not None:
        lanes.append(lane)
        lane = connection.execute(_NEXT_LANE, (turn, lane)).fetchone()[0]
    return lanes


def _times(connection: sqlite3.Connection, turn: int, lane: str, after: float) -> Iterator[float]:
    time = after
    while (time := connection.execute(_NEXT_DUE, (turn, lane, time)).fetchone()[0]) is not None:
        yield time


Turns = Iterator[tuple[str, str, Head]]
"""Lane, sender, message; in the order in which they are served."""


def _take_turns(lines: list[Turns], limit: int) -> tuple[list[Head], list[tuple[str, str]]]:
    """One message from each line in turn, until ``limit``; and the (lane, sender) of each."""
    picked: list[Head] = []
    served: list[tuple[str, str]] = []
    recipients = 0
    while lines and len(picked) < limit:
        for line in list(lines):
            turn = next(line, None)
            if turn is None:
                lines.remove(line)
                continue
            lane, sender, head = turn
            recipients += head[2]
            if len(picked) >= limit or (picked and recipients > MOST_RECIPIENTS):
                return picked, served
            picked.append(head)
            served.append((lane, sender))
    return picked, served


def _turns(connection: sqlite3.Connection, lane: str, last: str | None, held: Collection[str], room: Room | None) -> Turns:
    """The messages of one lane: one of each sender behind ``last`` and round again, then a second of each, and so on."""
    lines: list[tuple[str, Iterator[Head]]] = []
    for sender, heads in _senders(connection, lane, last):
        if room is not None and not room.is_left(lane):
            break
        line: Iterator[Head] = (head for head in _line(connection, lane, sender, heads) if head[1] not in held)
        if room is not None:
            line = _with_room(line, room, lane, sender)
        first = next(line, None)
        if first is not None:
            lines.append((sender, line))
            yield lane, sender, first
    while lines:
        left: list[tuple[str, Iterator[Head]]] = []
        for sender, line in lines:
            head = next(line, None)
            if head is not None:
                left.append((sender, line))
                yield lane, sender, head
        lines = left


def _with_room(line: Iterator[Head], room: Room, lane: str, sender: str) -> Iterator[Head]:
    return itertools.takewhile(lambda _: room.take(lane, sender), line)


def _senders(connection: sqlite3.Connection, lane: str, last: str | None) -> Iterator[tuple[str, list[Head]]]:
    """The senders with a message due, each with its first ones: those behind ``last``, then the others."""
    if last is not None:
        yield from _senders_between(connection, lane, last, None)
    yield from _senders_between(connection, lane, None, last)


def _senders_between(
    connection: sqlite3.Connection, lane: str, after: str | None, until: str | None
) -> Iterator[tuple[str, list[Head]]]:
    query, position = (_SENDERS_FROM, "") if after is None else (_SENDERS_AFTER, after)
    while True:
        found = json.loads(connection.execute(query, (lane, position, SENDERS_A_READ)).fetchone()[0])
        for sender, heads in found:
            if until is not None and sender > until:
                return
            yield sender, heads
        if len(found) < SENDERS_A_READ:
            return
        query, position = _SENDERS_AFTER, found[-1][0]


def _line(connection: sqlite3.Connection, lane: str, sender: str, heads: list[Head]) -> Iterator[Head]:
    """The messages of one sender, the longest due first; read again in longer and longer pieces."""
    seen, limit = 0, HEAD_ROWS
    while True:
        yield from heads[seen:]
        if len(heads) < limit:
            return
        seen, limit = len(heads), limit * _GROWTH
        heads = json.loads(connection.execute(_LONGER_LINE, (lane, sender, limit)).fetchone()[0])
