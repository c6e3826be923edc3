"""Messages that wait as files in ``emails/failed``: the hand-over between the spool and a file, in both directions.

The order of steps is what makes a crash at any point harmless (spec 4):

    parking     prepare (hidden file, fsync'd) → record Holder.FILE (drops the spool's content) → publish (rename)
    finishing   record the final state with Holder.FILE_TO_CLEAR → remove or bury the file → record Holder.SPOOL
    at start    a hidden file that the row means (FILE, and of the same round) is published, any other discarded;
                a row that says FILE_TO_CLEAR has its file cleared
    taking up   a file nobody knows gets its id as its name first, then its row; the row is the taking up

Threads: ``prepare`` and ``open`` run in workers, ``parked`` and ``finished`` in the spool's writer (they only queue),
everything else in this module's own service thread. ``_lock`` guards the scan, which ``retry`` runs from HTTP threads.
A step that the disk refuses is logged and made up for by the next scan or start; the message goes on meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailer.dispatch.clock import ClockGuard
from mailer.dispatch.schedule import Schedule
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope, Recipient, State, is_message_id, new_message_id
from mailer.mail.outcome import MailerError, Reply
from mailer.spool.failed import FailedStore, NotNow, NotParked, ParkedFile, Settling, Signature, Unreadable
from mailer.spool.store import Holder, Record, SpoolError, Store, Stored

log = logging.getLogger(__name__)

REMOVED = Reply(554, "5.7.0", "removed by hand")
UNREADABLE_WAIT_SECONDS = 10.0  # somebody may still be writing it: unreadable counts once unchanged for so long (spec 4)
IDLE_SECONDS = 15.0
AGAIN_SECONDS = 1.0  # between tries to make due what waits, on a disk that is full

LaneOf = Callable[[Sequence[Recipient]], str]


class ParkingError(MailerError):
    """The file could not be written; the spool still has the message."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A parked message as its file has it now; ``changed``: the recipients that the row does not have like that."""

    stored: Stored
    content: Content
    changed: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class Gone:
    """The file is no more: the message is cancelled, or unreadable and in quarantine."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class NotYet:
    """The file cannot be read at the moment; look again after ``seconds``."""

    seconds: float


class Parking:
    """See the module. ``on_wake`` ends the wait of the thread that runs ``step``."""

    def __init__(
        self, store: Store, failed: FailedStore, schedule: Schedule, lane_of: LaneOf, on_wake: Callable[[], None]
    ) -> None:
        self._store = store
        self._failed = failed
        self._schedule = schedule
        self._lane_of = lane_of
        self._on_wake = on_wake
        self._clock = ClockGuard(store, schedule)
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._settling = Settling()
        self._open_again: dict[str, bool] = {}  # of the thread: ways whose messages are to be made due; whether told of trouble
        self._lock = threading.Lock()  # one scan at a time; guards _next_scan
        self._next_scan = 0.0
        self.interval_seconds = 3600.0  # retry.failedRetryInterval; the owner sets it

    def __repr__(self) -> str:
        return f"Parking(tasks={self._tasks.qsize()}, next_scan={self._next_scan:.0f})"

    # For the workers.

    def prepare(self, stored: Stored, content: Content) -> None:
        """Write the message into a hidden file, with those of its recipients that are still owed. Raises ParkingError."""
        try:
            self._failed.prepare(ParkedFile.of(stored, content))
        except (OSError, SpoolError) as fault:
            raise ParkingError(f"emails/failed/{stored.envelope.id}.json cannot be written: {fault}") from fault

    def parked(self, message_id: str, due_at: float) -> None:
        """The record of the hand-over is durable: show the file, then let the message leave memory."""

        def publish() -> None:
            try:
                self._show(message_id)
            finally:
                self._schedule.release(message_id, due_at)

        self._queue(publish)

    def finished(self, finished: Stored) -> None:
        """The record of the end, ``finished``, is durable: clear the file away."""
        self._queue(lambda: self._clear(finished))

    def open(self, stored: Stored, now: float) -> Opened | Gone | NotYet:
        """The message as the file has it: edited by hand, removed, or as we left it."""
        message_id = stored.envelope.id
        try:
            file = self._failed.read(message_id)
        except NotParked:
            return Gone(REMOVED)
        except NotNow as fault:
            log.error("parked.not_read id=%s why=%s: it stays, and is tried again", message_id, fault)
            return NotYet(UNREADABLE_WAIT_SECONDS)
        except Unreadable as fault:
            signature = self._failed.signature(message_id)
            if not self._settling.settled(message_id, signature, now):
                return NotYet(UNREADABLE_WAIT_SECONDS)
            self._failed.quarantine(message_id, str(fault))
            log.error("parked.unreadable id=%s why=%s moved=emails/quarantine", message_id, fault)
            return Gone(Reply(554, "5.6.0", "its file became unreadable and is in emails/quarantine"))
        return _reconcile(stored, file, now)

    def opened_again(self, way: str) -> None:
        """What waited or was parked for that way's sake is due (spec 4), as soon as the spool can write it. Any thread."""
        self._queue(lambda: self._open_again.__setitem__(way, False))

    # The thread.

    def step(self, now: float) -> float:
        """Do what was queued, then look at the folder if it is time. Returns seconds until the next look."""
        self.finish_tasks()
        self._make_due(now)
        if self._clock.look(now, self.interval_seconds) or now >= self._next_scan:
            self.scan(now)
        return max(0.0, min(AGAIN_SECONDS if self._open_again else IDLE_SECONDS, self._next_scan - now))

    def _make_due(self, now: float) -> None:
        for way, is_told in tuple(self._open_again.items()):
            try:
                count = self._store.make_due(now, way)
            except SpoolError as fault:
                if not is_told:
                    log.warning("provider.awaited_not_due name=%s error=%r: tried again and again", way, str(fault))
                self._open_again[way] = True
                return
            del self._open_again[way]
            if count:
                log.info("provider.awaited name=%s due=%d", way, count)
            self._schedule.call_again(way)
            self._schedule.look_again()

    def finish_tasks(self) -> None:
        """Do what was queued."""
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                return
            task()

    def recover(self) -> None:
        """At start, before anything else runs: end every hand-over that a crash cut short."""
        for message_id in self._failed.prepared_ids():
            if self._is_meant(message_id):
                self._show(message_id)
                continue
            with contextlib.suppress(OSError):  # it does no harm, and the next start tries again
                self._failed.discard_prepared(message_id)
        for row in self._store.held_by(Holder.FILE_TO_CLEAR):
            self._clear(row)

    def scan(self, now: float) -> None:
        """Take up files that were dropped in, and cancel messages whose file was removed."""
        with self._lock:
            self._next_scan = now + self.interval_seconds
            for name, signature in self._failed.names():
                row = self._store.find(name)
                if row is None or row.holder is Holder.SPOOL:
                    self._take_up(name, signature, now)
            for row in self._store.held_by(Holder.FILE):
                if not self._failed.has(row.envelope.id):
                    # The worker that opens it finds no file and cancels it, under the rules of any message.
                    self._schedule.bring_up(row.envelope.id, now)
            for row in self._store.held_by(Holder.FILE_TO_CLEAR):
                self.finished(row)  # the disk refused it before, or it is in the queue already: twice does no harm
            is_early = self._next_scan < now + self.interval_seconds
        if is_early:
            self._on_wake()  # the scan may run in another thread than the one that waits for the next

    # Steps.

    def _queue(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)
        self._on_wake()

    def _show(self, message_id: str) -> None:
        try:
            self._failed.publish(message_id)
        except OSError as fault:
            log.error("parked.hidden id=%s error=%r: its file stays hidden until the next start", message_id, str(fault))

    def _is_meant(self, message_id: str) -> bool:
        """Whether the hidden file is the message: its record was written after it, so a crash cannot have cut it short.

        A message that is parked again has an older file; a hidden one of a round that its row does not know is not its own.
        """
        row = self._store.find(message_id)
        if row is None or row.holder is Holder.SPOOL:
            return False
        try:
            rounds = self._failed.read_prepared(message_id).rounds
        except NotParked:
            return False
        except (Unreadable, NotNow):  # the file before it is there, which its row still fits; or it is all there is
            return not self._failed.is_shown(message_id)
        return row.holder is Holder.FILE_TO_CLEAR or rounds == row.rounds

    def _clear(self, row: Stored) -> None:
        message_id = row.envelope.id
        try:
            if row.state is State.SUCCESS:
                self._failed.remove(message_id)
            else:
                self._bury(row)
        except (OSError, NotNow) as fault:
            log.error("parked.not_cleared id=%s error=%r: tried again at the next scan or start", message_id, str(fault))
            return
        with contextlib.suppress(SpoolError):  # the spool is closed: the next start comes to the same end
            self._store.record(Record(message_id, row.state, None, rounds=row.rounds, holder=Holder.SPOOL), lambda: None)

    def _bury(self, row: Stored) -> None:
        """Move the file to ``emails/dead`` with those who never got it; with none such it is removed.

        Whoever moves it back from there has it sent anew, and a recipient that got it never gets it again.
        """
        message_id = row.envelope.id
        self._failed.publish(message_id)
        delivered = {str(r.address) for r in row.envelope.recipients if r.state is State.SUCCESS}
        try:
            file = self._failed.read(message_id)
        except (NotParked, Unreadable):
            self._failed.bury(message_id)
            return
        missed = tuple(r for r in file.recipients if str(r.address) not in delivered)
        if not missed:
            self._failed.remove(message_id)
            return
        if len(missed) < len(file.recipients):
            self._failed.prepare(replace(file, id=message_id, recipients=missed))
            self._failed.publish(message_id)
        self._failed.bury(message_id)

    def _take_up(self, name: str, signature: Signature, now: float) -> None:
        """Make a file that nobody knows a message of ours."""
        try:
            file = self._failed.read(name)
            if not file.recipients:
                raise Unreadable("To names no recipient")
        except NotParked:
            return
        except (Unreadable, NotNow) as fault:
            if isinstance(fault, Unreadable) and self._settling.settled(name, signature, now):
                self._failed.quarantine(name, str(fault))
                log.error("parked.unreadable file=%r why=%s moved=emails/quarantine", name, fault)
            else:
                self._next_scan = min(self._next_scan, now + UNREADABLE_WAIT_SECONDS)
            return
        message_id = self._free_id(name, file.id)
        if message_id != name:
            self._failed.adopt_name(name, message_id)
        recipients = tuple(replace(r, index=i, state=State.RETRYING) for i, r in enumerate(file.recipients))
        accepted_at = now if file.accepted_at is None else file.accepted_at
        envelope = Envelope(message_id, file.sender, recipients, file.content.size, accepted_at, file.options)
        try:
            self._store.adopt(Stored(envelope, self._lane_of(recipients), State.RETRYING, now, holder=Holder.FILE))
        except SpoolError as fault:
            log.error("parked.not_taken_up id=%s why=%s next=%ds", message_id, fault, self.interval_seconds)
            return
        log.info("parked.taken_up id=%s file=%r owed=%d", message_id, name, len(recipients))
        self._schedule.look_again()

    def _free_id(self, name: str, wanted: str) -> str:
        """The id for a file: the one it asks for, else its name, if free and fit for a file name; else a new one."""
        if is_message_id(wanted) and self._store.find(wanted) is None and (wanted == name or not self._failed.has(wanted)):
            return wanted
        if is_message_id(name) and self._store.find(name) is None:
            return name
        return new_message_id()


def _reconcile(stored: Stored, file: ParkedFile, now: float) -> Opened:
    """The row and the file as one: the file says who is owed, the row who is done with.

    A recipient that the row knows as done stays done (the file may be older than the row: a crash between the two); one
    that was taken out of the file is FAILED, one that was put in is new.
    """
    in_file = {str(r.address): r for r in file.recipients}
    recipients = []
    changed = []
    for recipient in stored.envelope.recipients:
        recipients.append(recipient)
        if in_file.pop(str(recipient.address), None) is None and not recipient.state.is_final:
            recipients[-1] = replace(recipient, state=State.FAILED, reply=REMOVED, updated_at=now)
            changed.append(recipients[-1])
    for added in in_file.values():
        changed.append(replace(added, index=len(recipients), state=State.RETRYING, updated_at=now))
        recipients.append(changed[-1])
    envelope = replace(stored.envelope, sender=file.sender, recipients=tuple(recipients), size=file.content.size)
    return Opened(replace(stored, envelope=envelope), file.content, tuple(changed))
