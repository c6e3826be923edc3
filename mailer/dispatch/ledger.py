"""What is written down about a message in a worker's hands: outcomes, waits, parking, the end.

A ``Message`` collects the recipients that changed; each method of ``Ledger`` writes them in one record. ``wait``, ``leave``,
``park`` and ``finish`` end the workers' hold: the message leaves memory once the record is durable, and only then, because
until then the spool still says what it said before.

Called by worker threads; the ``done`` callbacks run in the spool's writer. A message may be in the hands of several workers,
one for each domain: its own lock guards it then (``Message.lock``), and whoever lets go of it last ends the hold, alone.
The other thing shared is the count of attempts in doubt: delivered, and not yet durably recorded. At most ``max_in_doubt``
are, so a crash repeats no more than that many (spec 4, "Durability").
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from mailer.dispatch.parking import Parking, ParkingError
from mailer.dispatch.round import Round
from mailer.dispatch.schedule import Schedule
from mailer.events import Hub, MessageFinished, MessageParked
from mailer.mail.content import Content, Render
from mailer.mail.envelope import Recipient, State, owed_of
from mailer.mail.render import Sign, make_render
from mailer.spool.store import Holder, Record, Store, Stored

log = logging.getLogger(__name__)

DISK_FAULT_WAIT_SECONDS = 60.0
DOUBT_WAIT_SECONDS = 5.0
"""How long a worker waits for earlier outcomes to become durable before it puts its message back."""


class Message:
    """A message in workers' hands: its row, content, the round under way, and what has changed since the last record.

    ``row`` is as it was read but for what ``round_ended`` says; ``recipients`` and ``owed`` are as they are now, and
    ``stored`` is both together. ``denied``: ways that refused admission, by the Unix time at which to ask again.
    ``doubts``: attempts in doubt that have ended. ``branches``: jobs that carry it, in hands or in the queue;
    ``is_branched``: there were several. ``put_off_until`` (Unix time): nothing is tried before. ``lock`` guards everything that
    changes.
    """

    __slots__ = (
        "branches", "changed", "content", "denied", "doubts", "id", "is_branched", "lock", "owed", "put_off_until", "recipients",
        "render", "round", "row",
    )  # fmt: skip

    def __init__(self, row: Stored, content: Content, sign: Sign | None = None) -> None:
        envelope = row.envelope
        self.id = envelope.id
        self.row = row
        self.content = content
        self.recipients: Sequence[Recipient] = envelope.recipients
        self.owed = envelope.owed
        self.round = Round.from_progress(row.progress) if row.progress else Round()
        self.round.tells_success = "SUCCESS" in envelope.options.dsn
        self.render: Render = make_render(envelope, content, sign)
        self.changed: dict[int, Recipient] = {}
        self.denied: dict[str, float] = {}
        self.doubts = 0
        self.lock = threading.Lock()
        self.branches = 1
        self.is_branched = False
        self.put_off_until = 0.0

    def __repr__(self) -> str:
        return f"Message({self.id}, owed={len(self.owed)}, {self.round!r})"

    @property
    def stored(self) -> Stored:
        """The row with the recipients as they are now."""
        if self.recipients is not self.row.envelope.recipients:
            self.recipients = tuple(self.recipients)
            self.row = replace(self.row, envelope=replace(self.row.envelope, recipients=self.recipients))
        return self.row

    @property
    def idle(self) -> Sequence[Recipient]:
        """Those still owed that nobody is trying at this moment."""
        under_way = self.round.under_way
        return [r for r in self.owed if r.index not in under_way] if under_way else self.owed

    def idle_of(self, indexes: Sequence[int]) -> Sequence[Recipient]:
        """Those of them that are still owed and that nobody is trying."""
        chosen = [self.recipients[index] for index in indexes if index not in self.round.under_way]
        return owed_of(chosen)

    @property
    def news(self) -> tuple[Recipient, ...]:
        """What has changed since the last record."""
        return tuple(self.changed.values())

    def update(self, changed: Sequence[Recipient]) -> None:
        """Put changed recipients in the place of the old ones."""
        recipients = list(self.recipients)
        for recipient in changed:
            recipients[recipient.index] = recipient
            self.changed[recipient.index] = recipient
        self.recipients = recipients
        self.owed = owed_of(recipients)

    def round_ended(self, due_at: float | None) -> Stored:
        """Count the round, if it tried something. Returns the row, due then, with the recipients as they are now."""
        self.row = replace(self.stored, rounds=self.row.rounds + self.round.has_tried, due_at=due_at)
        return self.row


class Ledger:
    """Writes records; see the module."""

    def __init__(self, store: Store, schedule: Schedule, parking: Parking, hub: Hub, max_in_doubt: int) -> None:
        self._store = store
        self._schedule = schedule
        self._parking = parking
        self._hub = hub
        # One token for each attempt that may be in doubt. A SimpleQueue counts in C; a semaphore costs ten times as much.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._give_back(max_in_doubt)

    def begin(self) -> bool:
        """Ask for leave to hand over mail; False when too many earlier outcomes are not durable yet. To be followed by
        ``end``."""
        if not self._store.writable:
            return False
        try:
            self._tokens.get(timeout=DOUBT_WAIT_SECONDS)
        except queue.Empty:
            return False
        return True

    def end(self, message: Message, is_in_doubt: bool) -> None:
        """The attempt is over; it is in doubt when it delivered something, until that is recorded."""
        if is_in_doubt:
            message.doubts += 1
        else:
            self._give_back(1)

    def note(self, message: Message, now: float) -> None:
        """Outcomes so far, while the worker goes on: after a crash the round goes on from here."""
        progress = message.round.to_progress()
        record = Record(
            message.id,
            State.RETRYING,
            now,
            recipients=message.news,
            rounds=message.row.rounds,
            progress=progress,
            holder=message.row.holder,
            at=now,
        )
        self._write(message, record, lambda: None)

    def wait(self, message: Message, due_at: float, lane: str, now: float, waits_for: Sequence[str] = ()) -> None:
        """The message comes back at ``due_at``, to go on with the round."""
        row = message.row
        is_begun = message.round.has_tried or bool(message.round.to_report)
        record = Record(
            message.id,
            State.RETRYING if is_begun else row.state,
            due_at,
            recipients=message.news,
            rounds=row.rounds,
            progress=message.round.to_progress() if is_begun else "",
            waits_for=waits_for,
            holder=row.holder,
            lane=lane,
            at=now,
        )
        self._write(message, record, lambda: self._schedule.release(message.id, due_at))

    def leave(self, message: Message) -> None:
        """The message leaves memory as the spool has it: due, and waiting for its lane to open."""
        self._schedule.release(message.id, None)

    def park(self, message: Message, due_at: float, lane: str, now: float, waits_for: Sequence[str]) -> None:
        """The round is over with recipients owed: from here on the file in ``emails/failed`` is the message."""
        stored = message.round_ended(due_at)
        holder = Holder.FILE
        try:
            self._parking.prepare(stored, message.content)
        except ParkingError as fault:
            log.error("message.not_parked id=%s why=%s seconds=%d", message.id, fault, DISK_FAULT_WAIT_SECONDS)
            holder, due_at = stored.holder, min(due_at, now + DISK_FAULT_WAIT_SECONDS)
        record = Record(
            message.id,
            State.RETRYING,
            due_at,
            recipients=message.news,
            rounds=stored.rounds,
            waits_for=waits_for,
            holder=holder,
            lane=lane,
            at=now,
        )
        if holder is stored.holder is Holder.SPOOL:
            self._write(message, record, lambda: self._schedule.release(message.id, due_at))
            return
        self._write(message, record, lambda: self._parking.parked(message.id, due_at))
        self._hub.publish(MessageParked(message.id))
        owed = stored.envelope.owed
        log.warning(
            "message.parked id=%s owed=%d rounds=%d next=%ds file=emails/failed/%s.json last_reply=%r",
            message.id, len(owed), stored.rounds, due_at - now, message.id, str(owed[0].reply),
        )  # fmt: skip

    def finish(self, message: Message, now: float, given_up: Stored | None = None) -> None:
        """Every recipient has its final state. ``given_up``: what it was when they were owed; that goes to ``emails/dead``."""
        recipients, row, failed = message.recipients, message.row, 0
        for recipient in recipients:
            if recipient.state is State.FAILED:
                failed += 1
        state = State.FAILED if failed else State.SUCCESS
        in_file = row.holder is Holder.FILE or (given_up is not None and self._prepare_dead(message, given_up))
        holder = Holder.FILE_TO_CLEAR if in_file else Holder.SPOOL

        def durable() -> None:
            self._schedule.release(message.id, None)
            if in_file:
                self._parking.finished(replace(message.stored, state=state, holder=holder))

        record = Record(message.id, state, None, recipients=message.news, rounds=row.rounds, holder=holder, at=now)
        self._write(message, record, durable)
        seconds = now - row.envelope.accepted_at
        delivered = len(recipients) - failed
        self._hub.publish(MessageFinished(message.id, delivered, failed, row.envelope.options.is_report, seconds))
        # Delivered at the first attempt: the attempt's line has said it all.
        at_once = len(recipients) == 1 and recipients[0].attempts == 1
        level = logging.WARNING if failed else logging.DEBUG if at_once else logging.INFO
        log.log(level, "message.finished id=%s delivered=%d failed=%d seconds=%.3f", message.id, delivered, failed, seconds)

    def _give_back(self, tokens: int) -> None:
        for _ in range(tokens):
            self._tokens.put(None)

    def _prepare_dead(self, message: Message, given_up: Stored) -> bool:
        try:
            self._parking.prepare(given_up, message.content)
        except ParkingError as fault:
            log.error("message.not_kept id=%s why=%s folder=emails/dead", message.id, fault)
            return False
        return True

    def _write(self, message: Message, record: Record, done: Callable[[], None]) -> None:
        """Write a record that has all the news; once it is durable, nothing of the message is in doubt."""
        doubts, message.doubts = message.doubts, 0

        def durable() -> None:
            self._give_back(doubts)
            done()

        message.changed = {}
        self._store.record(record, durable)
