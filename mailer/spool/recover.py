"""Recovery of a damaged database: what can be read is carried over into a new one, the old one goes to quarantine.

Runs at start, before anything else uses the spool, in steps that may be cut at any point and are then taken up again:
the new database is built as ``mailer.db.new``, renamed to ``mailer.db.carried`` once complete, the old files are set aside, and
the new one takes their place. No threads, no locks. Fails with OSError or sqlite3.Error when the disk does.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailer.spool import rows, tables
from mailer.spool.batch import ArrivalRows, Batch, Tally
from mailer.spool.places import Places, keep_bytes, set_aside, sync_directory, write_durably
from mailer.spool.salvage import Salvage
from mailer.spool.store import Stored, Totals

log = logging.getLogger(__name__)

_BATCH_MESSAGES = 500  # carried over in one transaction; with 256 KiB each 128 MiB at worst


def recover(places: Places, reason: str) -> None:
    """Set the damaged database aside for ``reason``; a new one with all that was readable stands in its place."""
    log.error("spool.recovering path=%s reason=%r", places.database, reason)
    if not places.carried.exists():
        write_durably(places.damaged, [reason.encode("utf-8", "replace"), b"\n"])
        building = places.spool / "mailer.db.new"
        _remove_database(building)
        tables.create(building)
        carried = _carry_over(places, building)
        building.rename(places.carried)
        sync_directory(places.spool)
        log.error(
            "spool.recovered messages=%d unreadable=%d quarantine=%s: the old database and content that no message owns go there",
            carried.messages, carried.unreadable, places.quarantine,
        )  # fmt: skip
    _put_in_place(places, reason)


@dataclass(slots=True)
class _Carried:
    messages: int = 0
    unreadable: int = 0


def _carry_over(places: Places, target: Path) -> _Carried:
    carried = _Carried()
    connection = sqlite3.connect(target, isolation_level=None)
    try:
        with Salvage(places.database, places.quarantine) as salvage:
            totals = salvage.totals()
            tally = Tally.of(Totals())
            batch = Batch(connection, tally, 1)
            pending: list[ArrivalRows] = []
            for row in salvage.messages():
                arrival = _arrival_of(places, salvage, row)
                if arrival is None:
                    carried.unreadable += 1
                    continue
                carried.messages += 1
                pending.append(arrival)
                if len(pending) >= _BATCH_MESSAGES:
                    _insert(batch, pending)
                    pending = []
            _insert(batch, pending)
            batch.tally = _merged(tally, totals)
            connection.execute("BEGIN")
            batch.save_totals()
            for bucket in salvage.usage():
                connection.execute("INSERT INTO usage (name, span, start, count) VALUES (?, ?, ?, ?)", bucket)
            connection.execute("COMMIT")
    finally:
        connection.close()  # the last connection writes the log back into the file
    return carried


def _insert(batch: Batch, arrivals: list[ArrivalRows]) -> None:
    """Insert in one transaction; when a damaged page has shown a message twice, one by one."""
    if not arrivals:
        return
    before, seq = list(batch.tally.values), batch.next_seq
    batch.connection.execute("BEGIN")
    try:
        batch.insert(arrivals)
    except sqlite3.IntegrityError:
        batch.connection.execute("ROLLBACK")
        batch.tally.values, batch.next_seq = before, seq
        if len(arrivals) > 1:
            for arrival in arrivals:
                _insert(batch, [arrival])
        return
    batch.connection.execute("COMMIT")


def _merged(counted: Tally, stored: Totals | None) -> Tally:
    """What waits is counted from the rows; what has ended was counted over a longer time than rows are kept."""
    if stored is None:
        return counted
    now = counted.totals()
    return Tally.of(
        Totals(
            now.queued, now.parked, stored.successful, stored.failed, stored.recipients, stored.processing_seconds,
            now.queued_reports,
        )
    )  # fmt: skip


def _arrival_of(places: Places, salvage: Salvage, row: tuple[Any, ...]) -> ArrivalRows | None:
    """The message of a row of ``messages`` with what belongs to it; None when no use can be made of it."""
    seq, id_, body, crc, declared = row[0], row[1], row[11], row[12], row[14]
    recipients, all_read = salvage.recipients(seq)
    data = salvage.body(seq) if body == rows.BODY_ROW else None
    try:
        stored = rows.stored_of(rows.as_read(row), recipients)
    except rows.Unreadable as error:
        _set_content_aside(places, seq, id_, data, f"message {id_!r}: {error}")
        return None
    if not stored.state.is_final and not (all_read and recipients and len(recipients) >= declared):
        known = ", ".join(str(r.address) for r in stored.envelope.recipients) or "none"
        reason = f"message {id_} from <{stored.envelope.sender}>: of {declared} recipients only these are readable: {known}"
        _set_content_aside(places, seq, id_, data, reason)
        if not recipients:
            return None
    return _arrival(stored, body, crc, data)


def _arrival(stored: Stored, body: int, crc: int, data: bytes | None) -> ArrivalRows:
    recipients = [rows.recipient_row(recipient) for recipient in stored.envelope.recipients]
    return ArrivalRows(rows.message_row(stored, body, crc), recipients, data, stored.waits_for)


def _set_content_aside(places: Places, seq: int, id_: object, data: bytes | None, reason: str) -> None:
    """Keep what is left of a message that cannot go on as it was. A file that goes on all the same stays."""
    name = f"{id_ or seq}.eml"
    with contextlib.suppress(OSError):
        keep_bytes([data or b""], places.quarantine, name, reason)
    log.error("spool.message_unreadable id=%s reason=%r", ascii(id_), reason)


def _put_in_place(places: Places, reason: str) -> None:
    """The old files to quarantine under one name, so that they can be opened there; then the new one in their place."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", "-wal", "-shm"):
        old = places.database.with_name(places.database.name + suffix)
        if old.exists():
            set_aside(old, places.quarantine, f"{reason}\nset aside by the recovery of the spool", f"mailer-{stamp}.db{suffix}")
    places.carried.rename(places.database)
    sync_directory(places.spool)
    places.damaged.unlink(missing_ok=True)
    sync_directory(places.spool)


def _remove_database(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
