"""One transaction: what arrived and what changed, written with a few statements over many rows.

Each call into SQLite gives up the interpreter and must win it back; under load that, not SQLite, is what a commit
costs. So a statement takes up to 64 rows at once, and what must be read first comes back as one JSON value.

Used by the writer's thread alone; no locks. Fails with sqlite3.Error, whereupon the writer rolls back: nothing here
changes anything outside the transaction but the ``Batch`` itself, which is then thrown away.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailer.spool.rows import (
    BODY_FILE,
    FAILED,
    FIRST_FINAL,
    MESSAGE_COLUMNS,
    NO_BODY,
    RECIPIENT_COLUMNS,
    SUCCESS,
    TICKS_A_SECOND,
    Row,
)
from mailer.spool.store import Holder, Totals
from mailer.window import Bucket

_SIZES = (64, 48, 32, *range(24, 0, -1))  # each size used becomes one prepared statement, a few KiB


class Rows:
    """A statement over many rows: ``head (?, …), (?, …) tail``."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        row = f"({', '.join('?' * width)})" if width > 1 else "?"
        self._texts = {size: f"{head}{', '.join([row] * size)}{tail}" for size in _SIZES}

    def pieces(self, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
        """The statements that cover ``rows``, each with its parameters."""
        start = 0
        while start < len(rows):
            left = len(rows) - start
            size = left if left <= 24 else next(s for s in _SIZES if s <= left)
            yield self._texts[size], [value for row in rows[start : start + size] for value in row]
            start += size

    def run(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
        for text, parameters in self.pieces(rows):
            connection.execute(text, parameters)


_INSERT_MESSAGES = Rows(f"INSERT INTO messages (seq, {MESSAGE_COLUMNS}) VALUES ", 19)  # noqa: S608 - constants
_INSERT_BODIES = Rows("INSERT INTO bodies (seq, data) VALUES ", 2)
_PUT_RECIPIENTS = Rows(
    f"INSERT INTO recipients (seq, {RECIPIENT_COLUMNS}) VALUES ",  # noqa: S608 - constants
    11,
    " ON CONFLICT (seq, idx) DO UPDATE SET local_part = excluded.local_part, domain = excluded.domain,"
    " state = excluded.state, attempts = excluded.attempts, provider = excluded.provider, code = excluded.code,"
    " enhanced = excluded.enhanced, reply = excluded.reply, updated_at = excluded.updated_at",
)
_UPDATE_MESSAGES = Rows(
    "WITH change (seq, state, turn, due_at, rounds, progress, waits_for, holder, lane, finished_at, body, recipients)"
    " AS (VALUES ",
    12,
    ") UPDATE messages SET state = change.state, turn = change.turn, due_at = change.due_at, rounds = change.rounds,"
    " progress = change.progress, waits_for = change.waits_for, holder = change.holder,"
    " lane = coalesce(change.lane, messages.lane), finished_at = change.finished_at, body = change.body,"
    " recipients = change.recipients FROM change WHERE messages.seq = change.seq",
)
_DELETE_BODIES = Rows("DELETE FROM bodies WHERE seq IN (", 1, ")")
_DELETE_WAITS = Rows("DELETE FROM waits WHERE seq IN (", 1, ")")
_INSERT_WAITS = Rows("INSERT OR IGNORE INTO waits (seq, way) VALUES ", 2)
_DELETE_USAGE = Rows("DELETE FROM usage WHERE name IN (", 1, ")")
_INSERT_USAGE = Rows("INSERT INTO usage (name, span, start, count) VALUES ", 4)
_KNOWN = Rows(
    "SELECT json_group_array(json_array(id, seq, state, holder, is_report, CAST(accepted_at * 4194304 AS INTEGER),"
    " CAST(finished_at * 4194304 AS INTEGER), recipients, body, waits_for <> '')) FROM messages WHERE id IN (",
    1,
    ")",
)


@dataclass(frozen=True, slots=True)
class ArrivalRows:
    """A new message as rows: ``message`` is ``MESSAGE_COLUMNS``, ``recipients`` rows of ``RECIPIENT_COLUMNS``."""

    message: Row
    recipients: Sequence[Row]
    body: bytes | None
    waits_for: Sequence[str] = ()

    @property
    def id(self) -> str:
        return str(self.message[0])


@dataclass(frozen=True, slots=True)
class ChangeRows:
    """A record as rows: ``change`` is what ``rows.change_row`` makes."""

    id: str
    change: Row
    recipients: Sequence[Row]
    waits_for: Sequence[str]


@dataclass(slots=True)
class _Known:
    """What a stored message was before this transaction, and what it becomes."""

    id: str
    seq: int
    state: int
    holder: int
    is_report: int
    accepted: float
    finished: float | None
    recipients: int
    body: int
    waits: bool
    change: Row | None = None


@dataclass(slots=True)
class Tally:
    """``Totals`` while they change: each message counts for its state and holder, so a change is old out, new in."""

    values: list[float]

    @classmethod
    def of(cls, totals: Totals) -> Tally:
        return cls([
            totals.queued, totals.parked, totals.successful, totals.failed, totals.recipients,
            totals.processing_seconds, totals.queued_reports,
        ])  # fmt: skip

    def totals(self) -> Totals:
        queued, parked, successful, failed, recipients, seconds, reports = self.values
        return Totals(int(queued), int(parked), int(successful), int(failed), int(recipients), seconds, int(reports))

    def count(self, sign: int, state: int, holder: int, is_report: int, seconds: float) -> None:
        """Count a message in (``sign`` 1) or out (-1); ``seconds`` from acceptance to its end."""
        values = self.values
        if is_report:
            if state < FIRST_FINAL:
                values[6] += sign
        elif state == SUCCESS:
            values[2] += sign
            values[5] += sign * max(0.0, seconds)
        elif state == FAILED:
            values[3] += sign
        elif holder == Holder.FILE.value:
            values[1] += sign
        else:
            values[0] += sign

    def count_recipients(self, number: int, is_report: int) -> None:
        if not is_report:
            self.values[4] += number


@dataclass(slots=True)
class Batch:
    """The transaction under way on ``connection``: ``tally`` becomes the totals, ``released`` the content files to unlink."""

    connection: sqlite3.Connection
    tally: Tally
    next_seq: int
    released: list[str] = field(default_factory=list)

    def insert(self, arrivals: Sequence[ArrivalRows]) -> None:
        messages, recipients, bodies, waits = [], [], [], []
        for seq, arrival in enumerate(arrivals, self.next_seq):
            message = arrival.message
            messages.append((seq, *message))
            recipients += [(seq, *row) for row in arrival.recipients]
            if arrival.body is not None:
                bodies.append((seq, arrival.body))
            waits += [(seq, way) for way in arrival.waits_for]
            state, holder, is_report = message[3], message[9], message[14]
            self.tally.count(1, state, holder, is_report, (message[16] or message[15]) - message[15])
            self.tally.count_recipients(len(arrival.recipients), is_report)
        self.next_seq += len(messages)
        _INSERT_MESSAGES.run(self.connection, messages)
        _PUT_RECIPIENTS.run(self.connection, recipients)
        _INSERT_BODIES.run(self.connection, bodies)
        _INSERT_WAITS.run(self.connection, waits)

    def change(self, changes: Sequence[ChangeRows]) -> list[str]:
        """Write ``changes`` in their order; returns the ids that no row has."""
        known = self._known({change.id for change in changes})
        unknown: list[str] = []
        recipients: list[Row] = []
        waits: dict[int, Sequence[str]] = {}
        for change in changes:
            message = known.get(change.id)
            if message is None:
                unknown.append(change.id)
                continue
            self._apply(message, change)
            recipients += [(message.seq, *row) for row in change.recipients]
            if message.waits or change.waits_for:
                message.waits = True
                waits[message.seq] = change.waits_for
        self._write(list(known.values()))
        _PUT_RECIPIENTS.run(self.connection, recipients)
        _DELETE_WAITS.run(self.connection, [(seq,) for seq in waits])
        _INSERT_WAITS.run(self.connection, [(seq, way) for seq, ways in waits.items() for way in ways])
        return unknown

    def put_usage(self, buckets: Iterable[Bucket]) -> None:
        """Store the buckets of some names in place of all that was stored for them."""
        rows = [(bucket.name, bucket.span, bucket.start, bucket.count) for bucket in buckets]
        _DELETE_USAGE.run(self.connection, [(name,) for name in {row[0] for row in rows}])
        _INSERT_USAGE.run(self.connection, rows)

    def withdraw(self, ids: Iterable[str]) -> None:
        """Remove messages whose submission was answered with an error though their transaction may have survived."""
        for message in self._known(set(ids)).values():
            self.tally.count(-1, message.state, message.holder, message.is_report, 0.0)
            self.tally.count_recipients(-message.recipients, message.is_report)
            self.forget([message.seq])
            if message.body == BODY_FILE:
                self.released.append(message.id)

    def forget(self, seqs: Sequence[int]) -> None:
        """Delete every row of these messages."""
        marks = ", ".join(str(int(seq)) for seq in seqs)
        for table in ("recipients", "bodies", "waits", "messages"):
            self.connection.execute(f"DELETE FROM {table} WHERE seq IN ({marks})")  # noqa: S608 - integers only

    def save_totals(self) -> None:
        self.connection.execute(
            "UPDATE totals SET queued = ?, parked = ?, successful = ?, failed = ?, recipients = ?,"
            " processing_seconds = ?, queued_reports = ? WHERE one = 1",
            self.tally.values,
        )

    def _known(self, ids: set[str]) -> dict[str, _Known]:
        found = {}
        for text, parameters in _KNOWN.pieces([(id_,) for id_ in ids]):
            for id_, seq, state, holder, is_report, accepted, finished, *rest in json.loads(
                self.connection.execute(text, parameters).fetchone()[0]
            ):
                ended = None if finished is None else finished / TICKS_A_SECOND
                found[id_] = _Known(id_, seq, state, holder, is_report, accepted / TICKS_A_SECOND, ended, *rest)
        return found

    def _apply(self, message: _Known, change: ChangeRows) -> None:
        """Take ``change`` into what ``message`` becomes, and count it."""
        state, holder, lane, finished = (change.change[i] for i in (0, 6, 7, 8))
        if lane is None and message.change is not None:
            lane = message.change[7]
        self._count(-1, message)
        if finished is not None and message.finished is not None:
            finished = message.finished  # it ended once; a later word about its file does not make it younger
        message.state, message.holder, message.finished = state, holder, finished
        message.change = (*change.change[:7], lane, finished)
        self._count(1, message)
        for row in change.recipients:
            if row[0] >= message.recipients:  # a hand-edited file may add recipients
                self.tally.count_recipients(row[0] + 1 - message.recipients, message.is_report)
                message.recipients = row[0] + 1

    def _count(self, sign: int, message: _Known) -> None:
        seconds = 0.0 if message.finished is None else message.finished - message.accepted
        self.tally.count(sign, message.state, message.holder, message.is_report, seconds)

    def _write(self, messages: list[_Known]) -> None:
        updates, bodies = [], []
        for message in messages:
            if message.change is None:
                continue
            if message.body != NO_BODY and (message.state >= FIRST_FINAL or message.holder != Holder.SPOOL.value):
                if message.body == BODY_FILE:
                    self.released.append(message.id)
                else:
                    bodies.append((message.seq,))
                message.body = NO_BODY
            updates.append((message.seq, *message.change, message.body, message.recipients))
        _UPDATE_MESSAGES.run(self.connection, updates)
        _DELETE_BODIES.run(self.connection, bodies)
