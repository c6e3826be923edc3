"""Where accepted mail enters: durable first, then archived, announced and offered to the schedule.

Threads: sessions (or whoever reads what another process received) hand messages over; the spool's thread goes on with
them once they are durable, a whole group at once. No state of its own, so no lock. What follows the commit cannot fail a
message: at worst the schedule finds it on disk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import Ways
from mailer.events import Hub, MessageAccepted
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.spool.handover import Gate
from mailer.spool.store import ContentWriter, SpoolError, Store, Stored, Told


class Archive(Protocol):
    """Keeps a copy of every accepted message."""

    def wait_for_room(self, size: int) -> None:
        """Before a message is accepted: wait a moment for an archive that is behind."""
        ...

    def add(self, envelope: Envelope, content: Content) -> None:
        """Queue a copy of an accepted one; does not wait."""
        ...


class _Arriving(NamedTuple):
    """A message on its way to the disk, and who is to be told."""

    envelope: Envelope
    content: Content
    lane: str
    began: float
    told: Told


class Intake:
    """Accepts messages; what the SMTP session is handed. ``archive`` is None where ``logAllEmails`` is off. ``count_report``
    is told the Unix time of each report of our own, in the thread that made it."""

    def __init__(self, store: Store, schedule: Schedule, ways: Ways, hub: Hub) -> None:
        self._store = store
        self._schedule = schedule
        self._ways = ways
        self._hub = hub
        self.archive: Archive | None = None
        self.count_report: Callable[[float], None] = lambda _now: None

    def new_content(self, message_id: str) -> ContentWriter:
        """Where the content of a message under way is written."""
        return self._store.new_content(message_id)

    def accept(self, envelope: Envelope, content: Content) -> None:
        """Make a message durable and due. Raises SpoolFull or SpoolError, and then it is not there."""
        gate = Gate()
        self.announce(envelope, content, lambda outcomes: gate.settle(outcomes[0][1]))
        gate.wait()

    def accept_report(self, envelope: Envelope, content: Content) -> None:
        """As ``accept``, for a report of our own: it counts in the rate limits, which never refuse it."""
        self.accept(envelope, content)
        self.count_report(envelope.accepted_at)

    def announce(self, envelope: Envelope, content: Content, told: Told) -> None:
        """As ``accept``, without waiting for the disk: ``told`` hears, by id, what became of it. Raises SpoolError, and then
        ``told`` does not."""
        if self.archive is not None:
            self.archive.wait_for_room(content.size)
        arriving = _Arriving(envelope, content, self._ways.lane(envelope.recipients), time.monotonic(), told)
        # Expected before it is durable: else the schedule could find it on disk and have it delivered, and its content
        # removed, before it is archived.
        self._schedule.expect(envelope.id)
        try:
            self._store.announce(envelope, content, arriving.lane, arriving, self._settled)
        except SpoolError:
            self._schedule.release(envelope.id, None)
            raise

    def _settled(self, outcomes: Sequence[tuple[_Arriving, SpoolError | None]]) -> None:
        """In the spool's thread: first those who wait are told, then the messages are admitted."""
        said: dict[Told, list[tuple[str, SpoolError | None]]] = {}
        for arriving, error in outcomes:
            said.setdefault(arriving.told, []).append((arriving.envelope.id, error))
        for told, about in said.items():
            told(about)
        left = deque(outcomes)
        try:
            while left:
                self._go_on(*left[0])
                left.popleft()
        finally:  # a fault of ours in the first of them: the schedule shall find the others on disk
            for arriving, _ in left:
                self._schedule.release(arriving.envelope.id, arriving.envelope.accepted_at)

    def _go_on(self, arriving: _Arriving, error: SpoolError | None) -> None:
        """Archive a message that is durable, tell of it, and let the schedule have it; forget one that is not."""
        envelope, content, lane, began, _ = arriving
        if error is not None:
            self._schedule.release(envelope.id, None)
            return
        seconds = time.monotonic() - began
        if self.archive is not None:
            self.archive.add(envelope, content)
        is_report = envelope.options.is_report
        self._hub.publish(MessageAccepted(envelope.id, len(envelope.recipients), envelope.size, is_report, seconds))
        self._schedule.admit_new(Stored(envelope, lane, due_at=envelope.accepted_at), content, envelope.accepted_at)
