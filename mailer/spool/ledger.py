"""The writer's connection to the database: transactions that happen whole or not at all, and the totals they keep.

Used by the spool's thread alone; ``totals`` may be read from any thread (a value, replaced whole).

How it fails: with sqlite3.Error, after a rollback. When the device failed, how much of the transaction has reached the disk is
not known: SQLite may find it whole in its log later. So the connection is given up, everything is read anew, and the next
transaction withdraws the submissions that were answered with an error.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable

from mailer.spool.batch import Batch, Tally
from mailer.spool.store import Totals


class Ledger:
    """``connect`` makes a connection; ``forget_readers`` is called when a fault makes all connections doubtful."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], forget_readers: Callable[[], None]) -> None:
        self._connect = connect
        self._forget_readers = forget_readers
        self._doubtful: set[str] = set()
        self.totals = Totals()
        self.next_seq = 1
        self._connection: sqlite3.Connection | None = None
        self._reconnect()

    def __repr__(self) -> str:
        return f"Ledger(open={self._connection is not None}, next_seq={self.next_seq}, doubtful={len(self._doubtful)})"

    def write(self, work: Callable[[Batch], None]) -> Batch:
        """Run ``work`` in a transaction and commit it durably; the batch that it filled."""
        connection = self._connection or self._reconnect()
        batch = Batch(connection, Tally.of(self.totals), self.next_seq)
        try:
            connection.execute("BEGIN IMMEDIATE")
            if self._doubtful:
                batch.withdraw(self._doubtful)
            work(batch)
            batch.save_totals()
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite has rolled some errors back itself
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        self._doubtful.clear()
        self.totals, self.next_seq = batch.tally.totals(), batch.next_seq
        return batch

    def distrust(self, submitted: Iterable[str]) -> None:
        """The device failed under a transaction with these submissions: begin anew from what is on disk."""
        self._doubtful.update(submitted)
        self.close()
        self._forget_readers()

    def rewind(self) -> bool:
        """Write the log back into the database, so that the next transaction overwrites it: that takes no space at all.

        SQLite does so by itself, but not while somebody reads: on a full disk the log may be as long as there was room for.
        """
        connection = self._connection or self._reconnect()
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        return not busy

    def give_back(self, pages: int, keep: int) -> bool:
        """Shrink the file by up to ``pages`` unused pages while more than ``keep`` are unused; whether it did."""
        connection = self._connection or self._reconnect()
        unused = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
        if unused <= keep:
            return False
        # As a script: execute() would stop at the statement's first row, which is the first page.
        connection.executescript(f"PRAGMA incremental_vacuum({min(pages, unused - keep)})")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return True

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _reconnect(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            row = connection.execute(
                "SELECT queued, parked, successful, failed, recipients, processing_seconds, queued_reports FROM totals"
            ).fetchone()
            self.totals = Totals(*row)
            self.next_seq = 1 + int(connection.execute("SELECT coalesce(max(seq), 0) FROM messages").fetchone()[0])
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

