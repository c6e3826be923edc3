"""The one writer of the spool: everything that waits goes into one transaction and one fsync (group commit).

Thread: all of it runs in the spool's service thread, by ``step``; other threads hand over through ``Handover`` and read
``is_writable``, ``is_accepting``, ``damage`` and ``totals``, which are replaced whole. ``damage`` alone is set by whoever
meets it first: one lock says who that was.

How it fails: a transaction that fails is rolled back. Those who wait for it are told; records are kept in their order
and tried again every second and with every new submission, at last with the space of the reserve. A damaged database is
marked, and nothing more is written until a restart has recovered it.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice

from mailer.spool.batch import Batch, ChangeRows
from mailer.spool.faults import AlreadyKnown, Fault, describe, fault_of, for_client
from mailer.spool.handover import RIDE_SECONDS, Chore, Group, Handover, settle_all
from mailer.spool.ledger import Ledger
from mailer.spool.places import Places, write_durably
from mailer.spool.reserve import Reserve
from mailer.spool.store import SpoolError, SpoolFull, Totals
from mailer.spool.tables import PAGE_BYTES

log = logging.getLogger(__name__)

GROUP_MESSAGES = 256  # a group of this many takes about 10 ms, so that nobody waits long behind it
RETRY_SECONDS = 1.0  # between tries to write kept records, and to make the reserve again
IDLE_SECONDS = 30.0  # between looks at how much of the database is unused
REPEAT_LOG_SECONDS = 60.0  # the same trouble is told again after this
VACUUM_PAGES = 512  # 2 MiB: a step of giving unused pages back that holds nobody up
VACUUM_STEPS = 8  # a try to make room, with sessions waiting behind it
UNUSED_PAGES_KEPT = 16384  # 64 MiB stay in the file for the next burst

_WRITE_FAULTS = (sqlite3.Error, ValueError, OverflowError)  # the latter two: a value that cannot be bound


class Writer:
    """The body of the spool's thread (``service.Stepper``)."""

    def __init__(self, places: Places, handover: Handover, ledger: Ledger, reserve: Reserve) -> None:
        self._places = places
        self._handover = handover
        self._ledger = ledger
        self._reserve = reserve
        self._backlog: deque[ChangeRows] = deque()
        self._chores: list[Chore] = []
        self._done: deque[Callable[[], None]] = deque()
        self._told: Fault | None = None  # the trouble that the log speaks of, until it is over
        self._told_at = 0.0
        self._restored_at = 0.0
        self._looked_at = 0.0
        self._is_full = False
        self._is_written = True  # the last try to write went well
        self._marking = threading.Lock()  # guards that damage is set once; reading it needs no lock
        self.damage = ""

    def __repr__(self) -> str:
        return f"Writer(writable={self.is_writable}, backlog={len(self._backlog)}, damage={self.damage!r}, {self._reserve!r})"

    @property
    def is_writable(self) -> bool:
        """Whether records can be written, as far as the last try tells. Damage found by a reader counts at once, even
        while a transaction that began before it still succeeds."""
        return self._is_written and not self.damage

    @property
    def is_accepting(self) -> bool:
        """Whether new mail can be stored, as far as the last try tells."""
        return self.is_writable and self._reserve.present and not self._is_full

    @property
    def totals(self) -> Totals:
        return self._ledger.totals

    def mark_damaged(self, reason: str) -> None:
        """Refuse further mail, and leave a mark so that the next start recovers what can be read. Any thread."""
        with self._marking:
            if self.damage:
                return
            self.damage = reason
        log.error(
            "spool.damaged path=%s reason=%r: mail is refused; restart mailer to recover what is readable",
            self._places.database, reason,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            write_durably(self._places.damaged, [reason.encode("utf-8", "replace"), b"\n"])

    def step(self, now: float) -> float | None:
        self._call_done()
        is_closed = self._handover.is_closed  # asked before taking: what came before the close is in the group
        group = self._handover.take(GROUP_MESSAGES)
        is_idle = not group
        self._backlog.extend(group.changes)
        group.chores, self._chores = self._chores + group.chores, []
        try:
            self._settle(group, now)
        finally:  # no one may wait for ever, whatever happened
            group.fail(SpoolError("the spool's writer met a fault of its own; see the log"))
        self._call_done()
        if self._handover.has_more() or self._chores or (self._backlog and self.is_writable):
            return 0.0
        if is_closed:
            self._end()
            return None
        if not is_idle and self.is_writable:
            return RIDE_SECONDS  # no record rouses us until we have found nothing once
        return self._rest(now)

    def _call_done(self) -> None:
        while self._done:
            self._done.popleft()()

    def _settle(self, group: Group, now: float) -> None:
        if self.damage:
            group.fail(SpoolError(f"the spool is damaged ({self.damage}); restart mailer to recover it"))
            return
        self._restore_reserve(now)
        if not self._reserve.present:
            for arrival in group.arrivals:
                arrival.settle(SpoolFull(f"the disk of the spool {self._places.spool} is full; free some space"))
            group.arrivals = []
        if not (group or self._backlog) and self.is_writable:
            return
        group.changes = list(islice(self._backlog, GROUP_MESSAGES))
        error = self._write(group)
        if error is None:
            self._drop_from_backlog(len(group.changes))
            self._went_well()
            return
        fault = fault_of(error, self._places.spool)
        if fault is Fault.ROW:
            self._write_one_by_one(group)
        else:
            self._after_fault(group, error, fault, now)

    def _write(self, group: Group) -> Exception | None:
        """Write ``group`` in one transaction and settle it; or the error that prevented it, with nothing settled."""
        unknown: list[str] = []

        def work(batch: Batch) -> None:
            batch.insert([arrival.rows for arrival in group.arrivals])
            unknown.extend(batch.change(group.changes))
            for buckets in group.usage.values():
                batch.put_usage(buckets)
            for chore in group.chores:
                chore.step(batch)

        try:
            batch = self._ledger.write(work)
        except _WRITE_FAULTS as error:
            return error
        settle_all(group.arrivals)
        self._done.extend([change.done for change in group.changes])
        self._chores += [chore for chore in group.chores if not chore.committed()]
        if group.usage:
            self._handover.saved_usage(True)
        group.arrivals, group.chores, group.usage = [], [], {}
        self._unlink(batch.released)
        for message_id in unknown:
            log.warning("spool.unknown_message id=%s: its row is gone, a record of it was dropped", message_id)
        return None

    def _write_one_by_one(self, group: Group) -> None:
        """Some row cannot be stored: find out which, so that it harms no other."""
        arrivals, group.arrivals = group.arrivals, []
        for arrival in arrivals:
            error = self._write(Group([arrival]))
            if error is not None:
                log.error("spool.refused_message id=%s error=%r", arrival.rows.id, describe(error))
                kind = AlreadyKnown if isinstance(error, sqlite3.IntegrityError) else SpoolError
                arrival.settle(kind(f"message {arrival.rows.id} cannot be stored: {describe(error)}"))
        rest = Group(chores=group.chores, usage=group.usage)
        error = self._write(rest) if rest else None
        if error is not None:
            log.error("spool.refused_chore error=%r", describe(error))
            rest.fail(SpoolError(f"the spool cannot do this: {describe(error)}"))
        group.chores, group.usage = [], {}
        for change in group.changes:
            error = self._write(Group(changes=[change]))
            if error is not None:
                if fault_of(error, self._places.spool) is not Fault.ROW:
                    return
                log.error("spool.refused_record id=%s error=%r: it cannot be stored", change.id, describe(error))
                self._done.append(change.done)
            self._drop_from_backlog(1)

    def _after_fault(self, group: Group, error: Exception, fault: Fault, now: float) -> None:
        """The disk failed us: tell who waits, then save the records, with the reserve's space if it must be."""
        self._tell(error, fault, now)
        self._is_full = self._is_full or (fault is Fault.SPACE and bool(group.arrivals))
        if group.usage:
            self._handover.saved_usage(False)
            group.usage = {}
        submitted = [arrival.rows.id for arrival in group.arrivals]
        group.fail(for_client(fault, error, self._places.database))
        group.arrivals = []
        if fault is Fault.DAMAGE:
            self.mark_damaged(describe(error))
            return
        if fault is Fault.DEVICE:
            self._ledger.distrust(submitted)
        again = self._write_with_room(group)
        if again is not None and self._reserve.spend():
            again = self._write_with_room(group)
        if again is None:
            self._drop_from_backlog(len(group.changes))
        self._is_written = again is None

    def _write_with_room(self, group: Group) -> Exception | None:
        """Like ``_write``, with the whole length of the log to write in."""
        with contextlib.suppress(sqlite3.Error):
            self._ledger.rewind()
        return self._write(group)

    def _drop_from_backlog(self, count: int) -> None:
        if count == len(self._backlog):
            self._backlog.clear()
            return
        for _ in range(count):
            self._backlog.popleft()

    def _unlink(self, message_ids: list[str]) -> None:
        for message_id in message_ids:
            try:
                self._places.content_of(message_id).unlink(missing_ok=True)
            except OSError as error:
                log.warning("spool.content_left id=%s error=%s: it is swept at the next start", message_id, error.strerror)

    def _went_well(self) -> None:
        if not self._is_written:
            log.warning("spool.writable path=%s kept=%d: it can be written again", self._places.database, len(self._backlog))
            self._told = None
        self._is_written = True

    def _tell(self, error: Exception, fault: Fault, now: float) -> None:
        if fault is self._told and abs(now - self._told_at) < REPEAT_LOG_SECONDS:
            return
        self._told, self._told_at = fault, now
        log.error(
            "spool.unwritable path=%s fault=%s error=%r kept=%d: new mail is refused, records are kept and tried again",
            self._places.database, fault.value, describe(error), len(self._backlog),
        )  # fmt: skip

    def _restore_reserve(self, now: float) -> None:
        """Make the reserve again once there is room, at most each second, for which the database gives back its own."""
        if self._reserve.present and not self._is_full:
            return
        if abs(now - self._restored_at) < RETRY_SECONDS:
            return
        self._restored_at = now
        step = max(1, self._reserve.size // PAGE_BYTES // 8)  # pages in use move into the log first: it must have room
        for _ in range(VACUUM_STEPS):
            if (self._reserve.restore() and self._reserve.has_room()) or not self._shrink(step, keep=0):
                break
        self._is_full = self._is_full and not self._reserve.has_room()
        if self.is_accepting:
            log.warning("spool.accepting path=%s: there is room again, new mail is accepted", self._places.database)
            self._told = None

    def _rest(self, now: float) -> float:
        """Nothing is left to write: how long to sleep."""
        if self.damage:
            return IDLE_SECONDS
        if not self.is_writable or not self._reserve.present or self._is_full:
            return RETRY_SECONDS
        if abs(now - self._looked_at) >= RETRY_SECONDS:
            self._looked_at = now
            if self._shrink(VACUUM_PAGES, keep=UNUSED_PAGES_KEPT):
                return RETRY_SECONDS
        return IDLE_SECONDS

    def _shrink(self, pages: int, keep: int) -> bool:
        try:
            return self._ledger.give_back(pages, keep)
        except sqlite3.Error:
            return False  # no room even for that; or what the next write will meet and tell

    def _end(self) -> None:
        if self._backlog:
            log.error("spool.records_lost count=%d: their messages are tried again at the next start", len(self._backlog))
        self._ledger.close()
