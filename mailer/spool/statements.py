"""The statements of a transaction, each over many rows: one call into SQLite for up to 64 of them.

Each call gives up the interpreter and must win it back; under load that, not SQLite, is what a commit costs.

No threads, no locks: constants. Fails with sqlite3.Error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from mailer.spool.rows import MESSAGE_COLUMNS, RECIPIENT_COLUMNS

_SIZES = (64, 48, 32, *range(24, 0, -1))  # each size used becomes one prepared statement, a few KiB


class Rows:
    """A statement over many rows: ``head (?, …), (?, …) tail``. Their values come in one list, row after row."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        row = f"({', '.join('?' * width)})" if width > 1 else "?"
        self._texts = {size * width: f"{head}{', '.join([row] * size)}{tail}" for size in _SIZES}  # by number of values

    def run(self, connection: sqlite3.Connection, values: list[Any]) -> None:
        for text, parameters in self.pieces(values):
            connection.execute(text, parameters)

    def pieces(self, values: list[Any]) -> list[tuple[str, list[Any]]]:
        """The statements that cover all rows, each with its parameters."""
        if not values:
            return []
        text = self._texts.get(len(values))
        return [(text, values)] if text is not None else list(self._cut(values))

    def _cut(self, values: list[Any]) -> Iterator[tuple[str, list[Any]]]:
        start = 0
        while start < len(values):
            size = next(size for size in self._texts if size <= len(values) - start)  # the largest stands first
            yield self._texts[size], values[start : start + size]
            start += size


INSERT_MESSAGES = Rows(f"INSERT INTO messages (seq, {MESSAGE_COLUMNS}) VALUES ", 19)  # noqa: S608 - constants
INSERT_BODIES = Rows("INSERT INTO bodies (seq, data) VALUES ", 2)
PUT_RECIPIENTS = Rows(
    f"INSERT INTO recipients (seq, {RECIPIENT_COLUMNS}) VALUES ",  # noqa: S608 - constants
    11,
    " ON CONFLICT (seq, idx) DO UPDATE SET local_part = excluded.local_part, domain = excluded.domain,"
    " state = excluded.state, attempts = excluded.attempts, provider = excluded.provider, code = excluded.code,"
    " enhanced = excluded.enhanced, reply = excluded.reply, updated_at = excluded.updated_at",
)
UPDATE_MESSAGES = Rows(
    "WITH change (seq, state, turn, due_at, rounds, progress, waits_for, holder, lane, finished_at, body, recipients)"
    " AS (VALUES ",
    12,
    ") UPDATE messages SET state = change.state, turn = change.turn, due_at = change.due_at, rounds = change.rounds,"
    " progress = change.progress, waits_for = change.waits_for, holder = change.holder,"
    " lane = coalesce(change.lane, messages.lane), finished_at = change.finished_at, body = change.body,"
    " recipients = change.recipients FROM change WHERE messages.seq = change.seq",
)
DELETE_BODIES = Rows("DELETE FROM bodies WHERE seq IN (", 1, ")")
DELETE_WAITS = Rows("DELETE FROM waits WHERE seq IN (", 1, ")")
INSERT_WAITS = Rows("INSERT OR IGNORE INTO waits (seq, way) VALUES ", 2)
DELETE_USAGE = Rows("DELETE FROM usage WHERE name IN (", 1, ")")
INSERT_USAGE = Rows("INSERT INTO usage (name, span, start, count) VALUES ", 4)
KNOWN = Rows(
    "SELECT json_group_array(json_array(id, seq, state, holder, is_report, CAST(accepted_at * 4194304 AS INTEGER),"
    " CAST(finished_at * 4194304 AS INTEGER), recipients, body, waits_for <> '')) FROM messages WHERE id IN (",
    1,
    ")",
)
