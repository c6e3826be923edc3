"""The spool as a SQLite database: what ``store.Store`` promises, put together from the parts beside this file.

Threads: one of its own (``Writer``, run by a ``Service``); every method may be called from any thread. No lock here: each part
has its own. Fails with ``SpoolError`` and its kinds; what SQLite and the file system raise does not pass.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mailer.mail.content import LARGE_BYTES, Content, MemoryContent
from mailer.mail.envelope import Envelope, is_message_id
from mailer.service import Service
from mailer.spool import rows, tables
from mailer.spool.batch import ArrivalRows, ChangeRows
from mailer.spool.chores import BringForward, MakeDue, Promotion, Purge
from mailer.spool.commit import Writer
from mailer.spool.content import SpoolContentWriter, SpooledFile
from mailer.spool.faults import AlreadyKnown
from mailer.spool.fetch import Fetcher, load_stored
from mailer.spool.handover import Handover
from mailer.spool.ledger import Ledger
from mailer.spool.opening import Opened, open_database
from mailer.spool.places import Places, checked_id, keep_bytes, set_aside
from mailer.spool.readers import Readers
from mailer.spool.store import ContentLost, Holder, Record, Room, SpoolError, Stored, Told, Totals
from mailer.window import Bucket

log = logging.getLogger(__name__)

_PIECE_ROWS = 200  # of held_by: a reader must not hold the write-ahead log for long
_CLOSE_SECONDS = 30.0

_SEQ = "SELECT seq FROM messages WHERE id = ?"
_HELD = "SELECT seq FROM messages WHERE holder = ? AND holder <> 0 AND seq > ? ORDER BY seq LIMIT ?"
_SPOOLED = "SELECT seq FROM messages WHERE holder = 0 AND seq > ? ORDER BY seq LIMIT ?"
_CONTENT = (
    "SELECT messages.body, messages.crc, messages.size, messages.state, messages.holder, bodies.data"
    " FROM messages LEFT JOIN bodies ON bodies.seq = messages.seq WHERE messages.id = ?"
)
_USAGE = "SELECT name, span, start, count FROM usage WHERE name = ?"


class SqliteSpool:
    """Make one with ``open``."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._places: Places = opened.places
        self._handover = Handover(self._wake)
        path = self._places.database
        self._readers = Readers(path, lambda: tables.connect_reader(path), self._mark_damaged)
        log_bytes = opened.reserve.size // 4  # the reserve must hold the log, its checkpoint, and as much again
        self._ledger = Ledger(lambda: tables.connect_writer(path, log_bytes), self._readers.forget)
        self._writer = Writer(self._places, self._handover, self._ledger, opened.reserve)
        self._service = Service("spool", self._writer)
        self._fetcher = Fetcher(self._readers, self._promote)
        self._is_closed = False
        self._spoiled: set[str] = set()  # ids whose content file was found damaged while it was read; grows with damage alone

    def __repr__(self) -> str:
        return f"SqliteSpool({str(self._places.spool)!r}, {self._writer!r})"

    @classmethod
    def open(cls, data_dir: Path) -> SqliteSpool:
        """Lock the spool below ``data_dir``, recover what a crash or damage has left, and start its thread.

        Raises SpoolLocked when another process has it, SpoolError for all else that prevents it.
        """
        opened = open_database(data_dir)
        try:
            spool = cls(opened)
        except BaseException as error:
            opened.lock.release()
            if isinstance(error, sqlite3.Error):
                raise SpoolError(f"cannot open the spool {opened.places.database}: {str(error)!a}") from error
            raise
        spool._service.start()
        return spool

    @property
    def writable(self) -> bool:
        return self._writer.is_writable

    @property
    def accepting(self) -> bool:
        """Whether new mail can be stored, as far as the last try tells: writable, and not short of space."""
        return self._writer.is_accepting

    def new_content(self, message_id: str) -> SpoolContentWriter:
        return SpoolContentWriter(self._places, message_id)

    def submit(self, envelope: Envelope, content: Content, lane: str) -> None:
        arrival, is_copy = self._to_store(envelope, content, lane)
        try:
            self._handover.arrive(arrival)
        except SpoolError:
            if is_copy:
                self._forget_content(envelope.id)
            raise

    def announce(self, envelope: Envelope, content: Content, lane: str, token: object, told: Told) -> None:
        arrival, is_copy = self._to_store(envelope, content, lane)
        if is_copy:
            told = self._forgetting(envelope.id, told)
        self._handover.announce(arrival, token, told)

    def _forgetting(self, message_id: str, told: Told) -> Told:
        """``told``, which first removes the content file of a message that could not be stored."""

        def tell(outcomes: Sequence[tuple[Any, SpoolError | None]]) -> None:
            if any(error is not None for _, error in outcomes):
                self._forget_content(message_id)
            told(outcomes)

        return tell

    def _to_store(self, envelope: Envelope, content: Content, lane: str) -> tuple[ArrivalRows, bool]:
        """What is written of a new message; and whether a content file was made for it here."""
        checked_id(envelope.id)
        kept, is_copy = self._own(envelope.id, content)
        recipients = [rows.recipient_row(recipient) for recipient in envelope.recipients]
        if isinstance(kept, SpooledFile):
            message = rows.arrival_row(envelope, lane, rows.BODY_FILE, kept.crc, kept.size)
            return ArrivalRows(message, recipients, None), is_copy
        data = kept.data if isinstance(kept, MemoryContent) else b"".join(kept.chunks())
        message = rows.arrival_row(envelope, lane, rows.BODY_ROW, zlib.crc32(data), len(data))
        return ArrivalRows(message, recipients, data), is_copy

    def _forget_content(self, message_id: str) -> None:
        with contextlib.suppress(OSError):
            self._places.content_of(message_id).unlink()

    def adopt(self, stored: Stored) -> bool:
        checked_id(stored.envelope.id)
        with self._readers.reading() as connection:
            if connection.execute(_SEQ, (stored.envelope.id,)).fetchone() is not None:
                return False
        try:
            self._handover.arrive(_without_content(stored))
        except AlreadyKnown:
            return False
        return True

    def record(self, record: Record, done: Callable[[], None]) -> None:
        change = ChangeRows(
            record.id,
            rows.change_row(record),
            [rows.recipient_row(recipient) for recipient in record.recipients],
            [rows.plain_text(way) for way in record.waits_for] if record.waits_for and not record.state.is_final else (),
            done,
        )
        self._handover.change(change)

    def fetch_due(
        self, now: float, limit: int, held: Collection[str], closed_lanes: Collection[str], room: Room | None = None
    ) -> list[Stored]:
        return self._fetcher.fetch_due(now, limit, held, closed_lanes, room)

    def next_due(self, after: float, limit: int) -> list[float]:
        return self._fetcher.next_due(after, limit)

    def oldest_due(self, now: float) -> float | None:
        return self._fetcher.oldest_due(now)

    def lanes(self) -> list[str]:
        return self._fetcher.lanes()

    def content(self, message_id: str) -> Content:
        with self._readers.reading() as connection:
            row = connection.execute(_CONTENT, (message_id,)).fetchone()
        if row is None or row[0] == rows.NO_BODY:
            raise ContentLost(f"message {message_id!a}: the spool holds no content of it")
        body, crc, size, _, _, data = row
        if body == rows.BODY_FILE:
            return self._content_file(message_id, size, crc)
        if data is None or len(data) != size or zlib.crc32(data) != crc:
            found = "nothing" if data is None else f"{len(data)} bytes with another checksum"
            reason = f"message {message_id}: its content of {size} bytes is damaged, the database holds {found}"
            self._quarantine(message_id, [data or b""], reason)
            raise ContentLost(reason)
        return MemoryContent(data)

    def find(self, message_id: str) -> Stored | None:
        if not is_message_id(message_id):
            return None  # the name of a file that somebody dropped in may be anything, lone surrogates too
        with self._readers.reading(is_snapshot=True) as connection:
            row = connection.execute(_SEQ, (message_id,)).fetchone()
            found = load_stored(connection, [row[0]]) if row is not None else []
        return found[0] if found else None

    def held_by(self, holder: Holder) -> Iterator[Stored]:
        after = 0
        query, parameters = (_SPOOLED, []) if holder is Holder.SPOOL else (_HELD, [holder.value])
        while True:
            with self._readers.reading(is_snapshot=True) as connection:
                seqs = [row[0] for row in connection.execute(query, [*parameters, after, _PIECE_ROWS])]
                piece = load_stored(connection, seqs) if seqs else []
            yield from piece
            if len(seqs) < _PIECE_ROWS:
                return
            after = seqs[-1]

    def make_due(self, now: float, waits_for: str | None = None) -> int:
        chore = MakeDue(now, waits_for)
        self._handover.start(chore)
        chore.wait()
        return chore.count

    def bring_forward(self, now: float, latest: float) -> int:
        chores = [BringForward(lane, now, latest) for lane in self._fetcher.lanes_later_than(latest)]
        for chore in chores:
            self._handover.start(chore)
        for chore in chores:
            chore.wait()
        return sum(chore.count for chore in chores)

    def save_usage(self, buckets: Iterable[Bucket]) -> None:
        self._handover.put_usage(buckets)

    def load_usage(self, name: str) -> list[Bucket]:
        unsaved = self._handover.usage_of(name)
        if unsaved is not None:
            return unsaved
        with self._readers.reading() as connection:
            return [Bucket(*row) for row in connection.execute(_USAGE, (name,))]

    def totals(self) -> Totals:
        return self._writer.totals

    def purge(self, finished_before: float) -> int:
        chore = Purge(finished_before)
        self._handover.start(chore)
        chore.wait()
        return chore.count

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._handover.close()
        self._service.wake()
        is_ended = self._service.join(_CLOSE_SECONDS)
        self._readers.close()
        if is_ended:
            self._opened.lock.release()
        else:  # whoever still writes must keep the lock; it goes with the process
            log.error("spool.close_timeout seconds=%g: the disk does not answer", _CLOSE_SECONDS)

    def _own(self, message_id: str, content: Content) -> tuple[Content, bool]:
        """``content`` as the spool keeps it: its own file, or bytes in memory; and whether a file was made for it here."""
        if isinstance(content, SpooledFile) and content.path == self._places.content_of(message_id):
            return content, False
        if content.size <= LARGE_BYTES:
            return content, False
        writer = self.new_content(message_id)
        for piece in content.chunks():
            writer.write(piece)
        return writer.finish(), True

    def _content_file(self, message_id: str, size: int, crc: int) -> Content:
        path = self._places.content_of(message_id)
        try:
            found = f"{path.stat().st_size} bytes"
            is_whole = path.stat().st_size == size and message_id not in self._spoiled
        except OSError as error:
            found, is_whole = error.strerror or str(error), False
        if is_whole:
            return SpooledFile(path, size, crc, lambda: self._spoiled.add(message_id))
        reason = f"message {message_id}: its content of {size} bytes in {path} is damaged or missing ({found})"
        with contextlib.suppress(OSError):
            set_aside(path, self._places.quarantine, reason, f"{message_id}.eml")
            raise ContentLost(reason)
        self._quarantine(message_id, [], reason)
        raise ContentLost(reason)

    def _quarantine(self, message_id: str, pieces: list[bytes], reason: str) -> None:
        try:
            kept = keep_bytes(pieces, self._places.quarantine, f"{message_id}.eml", reason)
            log.error("spool.content_lost id=%s kept=%s reason=%r", message_id, kept, reason)
        except OSError as error:
            log.error("spool.content_lost id=%s kept=nothing error=%s reason=%r", message_id, error.strerror, reason)

    def _promote(self, lanes: list[str], now: float) -> None:
        promotions = [Promotion(lane, now) for lane in lanes]
        for promotion in promotions:
            self._handover.start(promotion)
        if threading.current_thread().name == self._service.name:
            return  # it cannot wait for itself; what is due now is fetched next time
        for promotion in promotions:
            with contextlib.suppress(SpoolError):  # a disk that cannot be written: what was due before is fetched all the same
                promotion.wait()

    def _mark_damaged(self, reason: str) -> None:
        self._writer.mark_damaged(reason)

    def _wake(self) -> None:
        self._service.wake()


def _without_content(stored: Stored) -> ArrivalRows:
    return ArrivalRows(
        rows.message_row(stored, rows.NO_BODY, 0),
        [rows.recipient_row(recipient) for recipient in stored.envelope.recipients],
        None,
        [rows.plain_text(way) for way in stored.waits_for],
    )
