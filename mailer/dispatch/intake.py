"""Where accepted mail enters: durable first, then archived, announced and offered to the schedule.

``accept`` runs in the session's thread and returns when the message is durable; what follows the commit cannot fail the
message. No state of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mailer.dispatch.schedule import Schedule
from mailer.dispatch.ways import Ways
from mailer.events import Hub, MessageAccepted
from mailer.mail.content import Content
from mailer.mail.envelope import Envelope
from mailer.spool.store import ContentWriter, SpoolError, Store, Stored

Archive = Callable[[Envelope, Content], None]


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
        seconds = time.monotonic() - began
        if self.archive is not None:
            self.archive(envelope, content)
        options = envelope.options
        self._hub.publish(MessageAccepted(envelope.id, len(envelope.recipients), envelope.size, options.is_report, seconds))
        self._schedule.admit_new(Stored(envelope, lane, due_at=envelope.accepted_at), content, envelope.accepted_at)
