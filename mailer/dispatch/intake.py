"""Where accepted mail enters: durable first, then archived, announced and offered to the schedule.

``accept`` runs in the session's thread and returns when the message is durable; what follows the commit cannot fail the
message. No state of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import Ways
from mailer.events import Hub, MessageAccepted
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.spool.store import ContentWriter, SpoolError, Store, Stored, Told

Archive = Callable[[Envelope, Content], None]


class _Announced(NamedTuple):
    """A message on its way to the disk that no thread of ours waits for."""

    envelope: Envelope
    content: Content
    lane: str
    began: float
    told: Told


class Intake:
    """Accepts messages; what the SMTP session is handed. ``archive`` is None where ``logAllEmails`` is off."""

    def __init__(self, store: Store, schedule: Schedule, ways: Ways, hub: Hub) -> None:
        self._store = store
        self._schedule = schedule
        self._ways = ways
        self._hub = hub
        self.archive: Archive | None = None

    def new_content(self, message_id: str) -> ContentWriter:
        """Where the content of a message under way is written."""
        return self._store.new_content(message_id)

    def accept(self, envelope: Envelope, content: Content) -> None:
        """Make a message durable and due. Raises SpoolFull or SpoolError, and then it is not there."""
        lane = self._ways.lane(envelope.recipients)
        began = time.monotonic()
        # Expected before it is durable: else the schedule could find it on disk and have it delivered, and its content
        # removed, before it is archived.
        self._schedule.expect(envelope.id)
        try:
            self._store.submit(envelope, content, lane)
        except SpoolError:
            self._schedule.release(envelope.id, None)
            raise
        self._admit(envelope, content, lane, began)

    def announce(self, envelope: Envelope, content: Content, told: Told) -> None:
        """As ``accept`` without waiting: ``told`` hears, by id, what became of it. Raises SpoolError when the spool is closed."""
        announced = _Announced(envelope, content, self._ways.lane(envelope.recipients), time.monotonic(), told)
        self._schedule.expect(envelope.id)
        try:
            self._store.announce(envelope, content, announced.lane, announced, self._settled)
        except SpoolError:
            self._schedule.release(envelope.id, None)
            raise

    def _settled(self, outcomes: Sequence[tuple[_Announced, SpoolError | None]]) -> None:
        """In the spool's thread: first those who wait are told, then the messages are admitted."""
        by_listener: dict[Told, list[tuple[str, SpoolError | None]]] = {}
        for announced, error in outcomes:
            by_listener.setdefault(announced.told, []).append((announced.envelope.id, error))
        for told, said in by_listener.items():
            told(said)
        for announced, error in outcomes:
            if error is None:
                self._admit(announced.envelope, announced.content, announced.lane, announced.began)
            else:
                self._schedule.release(announced.envelope.id, None)

    def _admit(self, envelope: Envelope, content: Content, lane: str, began: float) -> None:
        """It is durable: archive it, tell of it, and let the schedule have it."""
        seconds = time.monotonic() - began
        if self.archive is not None:
            self.archive(envelope, content)
        options = envelope.options
        self._hub.publish(MessageAccepted(envelope.id, len(envelope.recipients), envelope.size, options.is_report, seconds))
        self._schedule.admit_new(Stored(envelope, lane, due_at=envelope.accepted_at), content, envelope.accepted_at)
