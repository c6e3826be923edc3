"""Messages for the tests of the spool."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from mailer.mail.address import Address
from mailer.mail.content import MemoryContent
from mailer.mail.envelope import Envelope, Options, Recipient, State, new_message_id
from mailer.mail.outcome import Reply
from mailer.spool.sqlite import SqliteSpool
from mailer.spool.store import Holder, Record, Stored

T0 = 1_800_000_000.25
WAIT_SECONDS = 30.0
DELIVERED = Reply(250, "2.0.0", "ok queued as 12345")
DEFERRED = Reply(451, "4.4.1", "later")


def envelope(
    message_id: str = "",
    sender: str = "app@example.com",
    to: Iterable[str] = ("x@example.org",),
    at: float = T0,
    options: Options | None = None,
    size: int = 5,
) -> Envelope:
    recipients = tuple(Recipient(i, Address.parse(text, smtputf8=True)) for i, text in enumerate(to))
    from_address = Address.parse(sender, smtputf8=True) if sender else Address("", "")
    return Envelope(message_id or new_message_id(), from_address, recipients, size, at, options or Options(client="127.0.0.1"))


def submit(spool: SqliteSpool, message_id: str = "", sender: str = "app@example.com", at: float = T0, lane: str = "p") -> str:
    message = envelope(message_id, sender, at=at)
    spool.submit(message, MemoryContent(b"hi\r\n."), lane)
    return message.id


def record(spool: SqliteSpool, change: Record) -> None:
    """Record and wait until it is durable."""
    done = threading.Event()
    spool.record(change, done.set)
    assert done.wait(WAIT_SECONDS)


def finish(spool: SqliteSpool, message_id: str, at: float = T0 + 1, state: State = State.SUCCESS) -> None:
    recipient = Recipient(0, Address.parse("x@example.org"), state, 1, "first:25", DELIVERED, at)
    record(spool, Record(message_id, state, None, (recipient,), rounds=1, at=at))


def defer(spool: SqliteSpool, message_id: str, due_at: float, at: float = T0, holder: Holder = Holder.SPOOL) -> None:
    recipient = Recipient(0, Address.parse("x@example.org"), State.RETRYING, 1, "first:25", DEFERRED, at)
    record(spool, Record(message_id, State.RETRYING, due_at, (recipient,), rounds=1, holder=holder, at=at))


def ids(found: Iterable[Stored]) -> list[str]:
    return [stored.envelope.id for stored in found]


def database(data_dir: Path) -> sqlite3.Connection:
    """The spool's database as anyone may read it; only while no spool has it open."""
    return sqlite3.connect(data_dir / "spool" / "mailer.db", isolation_level=None)


def many_messages(data_dir: Path, rows: Iterable[tuple[str, str, float, int]]) -> int:
    """Fill a closed spool with (lane, sender, due_at, turn) faster than submitting would."""
    connection = database(data_dir)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    cursor = connection.executemany(
        "INSERT INTO messages (id, sender, lane, state, turn, due_at, rounds, progress, waits_for, holder, body, crc, size,"
        " recipients, is_report, accepted_at, options) SELECT 'm' || (1 + coalesce(max(seq), 0)), ?2, ?1, 0, ?4, ?3, 0, '', '',"
        " 0, 1, 0, 5, 1, 0, ?3, '' FROM messages",
        rows,
    )
    count = cursor.rowcount
    connection.execute(
        "INSERT INTO recipients SELECT seq, 0, 'x', 'example.org', 0, 0, '', NULL, NULL, NULL, 0.0 FROM messages"
    )
    connection.execute("UPDATE totals SET queued = (SELECT count(*) FROM messages)")
    connection.execute("COMMIT")
    connection.close()
    return count
