"""One transaction: what arrived and what changed, written with a few statements over many rows.

Rows go in by statements over many of them (``statements``), and what must be read first comes back as one JSON value.

Used by the writer's thread alone; no locks. Fails with sqlite3.Error, whereupon the writer rolls back: nothing here
changes anything outside the transaction but the ``Batch`` itself, which is then thrown away.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailer.spool import statements
from mailer.spool.rows import BODY_FILE, FAILED, FIRST_FINAL, NO_BODY, SUCCESS, TICKS_A_SECOND, Row
from mailer.spool.store import Holder, Totals
from mailer.window import Bucket

_IN_SPOOL, _IN_FILE = Holder.SPOOL.value, Holder.FILE.value


@dataclass(slots=True)  # not frozen, like the next: that would make each a microsecond dearer
class ArrivalRows:
    """A new message as rows: ``message`` is ``MESSAGE_COLUMNS``, ``recipients`` rows of ``RECIPIENT_COLUMNS``."""

    message: Row
    recipients: Sequence[Row]
    body: bytes | None
    waits_for: Sequence[str] = ()

    @property
    def id(self) -> str:
        return str(self.message[0])


@dataclass(slots=True)
class ChangeRows:
    """A record as rows: ``change`` is what ``rows.change_row`` makes. ``done`` is called once it is durable."""

    id: str
    change: Row
    recipients: Sequence[Row]
    waits_for: Sequence[str]
    done: Callable[[], None]


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
            if seconds > 0.0:
                values[5] += sign * seconds
        elif state == FAILED:
            values[3] += sign
        elif holder == _IN_FILE:
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

    def insert(self, arrivals: Iterable[ArrivalRows]) -> None:
        messages: list[Any] = []
        recipients: list[Any] = []
        bodies: list[Any] = []
        waits: list[Any] = []
        seq = self.next_seq
        for arrival in arrivals:
            message = arrival.message
            messages += (seq, *message)
            for row in arrival.recipients:
                recipients += (seq, *row)
            if arrival.body is not None:
                bodies += (seq, arrival.body)
            for way in arrival.waits_for:
                waits += (seq, way)
            state, holder, is_report, accepted, finished = message[3], message[9], message[14], message[15], message[16]
            self.tally.count(1, state, holder, is_report, 0.0 if finished is None else finished - accepted)
            self.tally.count_recipients(len(arrival.recipients), is_report)
            seq += 1
        self.next_seq = seq
        statements.INSERT_MESSAGES.run(self.connection, messages)
        statements.PUT_RECIPIENTS.run(self.connection, recipients)
        statements.INSERT_BODIES.run(self.connection, bodies)
        statements.INSERT_WAITS.run(self.connection, waits)

    def change(self, changes: Sequence[ChangeRows]) -> list[str]:
        """Write ``changes`` in their order; returns the ids that no row has."""
        if not changes:
            return []
        known = self._known({change.id for change in changes})
        unknown: list[str] = []
        recipients: list[Any] = []
        waits: dict[int, Sequence[str]] = {}
        for change in changes:
            if change.id not in known:
                unknown.append(change.id)
                continue
            message = known[change.id]
            self._apply(message, change)
            seq = message.seq
            for row in change.recipients:
                recipients += (seq, *row)
            if message.waits or change.waits_for:
                message.waits = True
                waits[seq] = change.waits_for
        self._write(known.values())
        statements.PUT_RECIPIENTS.run(self.connection, recipients)
        if waits:
            statements.DELETE_WAITS.run(self.connection, list(waits))
            pairs = [(seq, way) for seq, ways in waits.items() for way in ways]
            statements.INSERT_WAITS.run(self.connection, [value for pair in pairs for value in pair])
        return unknown

    def put_usage(self, buckets: Iterable[Bucket]) -> None:
        """Store the buckets of some names in place of all that was stored for them."""
        names: set[str] = set()
        values: list[Any] = []
        for bucket in buckets:
            names.add(bucket.name)
            values += (bucket.name, bucket.span, bucket.start, bucket.count)
        statements.DELETE_USAGE.run(self.connection, list(names))
        statements.INSERT_USAGE.run(self.connection, values)

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
        for text, parameters in statements.KNOWN.pieces(list(ids)):
            for id_, seq, state, holder, is_report, accepted, finished, *rest in json.loads(
                self.connection.execute(text, parameters).fetchone()[0]
            ):
                ended = None if finished is None else finished / TICKS_A_SECOND
                found[id_] = _Known(id_, seq, state, holder, is_report, accepted / TICKS_A_SECOND, ended, *rest)
        return found

    def _apply(self, message: _Known, change: ChangeRows) -> None:
        """Take ``change`` into what ``message`` becomes, and count it."""
        state, turn, due_at, rounds, progress, waits_for, holder, lane, finished = change.change
        is_report, ended = message.is_report, message.finished
        self.tally.count(
            -1, message.state, message.holder, is_report, 0.0 if ended is None else ended - message.accepted
        )
        if lane is None and message.change is not None:
            lane = message.change[7]
        if finished is not None and ended is not None:
            finished = ended  # it ended once; a later word about its file does not make it younger
        message.state, message.holder, message.finished = state, holder, finished
        message.change = (state, turn, due_at, rounds, progress, waits_for, holder, lane, finished)
        self.tally.count(1, state, holder, is_report, 0.0 if finished is None else finished - message.accepted)
        for row in change.recipients:
            if row[0] >= message.recipients:  # a hand-edited file may add recipients
                self.tally.count_recipients(row[0] + 1 - message.recipients, is_report)
                message.recipients = row[0] + 1

    def _write(self, messages: Iterable[_Known]) -> None:
        updates: list[Any] = []
        bodies: list[Any] = []
        for message in messages:
            if message.change is None:
                continue
            body = message.body
            if body != NO_BODY and (message.state >= FIRST_FINAL or message.holder != _IN_SPOOL):
                if body == BODY_FILE:
                    self.released.append(message.id)
                else:
                    bodies.append(message.seq)
                message.body = body = NO_BODY
            updates += (message.seq, *message.change, body, message.recipients)
        statements.UPDATE_MESSAGES.run(self.connection, updates)
        statements.DELETE_BODIES.run(self.connection, bodies)
