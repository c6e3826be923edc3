"""The writer's connection: durable by its settings, and nothing that was refused comes back after a fault of the device."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailer.mail.content import MemoryContent
from mailer.spool import rows, tables
from mailer.spool.batch import ArrivalRows, Batch
from mailer.spool.ledger import Ledger
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Stored, Totals
from tests.spool.messages import T0, envelope, submit


def arrival(message_id: str) -> ArrivalRows:
    stored = Stored(envelope(message_id), "p", due_at=T0)
    recipients = [rows.recipient_row(recipient) for recipient in stored.envelope.recipients]
    return ArrivalRows(rows.message_row(stored, rows.BODY_ROW, 0), recipients, b"12345")


def open_ledger(data_dir: Path) -> Ledger:
    SqliteSpool.open(data_dir).close()
    return Ledger(lambda: tables.connect_writer(data_dir / "spool" / "mailer.db", 8 << 20), lambda: None)


def test_every_commit_is_fsynced(tmp_path: Path) -> None:
    SqliteSpool.open(tmp_path).close()
    connection = tables.connect_writer(tmp_path / "spool" / "mailer.db", 8 << 20)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (2048,)
    connection.close()


def test_content_that_goes_is_not_written_once_more(tmp_path: Path) -> None:
    """A SQLite that was built with SQLITE_SECURE_DELETE would write zeros over the pages of each delivered message."""
    SqliteSpool.open(tmp_path).close()
    connection = tables.connect_writer(tmp_path / "spool" / "mailer.db", 8 << 20)
    log = tmp_path / "spool" / "mailer.db-wal"
    connection.execute("INSERT INTO bodies VALUES (1, zeroblob(1000000))")
    before = log.stat().st_size
    connection.execute("DELETE FROM bodies")
    assert log.stat().st_size - before < 100_000
    connection.close()


def test_refused_submission_that_the_disk_had_all_the_same_is_withdrawn(tmp_path: Path) -> None:
    """A transaction may survive in the log though its fsync failed: its messages were refused and must not be sent."""
    ledger = open_ledger(tmp_path)
    ledger.write(lambda batch: batch.insert([arrival("kept")]))
    ledger.write(lambda batch: batch.insert([arrival("refused")]))
    ledger.distrust(["refused", "never-arrived"])
    ledger.write(lambda batch: None)
    assert ledger.totals == Totals(queued=1, recipients=1)
    ledger.close()
    spool = SqliteSpool.open(tmp_path)
    assert spool.find("refused") is None
    assert spool.find("kept") is not None
    assert spool.totals() == Totals(queued=1, recipients=1)
    spool.close()


def test_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)

    def fail(batch: Batch) -> None:
        batch.insert([arrival("half")])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ledger.write(fail)
    assert ledger.totals == Totals()
    ledger.write(lambda batch: batch.insert([arrival("whole")]))
    assert ledger.totals == Totals(queued=1, recipients=1)
    ledger.close()


def test_unused_pages_go_back_to_the_disk(tmp_path: Path) -> None:
    spool = SqliteSpool.open(tmp_path)
    for _ in range(40):
        spool.submit(envelope(size=100_000), MemoryContent(bytes(100_000)), "p")
    submit(spool)
    spool.close()
    file = tmp_path / "spool" / "mailer.db"
    full = file.stat().st_size
    ledger = open_ledger(tmp_path)
    ledger.write(lambda batch: batch.forget(list(range(1, 41))))
    while ledger.give_back(100, keep=10):
        pass
    ledger.close()
    assert full - file.stat().st_size > 3_000_000
    spool = SqliteSpool.open(tmp_path)
    assert len(spool.fetch_due(T0, 100, (), ())) == 1
    spool.close()
